"""Scores by gradients: RefineScore, its direct part, and attribution at both ends.

*RefineScore* is the first-order effect of the head's clean output, in the near counterfactual, on
logit(g) − logsumexp(N). Its direct part goes straight to the logits.

*Attribution* is the first-order effect on the margin of a phase (for coarse logsumexp(g ∪ N) −
logsumexp(F)) of what the head puts out in the clean run and not in the counterfactual one, over the
aligned suffix (Nanda 2023, attribution patching). The gradient is taken at either *end*: in the
counterfactual run, and in the clean one. An end where something downstream is saturated, or waits
for another head, has no gradient; the other one may. Of the two the larger counts, whatever its
sign.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from workbench.analysis.scores.event_runs import EventRuns, FirstOrder
from workbench.analysis.scores.nulls import RoleValues, refine_null, size_null
from workbench.analysis.scores.registry import Score, register
from workbench.phases import PHASES


def refine_values(runs: EventRuns) -> RoleValues:
    """The effect on the log-odds of each option of gold's cluster against the others of it."""
    options = [runs.event.options[index].label for index in runs.cluster]
    return RoleValues.of(runs.near_miss.effects.total, _gold(runs), *options)


def refine_direct(runs: EventRuns) -> Float[Tensor, "layer head"]:
    """The part of RefineScore that no later layer processes."""
    return runs.near_miss.effects.direct[_gold(runs)]


def attributed(end: FirstOrder, row: int) -> RoleValues:
    """The effect at either end, and the same turned round."""
    ends = torch.stack([end.effects.total[row], end.at_clean], dim=-1)
    return RoleValues.of(torch.stack([ends, -ends]), 0, "as it is", "turned round")


def coarse_attribution(runs: EventRuns) -> RoleValues:
    """First-order effect on the log-odds of gold's cluster, at both ends."""
    return attributed(runs.far_margin, 0)


def refine_attribution(runs: EventRuns) -> RoleValues:
    """First-order effect on the log-odds of gold against its near misses, at both ends."""
    return attributed(runs.near_miss, _gold(runs))


def _gold(runs: EventRuns) -> int:
    return runs.cluster.index(runs.event.with_role("gold")[0])


REFINE = register(
    Score(
        name="refine",
        title=PHASES["refine"].score_title,
        unit=PHASES["refine"].score_unit,
        of_event=refine_values,
        null=refine_null,
        nominates=True,
    )
)
REFINE_DIRECT = register(
    Score("refine_direct", "RefineScore, direct part", REFINE.unit, refine_direct, needs_ways=True)
)
ATTRIBUTIONS = [
    register(
        Score(
            name=f"{phase.name}_attribution",
            title=f"{phase.name.capitalize()} attribution",
            unit="log-odds",
            of_event=of_event,
            routes=(phase.counterfactual, "clean"),
            null=size_null,
            nominates=True,
            by_size=True,
        )
    )
    for phase, of_event in zip(
        PHASES.values(), (coarse_attribution, refine_attribution), strict=True
    )
]
