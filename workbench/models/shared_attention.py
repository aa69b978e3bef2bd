"""Attention of branches over a shared prefix and their own tokens: a fused and a folded form.

Both give the softmax over prefix keys and own keys together. The fused form repeats the prefix's
keys for every row and lets torch's scaled_dot_product_attention do the rest: right for long
branches. The folded form lays all rows' queries side by side against one copy of the prefix's keys
and adds each row's few own keys: right for branches of a token or two, of which there are
thousands.
"""

import torch
from einops import rearrange, repeat
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional

from workbench.models.attention import Attention

Keys = Float[Tensor, "#row kv_head _ d_head"]
Mask = Bool[Tensor, "#row query _"] | None
"""Which keys (the prefix's, then the own) a query may attend.

None: all of the prefix's, and the own up to itself; the queries are the last of the own positions.
"""


def whole_sequence(given: Attention) -> Float[Tensor, "row query head d_head"]:
    """Attention of plain sequences, each over its own tokens from position 0."""
    positions = torch.arange(given.query.shape[2], device=given.query.device)
    mask = None if given.plain else given.mask(positions, positions)[None]
    nothing = given.key[:1, :, :0]
    return over_prefix(given, (nothing, nothing), (given.key, given.value), mask)


def over_prefix(
    given: Attention, prefix: tuple[Keys, Keys], own: tuple[Keys, Keys], mask: Mask
) -> Float[Tensor, "row query head d_head"]:
    """Attention of branches: keys and values of the prefix (one row for all), then their own."""
    rows, heads, queries, d_head = given.query.shape
    # Memory of either form, in numbers: all scores, or the prefix's keys and values once per row.
    scores = heads * queries * (prefix[0].shape[2] + own[0].shape[2])
    copies = 2 * prefix[0].shape[1] * prefix[0].shape[2] * d_head
    if given.softcap is not None or scores < copies:
        return _folded(given, prefix, own, mask)
    key, value = (
        torch.cat([shared.expand(rows, -1, -1, -1), mine], dim=2)
        for shared, mine in zip(prefix, own, strict=True)
    )
    return _fused(given, key, value, mask)


def under_mask(
    given: Attention, mask: Float[Tensor, "position position"]
) -> Float[Tensor, "row position head d_head"]:
    """Attention of rows over their own positions, under one additive mask for all of them."""
    groups = given.query.shape[1] // given.key.shape[1]
    key, value = (x.repeat_interleave(groups, dim=1) for x in (given.key, given.value))
    if given.softcap is None:
        z = functional.scaled_dot_product_attention(
            given.query, key, value, attn_mask=mask, scale=given.scaling
        )
    else:
        scores = given.query @ key.mT * given.scaling
        scores = given.softcap * torch.tanh(scores / given.softcap) + mask
        z = scores.softmax(dim=-1, dtype=torch.float32).to(value.dtype) @ value
    return z.transpose(1, 2)


def _fused(
    given: Attention, key: Keys, value: Keys, mask: Mask
) -> Float[Tensor, "row query head d_head"]:
    queries, missing = given.query.shape[2], key.shape[2] - given.query.shape[2]
    groups = given.query.shape[1] // key.shape[1]
    key, value = (repeat(x, "r kv k d -> r (kv g) k d", g=groups) for x in (key, value))
    # Kernels know the causal mask of a square, and skip what it hides: so stand-ins take the place
    # of missing first queries, where they are few. One query sees everything.
    square = mask is None and queries > 1 and missing <= queries
    if mask is None and queries > 1 and not square:
        mask = _lower_right(queries, key.shape[2], key.device)
    query = functional.pad(given.query, (0, 0, missing, 0)) if square else given.query
    z = functional.scaled_dot_product_attention(
        query,
        key,
        value,
        attn_mask=None if mask is None else mask[:, None],
        is_causal=square,
        scale=given.scaling,
    )
    return z[:, :, -queries:].transpose(1, 2)


def _folded(
    given: Attention, prefix: tuple[Keys, Keys], own: tuple[Keys, Keys], mask: Mask
) -> Float[Tensor, "row query head d_head"]:
    rows, _, queries, _ = given.query.shape
    kv_heads, length = prefix[0].shape[1:3]
    query = rearrange(given.query, "r (kv g) q d -> kv (g r q) d", kv=kv_heads)
    shared = query @ prefix[0][0].mT
    shared = rearrange(shared, "kv (g r q) k -> r kv g q k", r=rows, q=queries)
    grouped = rearrange(given.query, "r (kv g) q d -> r kv g q d", kv=kv_heads)
    mine = torch.einsum("rvgqd,rvkd->rvgqk", grouped, own[0])
    scores = torch.cat([shared, mine], dim=-1) * given.scaling
    if given.softcap is not None:
        scores = given.softcap * torch.tanh(scores / given.softcap)
    if mask is None and queries > 1:
        mask = _lower_right(queries, scores.shape[-1], scores.device)
    if mask is not None:
        scores = scores.masked_fill(~mask[:, None, None], torch.finfo(scores.dtype).min)
    # Softmax in float32, as transformers' own step-by-step attention does it.
    pattern = scores.softmax(dim=-1, dtype=torch.float32).to(given.query.dtype)
    over_prefix, over_own = pattern[..., :length], pattern[..., length:]
    z = rearrange(over_prefix, "r kv g q k -> kv (g r q) k") @ prefix[1][0]
    z = rearrange(z, "kv (g r q) d -> r kv g q d", r=rows, q=queries)
    z = z + torch.einsum("rvgqk,rvkd->rvgqd", over_own, own[1])
    return rearrange(z, "r kv g q d -> r q (kv g) d")


def _lower_right(queries: int, keys: int, device: torch.device) -> Bool[Tensor, "1 query key"]:
    """Causal mask of the last queries."""
    return torch.ones(queries, keys, dtype=torch.bool, device=device).tril(keys - queries)[None]
