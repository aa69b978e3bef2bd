"""One plain run of a prompt, keeping what branches take from it."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from workbench.models.attention import Attention
from workbench.models.hooked import HookedModel
from workbench.models.shared_attention import whole_sequence
from workbench.models.steered import Call, Job, Run


@dataclass
class Prefix:
    """A prompt's keys and values in every layer, and what its last positions computed.

    One entry per layer, each on its layer's device. The last axis of `written` and `residuals` is
    the residual stream; both, and `z`, cover the last `recorded` positions.
    """

    tokens: Sequence[int]
    recorded: int
    keys: list[Float[Tensor, "1 kv_head position d_head"]] = field(default_factory=list)
    values: list[Float[Tensor, "1 kv_head position d_head"]] = field(default_factory=list)
    residuals: list[Float[Tensor, "1 recorded d_model"]] = field(default_factory=list)
    """What enters each block."""
    written: list[Float[Tensor, "1 recorded d_model"]] = field(default_factory=list)
    """What each attention module returns."""
    z_by_layer: list[Float[Tensor, "recorded head d_head"]] = field(default_factory=list)
    logits: Float[Tensor, " d_vocab"] = field(default_factory=lambda: torch.empty(0))
    """At the last token."""

    @property
    def z(self) -> Float[Tensor, "layer recorded head d_head"]:
        """Every head's output over the recorded positions, on the first layer's device."""
        device = self.z_by_layer[0].device
        return torch.stack([z.to(device) for z in self.z_by_layer])


@torch.no_grad()
def run_prefix(
    model: HookedModel,
    tokens: Sequence[int],
    recorded: int,
    *,
    queries: list[Float[Tensor, "1 head recorded d_head"]] | None = None,
) -> Prefix:
    """Run a prompt once through the view, recording its last `recorded` positions.

    Each layer's queries there are added to `queries`, if given.

    Raises:
        InputError: an empty or overlong prompt, or a token outside the vocabulary.
    """
    model.check_sequences([tokens])
    prefix = Prefix(tuple(tokens), recorded)
    length = len(tokens)
    logits = model.view.run(
        _Recording(prefix, queries),
        torch.tensor([list(tokens)], device=model.device),
        torch.arange(length, device=model.device)[None],
        [length - 1],
    )
    prefix.logits = logits[0, 0]
    return prefix


class _Recording(Job):
    """The job of running as the model does, and keeping what the prefix wants."""

    def __init__(self, prefix: Prefix, queries: list[Tensor] | None) -> None:
        self.prefix = prefix
        self.queries = queries

    def _last(self, value: Tensor) -> Tensor:
        """The recorded positions; a copy where the rest can then be freed."""
        last = value[:, value.shape[1] - self.prefix.recorded :]
        return last if last.shape == value.shape else last.clone()

    def block(self, layer: int, run: Run, hidden: Tensor, call: Call) -> Any:
        self.prefix.residuals.append(self._last(hidden))
        output = run(hidden, call)
        if not isinstance(output, Tensor):
            raise TypeError("its blocks do not return hidden states alone")
        return output

    def attention_module(self, layer: int, run: Run, hidden: Tensor, call: Call) -> Any:
        output = run(hidden, call)
        if not (isinstance(output, tuple) and len(output) == 2):
            raise TypeError("its attention modules do not return (output, pattern)")
        self.prefix.written.append(self._last(output[0]))
        return output

    def attend(self, layer: int, given: Attention) -> Float[Tensor, "row position head d_head"]:
        self.prefix.keys.append(given.key)
        self.prefix.values.append(given.value)
        if self.queries is not None:
            self.queries.append(given.query[:, :, given.query.shape[2] - self.prefix.recorded :])
        z = whole_sequence(given)
        self.prefix.z_by_layer.append(self._last(z)[0])
        return z
