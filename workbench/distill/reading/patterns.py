"""Attention patterns of a few heads, at the queries that a loss looks at and nowhere else."""

from typing import Any

import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor

from workbench.distill.losses.compiling import fused
from workbench.models.attention import Kept


def patterns_of(
    kept: Kept, heads: Int[Tensor, " chosen"], queries: Int[Tensor, "batch row"] | None = None
) -> Float[Tensor, "batch chosen row key"]:
    """Patterns of some heads, from what attention was computed from; see `head_patterns`."""
    return head_patterns(
        kept.query, kept.key, heads, kept.mask, kept.scaling, kept.softcap, kept.window, queries
    )


@fused
def head_patterns(
    query: Float[Tensor, "batch head token d_head"],
    key: Float[Tensor, "batch kv_head key d_head"],
    heads: Int[Tensor, " chosen"],
    mask: Shaped[Tensor, "*any key"] | None,
    scaling: float,
    softcap: float | None = None,
    window: int | None = None,
    queries: Int[Tensor, "batch row"] | None = None,
) -> Float[Tensor, "batch chosen row key"]:
    """Attention patterns of a few heads, in float32.

    Args:
        query: after rotary embeddings and head norms.
        key: the same.
        heads: of the queries.
        mask: as `Kept` has it.
        scaling: of the scores.
        softcap: scores are capped smoothly at plus and minus this.
        window: keys that a query sees at most, under a causal mask.
        queries: positions whose rows are computed; -1 for none, whose row is that of the first
            token. All of them unless given.
    """
    group = query.shape[1] // key.shape[1]
    chosen = query.index_select(1, heads)
    places = torch.arange(query.shape[2], device=query.device)[None]
    if queries is not None:
        places = queries.to(query.device).clamp(min=0)
        index = places[:, None, :, None].expand(-1, len(heads), -1, query.shape[-1])
        chosen = chosen.gather(2, index)
    scores = chosen @ key.index_select(1, heads // group).mT
    scores = scores.float() * scaling
    if softcap is not None:
        scores = softcap * torch.tanh(scores / softcap)
    if mask is None or mask.dim() == 2:
        seen = _causal(places, key.shape[2], window)
        seen = seen if mask is None else seen & mask[:, None].bool()
        mask = seen[:, None]
    elif queries is not None:
        rows = torch.arange(len(places), device=places.device)[:, None]
        mask = mask.expand(len(places), -1, -1, -1).transpose(1, 2)[rows, places].transpose(1, 2)
    if mask.dtype == torch.bool:
        scores = scores.masked_fill(~mask, torch.finfo(scores.dtype).min)
    else:
        scores = scores + mask
    return scores.softmax(dim=-1)


def _causal(places: Any, n_keys: int, window: int | None) -> Bool[Tensor, "_ row key"]:
    keys = torch.arange(n_keys, device=places.device)
    seen = keys <= places[..., None]
    return seen if window is None else seen & (keys > places[..., None] - window)
