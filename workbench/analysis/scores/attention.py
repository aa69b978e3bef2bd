"""How much a head's attention links options, evidence and decision.

Three routes can carry the filtering. *Evidence route*: of an option's span and the evidence, the
one that starts later is the query (a causal model can only look back); the attention mass that its
tokens put on the other, averaged over those query tokens. *Decision route*: the mass that the
decision token puts on the option's span. *From decision to evidence*: the mass that the decision
token puts on the evidence.

The contrast of the first two is the mean over the relevant options (gold and near) minus the mean
over the far ones; that of the third is the mass on the evidence minus the mean over the other
stretches of the note that are as long.
"""

from collections.abc import Sequence

import torch
from einops import einsum
from jaxtyping import Float
from torch import Tensor

from workbench.analysis.readout import Roles
from workbench.prompts.prompt import DecisionEvent, Span

ROUTES = ("evidence", "decision")
"""Names along the last axis of every "route" tensor."""


def attention_routes(
    pattern: Float[Tensor, "head query key"], spans: Sequence[Span], evidence: Span
) -> Float[Tensor, "option head route"]:
    """The statistics of every option by both its routes, from one layer's attention pattern.

    `pattern` rows sum to 1; the last query is the decision token.
    """
    option_asks, evidence_asks = evidence_routes(pattern, spans, evidence)
    start = evidence[0]
    option_is_later = torch.tensor([span[0] > start for span in spans], device=pattern.device)
    by_evidence = torch.where(option_is_later[:, None], option_asks, evidence_asks)
    return torch.stack([by_evidence, decision_mass(pattern, spans)], dim=-1)


def evidence_routes(
    pattern: Float[Tensor, "head query key"], spans: Sequence[Span], evidence: Span
) -> tuple[Float[Tensor, "option head"], Float[Tensor, "option head"]]:
    """The mass that each option's tokens put on the evidence, and the evidence's on the option's.

    Averaged over the query tokens. One of the two is 0: a causal model only looks back.
    """
    members = _members(pattern, spans)
    means = members / members.sum(dim=1, keepdim=True)
    start, end = evidence
    option_asks = einsum(
        pattern[:, :, start:end].sum(dim=-1), means, "head query, option query -> option head"
    )
    evidence_asks = einsum(
        pattern[:, start:end].mean(dim=1), members, "head key, option key -> option head"
    )
    return option_asks, evidence_asks


def decision_mass(
    pattern: Float[Tensor, "head query key"], spans: Sequence[Span]
) -> Float[Tensor, "span head"]:
    """The mass that the decision token puts on each span, from one layer's attention pattern."""
    return einsum(pattern[:, -1], _members(pattern, spans), "head key, span key -> span head")


def _members(
    pattern: Float[Tensor, "head query key"], spans: Sequence[Span]
) -> Float[Tensor, "span key"]:
    members = pattern.new_zeros(len(spans), pattern.shape[-1])
    for row, span in enumerate(spans):
        members[row, slice(*span)] = 1
    return members


def note_stretches(event: DecisionEvent) -> list[Span]:
    """The evidence and the stretches of the note beside it that are as long, in order.

    The note is what lies around the evidence up to the nearest options, without the prompt's first
    token, which many heads look at when they have nothing else to do, and the last.
    """
    start, end = event.evidence
    spans = [option.span for option in event.options]
    first = max([1, *(span[1] for span in spans if span[1] <= start)])
    last = min([len(event.clean) - 1, *(span[0] for span in spans if span[0] >= end)])
    size = end - start
    before = range(start - size, first - 1, -size)
    after = range(end, last - size + 1, size)
    return [(at, at + size) for at in sorted([start, *before, *after])]


def family_contrasts(event: DecisionEvent) -> dict[str, Float[Tensor, " option"]]:
    """Family → weights whose dot product with an option statistic is its contrast to the others.

    Gold's family comes first; its weights are 0 for role `other`. If another family were the
    relevant one, its own golds would count, and gold would be left out in their place. Where the
    families of options are not known, the far ones count as one.
    """
    roles = Roles.of(event)
    home = _contrast(roles.relevant, roles.far)
    names = [option.family for option in event.options if option.family is not None]
    if not names:
        return {"relevant": home, "far": -home}
    gold = event.with_role("gold")[0]
    contrasts = {names[gold]: home}
    for name in names:
        these = torch.tensor([name == other for other in names])
        others = roles.scored & ~these
        if not (these <= roles.scored).all():
            others = others & ~roles.gold
        contrasts.setdefault(name, _contrast(these, others))
    return contrasts


def _contrast(these: Tensor, others: Tensor) -> Float[Tensor, " option"]:
    return these.double() / these.sum() - others.double() / others.sum()
