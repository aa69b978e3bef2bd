"""CoarseScore: the larger route of the mean contrast between relevant and far options."""

from workbench.analysis.scores.attention import ROUTES, contrast_weights
from workbench.analysis.scores.event_runs import EventRuns
from workbench.analysis.scores.nulls import RoleValues, coarse_null
from workbench.analysis.scores.registry import Score, register
from workbench.phases import PHASES


def coarse_values(runs: EventRuns) -> RoleValues:
    """Both routes of every option, weighted by its role; see `attention`."""
    event = runs.event
    options = tuple(option.label for option in event.options)
    return RoleValues(runs.clean.routes, contrast_weights(event), options)


COARSE = register(
    Score(
        name="coarse",
        title=PHASES["coarse"].score_title,
        unit=PHASES["coarse"].score_unit,
        of_event=coarse_values,
        routes=ROUTES,
        null=coarse_null,
        nominates=True,
    )
)
