"""The two phases of picking labels, defined once: coarse filtering and fine refinement.

A *phase* is one factor of being right: p(gold) = Focus · (1 − Confusion). Each has a readout, a
score that nominates heads for it, a counterfactual that takes it away, and causal measures that
prove it (`workbench.measures`). Everything that goes by phase (tables, pools, figures, words,
colours) reads these records.

A head is patched in four directions. *Denoising* puts its value from the clean run into the
corrupted one, *noising* its value from the corrupted run into the clean one. *Transfer* puts its
value from the near run into the far one: a sibling's evidence in place of gold's, which tells a
head that carries the cluster from one that carries the label. *Passing* is denoising of its values
alone, where it attends as in the corrupted run and only to what other heads wrote: it tells a head
that passes on from one that finds out. An event is a *valid pair* for a
phase when the model does the task on its clean prompt and the phase's counterfactual moved the
readout; only valid pairs enter a measure.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args

from workbench.prompts.prompt import DecisionEvent, PromptSet, Variant

if TYPE_CHECKING:  # the records are read where nothing heavy is loaded
    import pandas as pd

Pool = Literal["coarse", "refine"]
POOLS: tuple[Pool, ...] = get_args(Pool)
Readout = Literal["focus", "confusion"]
Direction = Literal["denoising", "noising", "transfer", "passing"]
DIRECTIONS: tuple[Direction, ...] = get_args(Direction)
BOTH_WAYS: tuple[Direction, ...] = ("denoising", "noising")
"""Between the clean run and the corrupted one."""
Intervention = Literal["z", "pattern"]
INTERVENTIONS: tuple[Intervention, ...] = get_args(Intervention)
"""What of a head is patched: its output, or its attention rows; see `analysis.patching`."""

MARGIN = {"focus": "focus_margin", "confusion": "confusion_margin", "swap": "swap_margin"}
"""Column of a readout → that of its log-odds. Focus and Confusion: more is better in both margins.
`swap`: p(near label) − p(gold), and the log-odds of that label against gold."""

READOUT_COLUMNS = (*MARGIN, *MARGIN.values())
"""What is read of every run, patched or not."""

MIN_PROMPTS = 15
"""Prompts that must count before anything gets an interval: below, 95 % ones hold less often."""
MIN_MOVED = 0.5
"""Log-odds by which a counterfactual must move a margin before a share of that gets an interval."""


@dataclass(frozen=True)
class Phase:
    """One phase. Names of columns are those of the tables on disk."""

    name: Pool
    """Also the pool of its heads, and the column of its score."""
    readout: Readout
    rises: bool
    """Whether the readout grows when the phase works: Focus does, Confusion falls."""
    counterfactual: Variant
    """The corrupted prompt that takes the phase away."""
    chief: str
    """The measure that proves a head: its denoising effect as a share."""
    score_title: str
    score_unit: str
    readout_title: str
    good_title: str
    """The readout so that high is good, see `good`."""
    margin_words: str
    """The readout's log-odds in words."""
    share_of: str
    """What the chief measure is a share of, as a figure's unit."""
    finding: str
    """A sentence on the chief measure, with one gap for the share."""
    colour: str
    symbol: str

    @property
    def q(self) -> str:
        """Column of the q values of its score."""
        return f"{self.name}_q"

    @property
    def valid(self) -> str:
        """Column of the baseline that says whether an event is a valid pair for this phase."""
        return f"counts_{self.counterfactual}"

    @property
    def denoising(self) -> str:
        """Name of the corrupted run patched with clean values."""
        return f"{self.counterfactual}_with_clean"

    @property
    def noising(self) -> str:
        """Name of the clean run patched with corrupted values."""
        return f"clean_with_{self.counterfactual}"

    @property
    def moved(self) -> str:
        """Name of the chief effect as a difference over all events, not as a share."""
        return f"{self.readout}_moved"

    def good(self, value: Any) -> Any:
        """The readout so that high is good: Focus, or 1 − Confusion."""
        return value if self.rises else 1 - value


PHASES: dict[str, Phase] = {
    "coarse": Phase(
        name="coarse",
        readout="focus",
        rises=True,
        counterfactual="far",
        chief="coarse_restore",
        score_title="CoarseScore",
        score_unit="attention: relevant − far",
        readout_title="Focus",
        good_title="Focus",
        margin_words="the right cluster against the others",
        share_of="of the lost Focus",
        finding="restores {} of the Focus lost in the far counterfactual",
        colour="#3465a4",
        symbol="square-open",
    ),
    "refine": Phase(
        name="refine",
        readout="confusion",
        rises=False,
        counterfactual="near",
        chief="refine_reduce",
        score_title="RefineScore",
        score_unit="log-odds, gold against near",
        readout_title="Confusion",
        good_title="1 − Confusion",
        margin_words="gold against its near misses",
        share_of="of the Confusion",
        finding="takes away {} of the Confusion of the near counterfactual",
        colour="#d55e00",
        symbol="circle-open",
    ),
}

OF_READOUT: dict[str, Phase] = {phase.readout: phase for phase in PHASES.values()}
"""Readout → its phase."""

RUNS: dict[str, tuple[Variant, Variant]] = {}
"""Name of a patched run → (variant that runs, variant that the patched values come from)."""

DIRECTION_OF: dict[str, Direction] = {}
"""Name of a patched run → its direction."""

COUNTS: dict[str, str] = {}
"""Name of a patched run → column of the baseline that says which events are worth it."""


def _declare_runs() -> None:
    for phase in PHASES.values():
        RUNS[phase.denoising] = (phase.counterfactual, "clean")
        RUNS[phase.noising] = ("clean", phase.counterfactual)
        DIRECTION_OF.update({phase.denoising: "denoising", phase.noising: "noising"})
        COUNTS.update({phase.denoising: phase.valid, phase.noising: phase.valid})
    RUNS["far_with_near"] = ("far", "near")
    DIRECTION_OF["far_with_near"] = "transfer"
    COUNTS["far_with_near"] = PHASES["coarse"].valid


_declare_runs()

VALUE_RUNS: dict[str, tuple[Variant, Variant]] = {
    f"{phase.denoising}_values": RUNS[phase.denoising] for phase in PHASES.values()
}
"""Name of a run in which values alone are patched → variants, as in `RUNS`."""


def runs_that_count(
    row: Mapping[Any, Any], directions: Collection[Direction] = DIRECTIONS
) -> tuple[str, ...]:
    """Patched runs for which an event is a valid pair, in the order of `RUNS`.

    `row` is any row of the event in the baseline table.
    """
    return tuple(run for run in RUNS if DIRECTION_OF[run] in directions and row[COUNTS[run]])


def valid_pairs(prompts: PromptSet, baseline: "pd.DataFrame") -> list[DecisionEvent]:
    """Events that are valid pairs for at least one phase: the others need no patching."""
    clean = baseline.loc[baseline["variant"] == "clean"]
    records = clean.to_dict(orient="records")
    keys = {(row["id"], row["event"]) for row in records if runs_that_count(row)}
    return [event for event in prompts if (event.id, event.event) in keys]
