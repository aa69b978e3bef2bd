"""A second view of a model's weights, whose blocks and attention somebody else steers.

The bridge gives every activation a name, and for that runs attention step by step. A sweep needs
neither names nor attention maps: it wants torch's fused attention, blocks that compute some rows
only, and attention that sees keys from elsewhere. So the Hugging Face model is copied before the
bridge takes it over: modules are copied, parameters and buffers are not. In the copy three places
ask a `Job` what to do: every decoder block, every attention module, and attention itself (through
transformers' attention interface, hence all architectures that use it). Hooks on the bridge are
not seen here.
"""

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel
from transformers import PreTrainedModel

from workbench.models.attention import STEERED, Attention, let_steer
from workbench.progress import pulse

KERNELS = [SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]
"""Without cuDNN's, which is compiled for every new shape: in a sweep each layer has its own, and
the first sweep of a prompt's length took 50 times as long (half precision, H200)."""


@dataclass(frozen=True)
class Call:
    """The arguments of a module's forward besides the hidden states."""

    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]

    def at(self, positions: slice, length: int) -> "Call":
        """The same call for a part of the positions."""
        return self.each(length, lambda value, axis: value[(slice(None),) * axis + (positions,)])

    def each(self, length: int, change: Callable[[Tensor, int], Tensor]) -> "Call":
        """The same call with every argument changed that holds one entry per position.

        Position embeddings and ids do: on axis 1 behind a batch axis, or on the only axis. `change`
        gets the tensor and that axis.
        """

        def part(value: Any) -> Any:
            if isinstance(value, tuple):
                return tuple(part(entry) for entry in value)
            if not isinstance(value, Tensor) or value.ndim == 0:
                return value
            axis = min(1, value.ndim - 1)
            return change(value, axis) if value.shape[axis] == length else value

        return Call(part(self.args), {name: part(value) for name, value in self.kwargs.items()})


Run = Callable[[Tensor, Call], Any]
"""A module's own forward, on hidden states."""


class Job:
    """What is to be done in one forward of the view; by itself, what the model does."""

    columns: Tensor | None = None
    """Vocabulary entries whose logits are wanted; None: all."""

    def block(self, layer: int, run: Run, hidden: Tensor, call: Call) -> Any:
        """Output of a decoder block; `run(hidden, call)` is the block itself."""
        return run(hidden, call)

    def attention_module(self, layer: int, run: Run, hidden: Tensor, call: Call) -> Any:
        """Output of a block's attention module, projections included."""
        return run(hidden, call)

    def attend(self, layer: int, given: Attention) -> Float[Tensor, "row position head d_head"]:
        """Per-head attention outputs: what the bridge names `hook_z`."""
        raise TypeError(f"{type(self).__name__} says nothing about attention")


class Taken(Exception):
    """Raised by a job's `attend`: ends a block whose queries, keys and values were wanted alone."""


class View:
    """The weight-sharing copy of a Hugging Face model, and the job it is on."""

    def __init__(self, hf_model: PreTrainedModel) -> None:
        self.model: Any = share_weights(hf_model)
        let_steer(self.model)
        self._job: Job | None = None
        self._steered = False

    def steer(self, blocks: Sequence[str], attentions: Sequence[str]) -> None:
        """Put the job in charge of these modules, named by their paths, in layer order."""
        for layer, (block, attention) in enumerate(zip(blocks, attentions, strict=True)):
            for path, method in ((block, "block"), (attention, "attention_module")):
                module = self.model.get_submodule(path)
                module.forward = partial(self._forward, method, layer, module.forward)
            module = self.model.get_submodule(attention)
            setattr(module, STEERED, partial(self._attend, layer))
        head = self.model.get_output_embeddings()
        head.forward = partial(self._unembed, head, head.forward)
        self._steered = True

    def run(
        self,
        job: Job,
        tokens: Int[Tensor, "row _"],
        position_ids: Int[Tensor, "#row _"],
        positions: Sequence[int],
    ) -> Float[Tensor, "output kept column"]:
        """One forward on a job: logits at a few positions, of the job's columns.

        The job decides how many rows come out.

        Raises:
            RuntimeError: the model's modules could not be put in the job's charge, or its logits
                are those of other positions.
        """
        if not self._steered:
            raise RuntimeError("its blocks and attention modules are not where they were expected")
        self._job = job
        try:
            with sdpa_kernel(KERNELS):
                output = self.model(
                    input_ids=tokens,
                    position_ids=position_ids,
                    use_cache=False,
                    logits_to_keep=list(positions),  # a tensor would be moved to the first device
                )
        finally:
            self._job = None
        if output.logits.shape[1] != len(positions):
            raise RuntimeError("its logits are those of other positions than were asked for")
        return output.logits

    def _forward(
        self, method: str, layer: int, forward: Callable[..., Any], *args: Any, **kwargs: Any
    ) -> Any:
        def run(hidden: Tensor, call: Call) -> Any:
            return forward(hidden, *call.args, **call.kwargs)

        if self._job is None:
            raise RuntimeError("the view runs only with a job")
        rest = dict(kwargs)
        hidden = args[0] if args else rest.pop("hidden_states")
        pulse("layers")
        return getattr(self._job, method)(layer, run, hidden, Call(args[1:], rest))

    def _attend(self, layer: int, given: Attention) -> Tensor:
        if self._job is None:
            raise RuntimeError("the view runs only with a job")
        return self._job.attend(layer, given)

    def _unembed(self, head: nn.Module, forward: Callable[..., Tensor], hidden: Tensor) -> Tensor:
        columns = None if self._job is None else self._job.columns
        if columns is None:
            return forward(hidden)
        weight: Any = head.weight
        bias: Any = getattr(head, "bias", None)
        columns = columns.to(weight.device)
        return functional.linear(
            hidden.to(weight.device), weight[columns], None if bias is None else bias[columns]
        )


def share_weights(hf_model: PreTrainedModel) -> PreTrainedModel:
    """A copy of the module tree and its config that holds the very same parameters and buffers."""
    tensors = [*hf_model.parameters(), *hf_model.buffers()]
    return copy.deepcopy(hf_model, {id(tensor): tensor for tensor in tensors})


def module_paths(bridge: Any) -> tuple[list[str], list[str]]:
    """Paths of the Hugging Face model's decoder blocks and of their attention modules."""
    adapter: Any = bridge.adapter
    component = adapter.component_mapping["blocks"]
    blocks = [f"{component.name}.{layer}" for layer in range(bridge.cfg.n_layers)]
    return blocks, [f"{block}.{component.submodules['attn'].name}" for block in blocks]
