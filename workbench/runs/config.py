"""The settings of a run: the one source of defaults for functions and command-line flags."""

import math
from dataclasses import asdict, dataclass
from typing import Any

from workbench.errors import InputError
from workbench.prompts.choices import DEFAULT_TASK, SPLITS, TEMPLATES, check_task

POSITIONS = ("decision", "span")
HEAD_CHOICES = ("nominated", "screen", "all")

STEP_SETTINGS: dict[str, tuple[str, ...]] = {
    "prompts": ("task", "n_prompts", "template", "split"),
    "baseline": (),
    "score": ("n_resamples", "n_permutations"),
    "trajectory": ("n_resamples",),
    "screen": (),
    "patch": ("heads", "positions", "n_nominated", "n_screened", "n_controls", "n_resamples"),
    "pool": (
        "false_discovery_rate",
        "min_restore_low",
        "read_out_share",
        "positions",
        "draws",
        "n_resamples",
    ),
    "paths": ("sources", "destinations", "positions", "n_resamples"),
    "stability": ("false_discovery_rate", "min_restore_low", "read_out_share"),
    "chain": ("n_resamples",),
    "curves": ("n_resamples",),
}
"""Steps of a run in order, each with the settings that decide its result (and `seed`, for all)."""


@dataclass(frozen=True)
class RunConfig:
    """Settings of a run.

    Attributes:
        task: what the prompts ask for, when they are made here and not read from a file:
            "icd10cm", or documents of a folder, "xmc:FOLDER" or "mimic4:FOLDER".
        n_prompts: prompts to make; half of them choose heads, the other half verifies.
        template: "plain" for the bundled model, "chat" for instruction models.
        split: categories that the bundled model was trained on ("seen") or not ("unseen"); of a
            folder, its training or its test documents.
        seed: decides prompts, halves, resamples, permutations and controls.
        n_resamples: bootstrap resamples of prompts behind every interval.
        n_permutations: role permutations behind every p-value; 20 per head where that is more.
        heads: "nominated" by the scores, "screen" (by first-order estimates of what patching does),
            "all", or heads by name: "4-3,5-1".
        positions: where to patch: "decision", "span", or both.
        n_nominated: heads that each score nominates.
        n_screened: heads that the estimates of each patched run nominate.
        n_controls: random heads that are patched beside the nominated ones.
        false_discovery_rate: a pooled head's score has at most this q value.
        min_restore_low: a pooled head's interval lies above this.
        read_out_share: share of its span effect at the decision from which a head is read-out.
        draws: random control sets per pool.
        sources: heads that paths start from, by name: "2-5,2-7"; the pooled heads unless given.
        destinations: heads that paths lead into; the pooled heads unless given.

    Raises:
        InputError: a value outside its range.
    """

    task: str = DEFAULT_TASK
    n_prompts: int = 40
    template: str = "plain"
    split: str = "unseen"
    seed: int = 0
    n_resamples: int = 2000
    n_permutations: int = 2000
    heads: str = "nominated"
    positions: tuple[str, ...] = POSITIONS
    n_nominated: int = 12
    n_screened: int = 16
    n_controls: int = 4
    false_discovery_rate: float = 0.05
    min_restore_low: float = 0.02
    read_out_share: float = 0.8
    draws: int = 20
    sources: str = ""
    destinations: str = ""

    def __post_init__(self) -> None:
        least: dict[str, int] = dict.fromkeys(
            ("n_resamples", "n_permutations", "n_nominated", "n_screened"), 1
        )
        least |= {"n_prompts": 2}
        for name, smallest in {**least, "n_controls": 0, "draws": 0, "seed": 0}.items():
            if getattr(self, name) < smallest:
                raise InputError(f"{name} is {getattr(self, name)}, must be at least {smallest}")
        if not 0 < self.false_discovery_rate <= 1:
            raise InputError(
                f"false_discovery_rate is {self.false_discovery_rate}, must be above 0, at most 1"
            )
        for name in ("min_restore_low", "read_out_share"):
            if not 0 <= getattr(self, name) < math.inf:
                raise InputError(f"{name} is {getattr(self, name)}, must be a number from 0 on")
        check_task(self.task)
        _check_among("template", [self.template], TEMPLATES)
        _check_among("split", [self.split], SPLITS)
        _check_among("positions", self.positions, POSITIONS)
        if len(set(self.positions)) != len(self.positions) or not self.positions:
            raise InputError(f"positions are {', '.join(self.positions) or 'none'}: name each once")

    def of_prompts(self) -> dict[str, Any]:
        """Arguments of `make_prompts` for these settings."""
        return self.of_step("prompts") | {"seed": self.seed}

    def of_step(self, step: str) -> dict[str, Any]:
        """The settings that decide one step's result, as JSON has them."""
        values = asdict(self)
        settings = {name: values[name] for name in STEP_SETTINGS[step]}
        return {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in settings.items()
        }


def _check_among(name: str, values: list[str] | tuple[str, ...], known: tuple[str, ...]) -> None:
    for value in values:
        if value not in known:
            raise InputError(f"{name} {value!r} is not one of {', '.join(known)}")


DEFAULTS = RunConfig()
