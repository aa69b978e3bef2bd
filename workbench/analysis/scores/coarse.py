"""CoarseScore: the largest route of the mean contrast between relevant and far."""

import torch

from workbench.analysis.scores.attention import ROUTES, family_contrasts, note_stretches
from workbench.analysis.scores.event_runs import EventRuns
from workbench.analysis.scores.nulls import RoleValues, RoutedValues, coarse_null
from workbench.analysis.scores.registry import Score, register
from workbench.phases import PHASES


def coarse_values(runs: EventRuns) -> RoutedValues:
    """Contrasts of every family by the routes of options, and of every stretch of the note.

    See `attention`. A note of no other stretch has contrast 0.
    """
    contrasts = family_contrasts(runs.event)
    weights = torch.stack([*contrasts.values()])
    options = torch.tensordot(weights, runs.clean.routes, dims=1)
    mass = runs.clean.stretches
    others = (mass.sum(dim=0) - mass) / (len(mass) - 1) if len(mass) > 1 else mass
    evidence = note_stretches(runs.event).index(runs.event.evidence)
    note = RoleValues.of((mass - others)[..., None], evidence, *map(str, range(len(mass))))
    return RoutedValues((RoleValues.of(options, 0, *contrasts), note))


COARSE = register(
    Score(
        name="coarse",
        title=PHASES["coarse"].score_title,
        unit=PHASES["coarse"].score_unit,
        of_event=coarse_values,
        routes=(*ROUTES, "decision_evidence"),
        null=coarse_null,
        nominates=True,
    )
)
