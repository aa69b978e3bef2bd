"""From the activations of matched heads to what the losses compare.

Pure functions, the same for teacher and student: pooled attention, its mass on options, what heads
write to the residual stream, and what that adds to the options' logits. All in float32, also under
autocast.
"""

from collections.abc import Mapping, Sequence

import torch
from einops import einsum
from jaxtyping import Bool, Float, Int
from torch import Tensor

from workbench.errors import InputError


def pool_patterns(
    patterns: Float[Tensor, "batch head query key"],
    heads: Sequence[int],
    weights: Sequence[float] | None = None,
) -> Float[Tensor, "batch query key"]:
    """Weighted mean of some heads' attention patterns, in float32; None weighs them equally.

    Weights need not sum to 1.

    Raises:
        InputError: no heads, a head that is not there, or weights that do not fit.
    """
    _check_heads(heads, patterns.shape[1])
    share = [1.0] * len(heads) if weights is None else list(weights)
    if len(share) != len(heads) or min(share) < 0 or sum(share) <= 0:
        raise InputError(
            f"weights of {len(heads)} heads: got {len(share)}; must be as many, none negative, "
            "and not all 0"
        )
    if len(heads) == 1:
        return patterns[:, heads[0]].float()
    with torch.autocast(patterns.device.type, enabled=False):
        chosen = patterns[:, list(heads)].float()
        shares = torch.tensor(share, device=patterns.device) / sum(share)
        return einsum(chosen, shares, "batch head query key, head -> batch query key")


def pool_over_layers(
    patterns: Mapping[int, Float[Tensor, "_ _ _ _"]],
    heads: Sequence[tuple[int, int]],
    weights: Sequence[float] | None = None,
) -> Float[Tensor, "batch query key"]:
    """`pool_patterns` for heads (layer, head) of several layers; `patterns` by layer.

    The result lies on the device of the first head's layer.

    Raises:
        InputError: as `pool_patterns`, or a layer whose patterns are not given.
    """
    for layer, head in heads:
        if layer not in patterns:
            raise InputError(f"head {layer}-{head}: no patterns of layer {layer} are given")
        _check_heads([head], patterns[layer].shape[1])
    _check_heads(range(len(heads)), len(heads))
    device = patterns[heads[0][0]].device
    stacked = torch.stack([patterns[layer][:, head].to(device) for layer, head in heads], dim=1)
    return pool_patterns(stacked, range(len(heads)), weights)


def option_mass(
    pattern: Float[Tensor, "batch query key"], spans: Int[Tensor, "batch option 2"]
) -> Float[Tensor, "batch query option"]:
    """Attention mass of each query on each option's span (half-open), in float32.

    An empty span, such as (0, 0) for an option that an example does not have, gets 0.
    """
    members = _members(spans, pattern.shape[-1])
    with torch.autocast(pattern.device.type, enabled=False):
        return einsum(
            pattern.float(),
            members.float(),
            "batch query key, batch option key -> batch query option",
        )


def evidence_mass(
    pattern: Float[Tensor, "batch query key"],
    spans: Int[Tensor, "batch option 2"],
    evidence: Int[Tensor, "batch mention 2"],
) -> Float[Tensor, "batch mention option"]:
    """Attention mass on each mention from each option's tokens, averaged over them, in float32.

    Where the note comes before the options, coarse heads look this way and not from the options'
    ends back onto options. An empty span gets 0.
    """
    there, members = (_members(x, pattern.shape[-1]).float() for x in (evidence, spans))
    with torch.autocast(pattern.device.type, enabled=False):
        onto = einsum(
            pattern.float(), there, "batch query key, batch mention key -> batch mention query"
        )
        total = einsum(
            onto, members, "batch mention query, batch option query -> batch mention option"
        )
    return total / members.sum(dim=-1).clamp(min=1)[:, None]


def _members(spans: Int[Tensor, "batch span 2"], n_tokens: int) -> Bool[Tensor, "batch span token"]:
    tokens = torch.arange(n_tokens, device=spans.device)
    return (tokens >= spans[..., :1]) & (tokens < spans[..., 1:])


def written(
    z: Float[Tensor, "batch position head d_head"],
    output_weights: Float[Tensor, "head d_head d_model"],
    heads: Int[Tensor, " chosen"],
) -> Float[Tensor, "batch position chosen d_model"]:
    """What each of some heads of a layer writes to the residual stream, z · W_O, in float32.

    The bias of W_O belongs to no head and is left out.
    """
    with torch.autocast(z.device.type, enabled=False):
        return einsum(
            z.index_select(2, heads).float(),
            output_weights.index_select(0, heads).float(),
            "batch position head d_head, head d_head d_model -> batch position head d_model",
        )


def option_contribution(
    update: Float[Tensor, "batch position d_model"],
    directions: Float[Tensor, "batch option d_model"],
) -> Float[Tensor, "batch position option"]:
    """Direct contribution of an update to each option's logit, in float32.

    `directions` are the unembedding vectors of the options' tokens. The final norm is the caller's:
    fold its weight into the directions and its scale into the update.
    """
    with torch.autocast(update.device.type, enabled=False):
        return einsum(
            update.float(),
            directions.float(),
            "batch position d_model, batch option d_model -> batch position option",
        )


def _check_heads(heads: Sequence[int], n_heads: int) -> None:
    if not heads:
        raise InputError("no heads to read, at least one is needed")
    for head in heads:
        if not 0 <= head < n_heads:
            raise InputError(f"head {head} is not there, heads run from 0 to {n_heads - 1}")
