"""Scores by gradients: RefineScore, its direct part, and the attribution of the coarse margin.

*RefineScore* is the first-order effect of the head's clean output, in the near counterfactual, on
logit(g) − logsumexp(N). Its direct part goes straight to the logits. *Coarse attribution* is the
effect on logsumexp(g ∪ N) − logsumexp(F) in the far counterfactual.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from workbench.analysis.readout import Roles, coarse_margin
from workbench.analysis.scores.event_runs import EventRuns
from workbench.analysis.scores.nulls import RoleValues, refine_null
from workbench.analysis.scores.registry import Score, register
from workbench.phases import PHASES


def refine_values(runs: EventRuns) -> RoleValues:
    """The effect on the log-odds of each option of gold's cluster against the others of it."""
    weights = torch.zeros(len(runs.cluster), dtype=torch.float64)
    weights[_gold(runs)] = 1
    options = tuple(runs.event.options[index].label for index in runs.cluster)
    return RoleValues(runs.near_miss.total, weights, options)


def refine_direct(runs: EventRuns) -> Float[Tensor, "layer head"]:
    """The part of RefineScore that no later layer processes."""
    return runs.near_miss.direct[_gold(runs)]


def coarse_attribution(runs: EventRuns) -> Float[Tensor, "layer head"]:
    """First-order effect on the log-odds of gold's cluster."""
    roles = Roles.of(runs.event)
    effects, _ = runs.first_order("far", lambda logits: [coarse_margin(logits, roles)])
    return effects.total[0]


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
COARSE_ATTRIBUTION = register(
    Score(
        "coarse_attribution",
        "Coarse attribution",
        "log-odds, cluster against far",
        coarse_attribution,
    )
)
