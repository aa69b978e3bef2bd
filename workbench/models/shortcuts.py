"""Shortcuts to a model's own logits: tried before they are used, at the length they are used at.

Whether a shortcut is right is a matter of the architecture and of the length: scales that depend on
the position, windows and rotary embeddings that switch show beyond some length only. So each is
tried on the sequence that wants it, somewhat lengthened, which settles the shorter ones.

It is right when its logits differ from plain forwards no more than rounding explains: by `ALLOWED`
and the dtype's epsilon of their standard deviation, or by `ROUNDINGS` times what a plain forward
differs from itself with the last bit of every head's output moved. The second decides in half
precision, where two kernels of one attention differ by as much. A number added to all logits of a
position changes no probability, so it is left out.
"""

import logging
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from accelerate.utils.memory import should_reduce_batch_size
from jaxtyping import Float
from torch import Tensor

from workbench.errors import InputError, first_line

if TYPE_CHECKING:  # a model keeps what was found out about it
    from workbench.models.hooked import HookedModel

logger = logging.getLogger(__name__)

Logits = Float[Tensor, "row d_vocab"]
Probe = Callable[[Sequence[int]], tuple[Logits, Logits]]
"""Logits of a sequence, or of parts of it, by the shortcut and by plain forwards."""


class Differs(Exception):
    """Raised by a probe that sees for itself that a shortcut is wrong at this length."""


SHORTEST = 12
"""Tokens of the shortest trial."""
ALLOWED = 1e-4
ROUNDINGS = 4


@dataclass
class Shortcut:
    """Lengths at which a shortcut was found right and wrong, and why it is not taken there."""

    right_up_to: int = 0
    wrong_from: int = sys.maxsize
    reason: str = ""

    @property
    def where(self) -> str:
        """For which lengths it is not taken, in words; empty where for all."""
        return f" for {self.wrong_from} tokens or more" if self.wrong_from else ""


def supports(model: "HookedModel", name: str, tokens: Sequence[int], probe: Probe) -> bool:
    """Whether a shortcut gives this model's own logits for sequences as long as this one.

    Found out once per length, but for those that another trial has settled; where a shortcut is not
    supported, that is logged.
    """
    known = model.shortcuts.setdefault(name, Shortcut())
    length = len(tokens)
    while known.right_up_to < length < known.wrong_from:
        tried = _rounded(length, model.context_length)
        _try(model, known, tokens, tried if tried < known.wrong_from else length, probe)
        if known.wrong_from <= length:
            if known.right_up_to == 0 and known.wrong_from > SHORTEST:
                _try(model, known, tokens, SHORTEST, probe)  # or is it wrong at any length?
            logger.warning(
                "model %s does not support the %s%s; falling back to a slower path (%s)",
                model.info.name,
                name,
                known.where,
                known.reason,
            )
    return length <= known.right_up_to


def _try(
    model: "HookedModel", known: Shortcut, tokens: Sequence[int], length: int, probe: Probe
) -> None:
    """Note whether the shortcut is right at a length."""
    try:
        reason = _disagreement(model, _lengthened(model, tokens, length), probe)
    except (RuntimeError, TypeError, ValueError, LookupError, AttributeError) as error:
        if isinstance(error, InputError) or should_reduce_batch_size(error):
            raise  # says nothing about the shortcut
        known.wrong_from, reason = 0, first_line(error)
        own = reason.startswith("its ")  # said by who steers the forward
        known.reason = reason if own else f"it fails with {type(error).__name__}: {reason}"
        return
    if reason:
        known.wrong_from, known.reason = length if length > SHORTEST else 0, reason
    else:
        known.right_up_to = length


def _rounded(length: int, longest: int | None) -> int:
    """At most an eighth more tokens, so that prompts of much the same length need one trial."""
    step = max(1, 1 << (length.bit_length() - 4) if length >= 16 else 1)
    tried = max(SHORTEST, -(-length // step) * step)
    return tried if longest is None else max(length, min(tried, longest))


def _lengthened(model: "HookedModel", tokens: Sequence[int], length: int) -> list[int]:
    more = ((7 * index + 1) % model.info.d_vocab for index in range(length - len(tokens)))
    return [*tokens[:length], *more]


@torch.no_grad()
def _disagreement(model: "HookedModel", tokens: Sequence[int], probe: Probe) -> str:
    """Why the shortcut is not right for these tokens; empty where it is."""
    try:
        quick, plain = (logits.float() for logits in probe(tokens))
    except Differs as error:
        return str(error)
    if quick.shape != plain.shape:
        return f"logits of shape {tuple(quick.shape)}, not {tuple(plain.shape)}"
    error = spread(quick - plain)
    allowed = (ALLOWED + torch.finfo(model.dtype).eps) * spread(plain)
    if error <= allowed:
        return ""
    allowed = max(allowed, ROUNDINGS * spread(moved_by_rounding(model, tokens)))
    if error <= allowed:
        return ""
    return f"logits differ by {error:.2g}, rounding explains {allowed:.2g}"


def spread(logits: Logits) -> float:
    """The largest standard deviation over the vocabulary of any row."""
    return float(logits.std(dim=-1, correction=0).max())


@torch.no_grad()
def moved_by_rounding(model: "HookedModel", tokens: Sequence[int]) -> Logits:
    """What the last bit of every head's output does to a plain forward's last logits."""
    generator = torch.Generator().manual_seed(0)

    def move(z: Tensor, hook: Any) -> Tensor:
        bits = torch.rand(z.shape, generator=generator).to(z.device) * 2 - 1
        return (z * (1 + torch.finfo(z.dtype).eps * bits)).to(z.dtype)

    hooks = [(f"blocks.{layer}.attn.hook_z", move) for layer in range(model.info.n_layers)]
    ids = torch.tensor([list(tokens)], device=model.device)
    last = range(max(0, len(tokens) - 8), len(tokens))
    moved, plain = (model.logits_at(ids, last, each)[0].float() for each in (hooks, ()))
    return moved - plain
