"""The two phases of picking labels, defined once: coarse filtering and fine refinement.

A *phase* is one factor of being right: p(gold) = Focus · (1 − Confusion). Each has a readout, a
score that nominates heads for it, a counterfactual that takes it away, and causal measures that
prove it. Everything that goes by phase (tables, pools, figures, words, colours) reads these
records.

A head is patched in four directions. *Denoising* puts its value from the clean run into the
corrupted one, *noising* its value from the corrupted run into the clean one. *Transfer* puts its
value from the near run into the far one: a sibling's evidence in place of gold's, which tells a
head that carries the cluster from one that carries the label. *Passing* is denoising of its values
alone, where it attends as in the corrupted run and only to what other heads wrote: it tells a head
that passes on from one that finds out. An event is a *valid pair* for a
phase when the model does the task on its clean prompt and the phase's counterfactual moved the
readout; only valid pairs enter a measure.

Each measure stands twice, in probability and as a *margin* in log-odds (`<measure>_margin`):
probabilities near 0 and 1 hide what a head does.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
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


@dataclass(frozen=True)
class Measure:
    """Mean of sign · (patched − unpatched) over mean of `scale`, of one column of a patched run.

    `scale` names the variants whose difference (one: its value; none: 1) is the denominator.
    """

    pool: Pool
    """The phase that it belongs to."""
    direction: Direction
    scale: tuple[Variant, ...]
    title: str
    patched: str
    """What was patched into what, in words."""
    unit: str
    note: str
    """What one value says, for a reader of a figure."""
    only_valid_pairs: bool = True
    """False for a measure of all events."""
    absolute: str = ""
    """The same effect undivided, of a measure whose denominator may be near 0."""
    readout: str = ""
    """The readout that is measured, where it is not that of its phase."""
    margin: bool = False
    """Whether the readout's log-odds are measured in its place."""
    level: bool = False
    """True where the patched value counts by itself, with nothing taken from it."""

    @property
    def phase(self) -> Phase:
        """The phase that it belongs to."""
        return PHASES[self.pool]

    @property
    def run(self) -> str:
        """The patched run."""
        if self.direction == "transfer":
            return "far_with_near"
        if self.direction == "passing":
            return f"{self.phase.denoising}_values"
        return self.phase.denoising if self.direction == "denoising" else self.phase.noising

    @property
    def value(self) -> str:
        """Column that is measured."""
        readout = self.readout or self.phase.readout
        return MARGIN[readout] if self.margin else readout

    @property
    def start(self) -> Variant | None:
        """The variant that runs, and whose unpatched value is compared with; None for a level."""
        return None if self.level else (RUNS | VALUE_RUNS)[self.run][0]

    @property
    def sign(self) -> int:
        """+1 where a larger value is a larger effect."""
        more_is_better = self.margin or self.phase.rises
        return 1 if more_is_better == (self.direction != "noising") else -1

    @property
    def shares_margin(self) -> bool:
        """Whether it is a share of what a counterfactual takes from a margin."""
        return self.margin and len(self.scale) == 2

    @property
    def counts(self) -> tuple[str, ...]:
        """Columns of the baseline that must all hold of a valid pair."""
        both = self.readout == "swap"
        return tuple(one.valid for one in PHASES.values()) if both else (self.phase.valid,)


def margin_name(measure: str) -> str:
    """Name of the same measure in log-odds."""
    return f"{measure}_margin"


FACTOR = ", as a factor"
"""Behind the title of a measure that divides by a value that may be near 0."""

_IN_PROBABILITY: dict[str, Measure] = {
    "coarse_restore": Measure(
        pool="coarse",
        direction="denoising",
        scale=("clean", "far"),
        title="Focus restored",
        patched="far prompt, clean value",
        unit="share of lost Focus",
        note="Giving the head its clean value brings back this share of the lost Focus.",
    ),
    "coarse_disrupt": Measure(
        pool="coarse",
        direction="noising",
        scale=("clean",),
        title="Focus disrupted",
        patched="clean prompt, far value",
        unit="share of clean Focus",
        note="Giving the head its far value removes this share of the clean Focus.",
    ),
    "refine_reduce": Measure(
        pool="refine",
        direction="denoising",
        scale=("near",),
        title="Confusion reduced",
        patched="near prompt, clean value",
        unit="share of near Confusion",
        note="Giving the head its clean value takes away this share of the near Confusion.",
    ),
    "refine_boost": Measure(
        pool="refine",
        direction="noising",
        scale=("clean",),
        title=f"Confusion boosted{FACTOR}",
        patched="clean prompt, near value",
        unit="relative to clean Confusion",
        note="Giving the head its near value raises the clean Confusion by this factor, which is "
        "large where clean Confusion is small.",
        absolute="refine_boost_abs",
    ),
    "refine_boost_abs": Measure(
        pool="refine",
        direction="noising",
        scale=(),
        title="Confusion boosted",
        patched="clean prompt, near value",
        unit="Confusion",
        note="Giving the head its near value raises the clean Confusion by this much.",
    ),
    "cluster_restore": Measure(
        pool="coarse",
        direction="transfer",
        scale=("clean", "far"),
        title="Focus restored by a sibling",
        patched="far prompt, near value",
        unit="share of lost Focus",
        note="Giving the head its value for a near label brings back this share of the lost Focus: "
        "it carries the cluster.",
    ),
    "label_swap": Measure(
        pool="coarse",
        direction="transfer",
        scale=(),
        title="Label swapped",
        patched="far prompt, near value",
        unit="p(near label) − p(gold)",
        note="Giving the head its value for a near label makes the far prompt answer that label, "
        "by this much more than gold: it carries the label itself.",
        readout="swap",
        level=True,
    ),
}


def _as_margin(measure: Measure) -> Measure:
    """The same measure in log-odds, a share of the margin that the counterfactual takes away."""
    swap = measure.readout == "swap"
    lost: tuple[Variant, ...] = ("clean", measure.phase.counterfactual)
    note = f"what the counterfactual takes from {measure.phase.margin_words}"
    if swap:
        note = "the lead of the near label over gold in the near prompt"
    return replace(
        measure,
        scale=("near", "far") if swap else lost,
        title=f"{measure.title.removesuffix(FACTOR)}, margin",
        unit="share of log-odds" if swap else "share of lost log-odds",
        note=f"{measure.title}, in log-odds: a share of {note}.",
        absolute="",
        margin=True,
        level=False,
    )


MEASURES: dict[str, Measure] = _IN_PROBABILITY | {
    margin_name(name): _as_margin(measure)
    for name, measure in _IN_PROBABILITY.items()
    if name not in {one.absolute for one in _IN_PROBABILITY.values()}
}
"""The causal measures, in the order shown: in probability, then as margins."""

PASSED = {name: f"{name}_passed_margin" for name in PHASES}
"""Phase → the measure of what a head passes on of it."""

PASSING: dict[str, Measure] = {
    PASSED[name]: replace(
        MEASURES[margin_name(phase.chief)],
        direction="passing",
        title=f"{MEASURES[phase.chief].title} by passing on, margin",
        patched=f"{phase.counterfactual} prompt, what other heads wrote in the clean one",
        note="What is left of the effect where the head attends as in the "
        f"{phase.counterfactual} prompt, and reads what other heads wrote in the clean one.",
    )
    for name, phase in PHASES.items()
}
"""Measures of `VALUE_RUNS`, beside `MEASURES`."""

CHIEFS = tuple(phase.chief for phase in PHASES.values())
DIFFERENCE = "reduce_minus_restore"
"""Name of the refine phase's chief effect less that of the coarse one, on the same resamples."""

DIFFERENCES: dict[str, tuple[str, str]] = {
    DIFFERENCE: ("refine_reduce", "coarse_restore"),
    margin_name(DIFFERENCE): ("refine_reduce_margin", "coarse_restore_margin"),
    "cluster_minus_restore_margin": ("cluster_restore_margin", "coarse_restore_margin"),
}
"""Name of a difference between two measures, taken on the same resamples → (of, less)."""

BOUNDED = {
    name: measure
    for name, measure in MEASURES.items()
    if not (measure.absolute or measure.margin or measure.direction == "transfer")
}
"""What denoising and noising do, on one axis: in probability, a boost undivided."""


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
