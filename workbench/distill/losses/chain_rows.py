"""What terms of a phase compare at rows of a chain: attention on sets of tokens, options by labels.

Pure functions; which decision a row is about is -1 where that is not known.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from workbench.distill.losses.features import span_members


def at_rows(
    pattern: Float[Tensor, "batch row key"], rows: Int[Tensor, "batch place"]
) -> Float[Tensor, "batch place key"]:
    """The rows of a pattern that are wanted of each example."""
    return pattern[torch.arange(len(pattern), device=pattern.device)[:, None], rows]


def set_mass(
    pattern: Float[Tensor, "batch place key"], sets: Sequence[Bool[Tensor, "batch place key"]]
) -> Float[Tensor, "batch place set"]:
    """Attention mass on each set of tokens, of which none has a token of another's, and the rest.

    In float32.
    """
    pattern = pattern.float()
    masses = [torch.where(members, pattern, 0.0).sum(dim=-1) for members in sets]
    inside = torch.stack(masses, dim=-1)
    rest = (pattern.sum(dim=-1) - inside.sum(dim=-1)).clamp(min=0)
    return torch.cat([inside, rest[..., None]], dim=-1)


def all_on_first(mass: Float[Tensor, "batch place set"]) -> Float[Tensor, "batch place set"]:
    """As much on the first set, and nothing on the others."""
    return torch.cat([torch.ones_like(mass[..., :1]), torch.zeros_like(mass[..., 1:])], dim=-1)


def shares(chosen: Bool[Tensor, "batch place option"]) -> Float[Tensor, "batch place option"]:
    """The same for each that is chosen, 1 in all; 0 where none is."""
    return chosen.float() / chosen.sum(dim=-1, keepdim=True).clamp(min=1)


def named_tokens(
    named: Int[Tensor, "batch span 3"], n_decisions: int, n_tokens: int
) -> Bool[Tensor, "batch decision token"]:
    """Tokens of the spans (decision, start, end) of each decision."""
    return _joined(named[..., 0], span_members(named[..., 1:], n_tokens), n_decisions)


def families(
    gold: Int[Tensor, "batch decision"], near: Int[Tensor, "batch pair 2"] | None, n_options: int
) -> Bool[Tensor, "batch decision option"]:
    """Gold, and unless left out its near misses (decision, option), where gold is known."""
    options = torch.arange(n_options, device=gold.device)
    found = gold[..., None] == options
    if near is not None:
        found = found | _joined(near[..., 0], near[..., 1:] == options, gold.shape[1])
    return found & (gold >= 0)[..., None]


def of_decision(
    sets: Bool[Tensor, "batch decision one"], decision: Int[Tensor, "batch place"], *, unknown: bool
) -> Bool[Tensor, "batch place one"]:
    """The set of each row's decision; where that is not known that of all, or none."""
    known = decision >= 0
    every = torch.arange(len(sets), device=sets.device)[:, None]
    found = sets[every, decision.clamp(min=0)] & known[..., None]
    return found | (sets.any(dim=1)[:, None] & ~known[..., None]) if unknown else found


def _joined(
    decision: Int[Tensor, "batch member"],
    members: Bool[Tensor, "batch member one"],
    n_decisions: int,
) -> Bool[Tensor, "batch decision one"]:
    """Union of the members of each decision."""
    mine = decision[..., None] == torch.arange(n_decisions, device=decision.device)
    with torch.autocast(decision.device.type, enabled=False):
        return mine.mT.float() @ members.float() > 0
