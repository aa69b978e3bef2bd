"""What parts of the final residual stream write straight onto the options' logits.

Direct logit attribution (Elhage et al. 2021, A Mathematical Framework for Transformer Circuits):
the scale of the final norm is a constant, as it is in this run, so that the parts of the stream sum
to the logit. No list of architectures says what the norm does; it is found by running it: what it
adds by itself, whether it takes the mean away, and what it multiplies each channel by. Where that,
the unembedding and one factor do not explain the model's own logits, nothing is known (NaN).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from einops import einsum
from jaxtyping import Float
from torch import Tensor

from workbench.analysis.readout import widen
from workbench.models.hooked import HookedModel
from workbench.models.residual import multiple


@dataclass(frozen=True)
class Straight:
    """From parts of the final residual stream at the decision to the options' logits."""

    weights: Float[Tensor, "option d_model"]
    """Unembedding times what the final norm multiplies each channel by; NaN where not known."""
    centred: bool
    """Whether the final norm takes away the mean over channels."""
    constant: Float[Tensor, " option"]
    """What no part of the stream writes: biases of the norm and the unembedding."""
    unknown: str = ""
    """Why it is not known; empty where it is."""

    @classmethod
    @torch.no_grad()
    def of(
        cls,
        model: HookedModel,
        stream: Float[Tensor, " d_model"],
        tokens: Sequence[int],
        logits: Float[Tensor, " option"],
    ) -> "Straight":
        """Found from the final stream at the decision and the options' logits of the same run."""
        try:
            found = _norm(model, stream)
            unembedding: Any = model.bridge.original_model.get_output_embeddings()  # type: ignore[operator]
            rows = widen(unembedding.weight[list(tokens)].detach()).to(found.put_out)
            bias = getattr(unembedding, "bias", None)
            own = torch.zeros_like(rows[:, 0])
            if bias is not None:
                own = widen(bias.detach())[list(tokens)].to(rows)
            raw = rows @ found.put_out + own
            factor = multiple(widen(logits).to(raw), raw)
        except torch.OutOfMemoryError:
            raise
        except (RuntimeError, ValueError, AttributeError, TypeError, IndexError):
            return cls._not_known(stream, tokens, "its final norm or unembedding is not known")
        if not found.linear:
            return cls._not_known(stream, tokens, "parts do not pass its final norm one by one")
        if factor is None:
            reason = "it does more to its logits than its final norm and unembedding"
            return cls._not_known(stream, tokens, reason)
        constant = factor * (rows @ found.own + own)
        return cls(factor * rows * found.scale, found.centred, constant)

    @classmethod
    def _not_known(cls, stream: Tensor, tokens: Sequence[int], reason: str) -> "Straight":
        nothing = torch.full((len(tokens), len(stream)), torch.nan, device=stream.device)
        return cls(nothing, False, nothing[:, 0], reason)

    def __call__(self, parts: Float[Tensor, "*any d_model"]) -> Float[Tensor, "*any option"]:
        """What parts of the final stream add to each option's logit; with `constant` they sum."""
        parts = widen(parts).to(self.weights)
        if self.centred:
            parts = parts - parts.mean(dim=-1, keepdim=True)
        return einsum(parts, self.weights, "... d_model, option d_model -> ... option")


@dataclass(frozen=True)
class _Norm:
    """A final norm as it is in one run."""

    put_out: Float[Tensor, " d_model"]
    own: Float[Tensor, " d_model"]
    """What it puts out for a stream of zeros."""
    scale: Float[Tensor, " d_model"]
    centred: bool
    linear: bool
    """Whether another stream gets the same scale, times one number."""


def _norm(model: HookedModel, stream: Float[Tensor, " d_model"]) -> _Norm:
    module: Any = model.bridge.ln_final
    stream = stream.to(model.dtype)
    generator = torch.Generator().manual_seed(0)
    size = widen(stream).std()
    other = (torch.randn(stream.shape, generator=generator).to(stream) * size).to(stream)
    given = torch.stack([stream, stream + 3 * size.to(stream), other, torch.zeros_like(stream)])
    put_out, moved, of_other, own = widen(module(given[:, None])[:, 0])
    centred = _close(put_out, moved, model.dtype)

    def inner(one: Tensor) -> Tensor:
        return widen(one) - widen(one).mean() if centred else widen(one)

    here = inner(stream)
    scale = torch.where(here == 0, 0, (put_out - own) / here)
    linear = multiple(of_other - own, scale * inner(other)) is not None
    return _Norm(put_out, own, scale, centred, linear)


def _close(one: Tensor, other: Tensor, dtype: torch.dtype) -> bool:
    allowed = max(1e-3, 8 * torch.finfo(dtype).eps)
    return bool((one - other).norm() <= allowed * one.norm())
