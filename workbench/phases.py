"""The two phases of picking labels, defined once: coarse filtering and fine refinement.

A *phase* is one factor of being right: p(gold) = Focus · (1 − Confusion). Each has a readout, a
score that nominates heads for it, a counterfactual that takes it away, and causal measures that
prove it. Everything that goes by phase (tables, pools, figures, words, colours) reads these
records.

A head is patched in two directions. *Denoising* puts its value from the clean run into the
corrupted one, *noising* its value from the corrupted run into the clean one. An event is a *valid
pair* for a phase when the model does the task on its clean prompt and the phase's counterfactual
moved the readout; only valid pairs enter a measure.
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
Direction = Literal["denoising", "noising"]
DIRECTIONS: tuple[Direction, ...] = get_args(Direction)
Intervention = Literal["z", "pattern"]
INTERVENTIONS: tuple[Intervention, ...] = get_args(Intervention)
"""What of a head is patched: its output, or its attention rows; see `analysis.patching`."""


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


for _phase in PHASES.values():
    RUNS[_phase.denoising] = (_phase.counterfactual, "clean")
    RUNS[_phase.noising] = ("clean", _phase.counterfactual)


@dataclass(frozen=True)
class Measure:
    """Mean of sign · (patched − unpatched) over mean of `scale`, of a phase's readout.

    `scale` names the variants whose difference (one: its value; none: 1) is the denominator.
    """

    pool: Pool
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

    @property
    def phase(self) -> Phase:
        """The phase whose readout is measured."""
        return PHASES[self.pool]

    @property
    def run(self) -> str:
        """The patched run."""
        denoising = self.direction == "denoising"
        return self.phase.denoising if denoising else self.phase.noising

    @property
    def value(self) -> Readout:
        """Column of the readout."""
        return self.phase.readout

    @property
    def start(self) -> Variant:
        """The variant that runs, and whose unpatched readout is compared with."""
        return RUNS[self.run][0]

    @property
    def sign(self) -> int:
        """+1 where a larger readout is a larger effect."""
        return 1 if self.phase.rises == (self.direction == "denoising") else -1

    @property
    def counts(self) -> str:
        """Column of the baseline that says which events are valid pairs."""
        return self.phase.valid


MEASURES: dict[str, Measure] = {
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
        title="Confusion boosted",
        patched="clean prompt, near value",
        unit="relative to clean Confusion",
        note="Giving the head its near value raises the clean Confusion by this factor. The "
        "factor is large where clean Confusion is small: hover for the plain difference.",
        absolute="refine_boost_abs",
    ),
    "refine_boost_abs": Measure(
        pool="refine",
        direction="noising",
        scale=(),
        title="Confusion boosted, absolute",
        patched="clean prompt, near value",
        unit="Confusion",
        note="Giving the head its near value raises the clean Confusion by this much.",
    ),
}
"""The causal measures, in the order shown."""

CHIEFS = tuple(phase.chief for phase in PHASES.values())
DIFFERENCE = "reduce_minus_restore"
"""Name of the refine phase's chief effect less that of the coarse one, on the same resamples."""

BOUNDED = {name: measure for name, measure in MEASURES.items() if not measure.absolute}
"""Measures that one axis fits: a boost stands there undivided."""


def runs_that_count(
    row: Mapping[Any, Any], directions: Collection[Direction] = DIRECTIONS
) -> tuple[str, ...]:
    """Patched runs for which an event is a valid pair, by phase, denoising before noising.

    `row` is any row of the event in the baseline table.
    """
    return tuple(
        getattr(phase, direction)
        for phase in PHASES.values()
        if row[phase.valid]
        for direction in DIRECTIONS
        if direction in directions
    )


def valid_pairs(prompts: PromptSet, baseline: "pd.DataFrame") -> list[DecisionEvent]:
    """Events that are valid pairs for at least one phase: the others need no patching."""
    clean = baseline.loc[baseline["variant"] == "clean"]
    records = clean.to_dict(orient="records")
    keys = {(row["id"], row["event"]) for row in records if runs_that_count(row)}
    return [event for event in prompts if (event.id, event.event) in keys]
