"""From the activations of matched heads to what the losses compare.

Pure functions, the same for teacher and student: pooled attention, its mass on options, and what an
update of the residual stream adds to the options' logits. All in float32, also under autocast.
"""

from collections.abc import Sequence

import torch
from einops import einsum
from jaxtyping import Bool, Float, Int
from torch import Tensor


def pool_patterns(
    patterns: Sequence[Float[Tensor, "batch query key"]], weights: Sequence[float]
) -> Float[Tensor, "batch query key"]:
    """Weighted mean of some heads' attention patterns; weights need not sum to 1."""
    whole = sum(weights)
    # Not as a tensor of weights: sending it to a device would make the host wait for it.
    pooled = patterns[0].float() * (weights[0] / whole)
    for pattern, weight in zip(patterns[1:], weights[1:], strict=True):
        pooled = pooled.add(pattern.float(), alpha=weight / whole)
    return pooled


def decision_mass(
    pattern: Float[Tensor, "batch row key"],
    spans: Int[Tensor, "batch option 2"],
    decisions: Int[Tensor, "batch decision"],
) -> Float[Tensor, "batch decision option"]:
    """Attention mass from each decision on each option's span (half-open), in float32.

    `decisions` are rows of the pattern.
    An empty span, such as (0, 0) for an option that an example does not have, gets 0.
    """
    members = span_members(spans, pattern.shape[-1])
    rows = torch.arange(len(pattern), device=pattern.device)[:, None]
    with torch.autocast(pattern.device.type, enabled=False):
        return einsum(
            pattern[rows, decisions].float(),
            members.float(),
            "batch decision key, batch option key -> batch decision option",
        )


def evidence_mass(
    pattern: Float[Tensor, "batch row key"],
    spans: Int[Tensor, "batch option 2"],
    evidence: Int[Tensor, "batch mention 2"],
    queries: Int[Tensor, "batch row"] | None = None,
) -> Float[Tensor, "batch mention option"]:
    """Attention mass on each mention from each option's tokens, averaged over them, in float32.

    Where the note comes before the options, coarse heads look this way and not from the options'
    ends back onto options. An empty span gets 0. `queries` are the tokens of the pattern's rows, of
    which the options' tokens are some; all tokens unless given.
    """
    there = span_members(evidence, pattern.shape[-1]).float()
    rows = torch.arange(pattern.shape[1], device=spans.device)[None] if queries is None else queries
    members = ((rows[:, None] >= spans[..., :1]) & (rows[:, None] < spans[..., 1:])).float()
    with torch.autocast(pattern.device.type, enabled=False):
        onto = einsum(
            pattern.float(), there, "batch row key, batch mention key -> batch mention row"
        )
        total = einsum(onto, members, "batch mention row, batch option row -> batch mention option")
    return total / members.sum(dim=-1).clamp(min=1)[:, None]


def span_members(
    spans: Int[Tensor, "batch span 2"], n_tokens: int
) -> Bool[Tensor, "batch span token"]:
    """Tokens of each half-open span."""
    tokens = torch.arange(n_tokens, device=spans.device)
    return (tokens >= spans[..., :1]) & (tokens < spans[..., 1:])


def option_contribution(
    update: Float[Tensor, "batch position d_model"],
    directions: Float[Tensor, "batch option d_model"],
) -> Float[Tensor, "batch position option"]:
    """Direct contribution of an update to each option's logit, in float32.

    `directions` are the unembedding vectors of the options' tokens. The final norm is the caller's:
    fold it into the update.
    """
    with torch.autocast(update.device.type, enabled=False):
        return einsum(
            update.float(),
            directions.float(),
            "batch position d_model, batch option d_model -> batch position option",
        )
