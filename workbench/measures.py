"""The causal measures of the two phases, defined once: what a patched head does, as one number.

Each stands twice, in probability and as a *margin* in log-odds (`<measure>_margin`): probabilities
near 0 and 1 hide what a head does.
"""

from dataclasses import dataclass, replace

from workbench.phases import MARGIN, PHASES, RUNS, VALUE_RUNS, Direction, Phase, Pool
from workbench.prompts.prompt import Variant


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
