"""Does the method find the right heads, and none where there are none?

1. Planted models of every kind (`studies.placements`): pools against the declared heads.
2. Random models, bystander families as gold, falsified prompts (`studies.false_finds`): a pooled
   head there is a false one.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from workbench.files import write_table
from workbench.plots.style import percent
from workbench.progress import Reporter
from workbench.studies import placements
from workbench.studies.false_finds import (
    false_positive_rate,
    run_bystanders,
    run_falsified,
    run_random_models,
)
from workbench.studies.planted.kinds import KINDS


@dataclass(frozen=True)
class SelfTest:
    """Tables of all tests; `random` and `random_all` are those without and with `all_valid`."""

    placements: pd.DataFrame
    random: pd.DataFrame
    random_all: pd.DataFrame
    bystanders: pd.DataFrame
    falsified: pd.DataFrame

    def lines(self) -> list[str]:
        """What came out, in plain words."""
        out = placements.lines(self.placements)
        out.append(_rate_line("random models", self.random))
        out.append(_rate_line("random models, every event taken as valid", self.random_all))
        out.append(_rate_line("bystander families as gold", self.bystanders))
        for row in self.falsified.to_dict("records"):
            valid = f"{row['n_counting']} valid pairs"
            out.append(f"{row['prompts']}: {row['heads'] or 'no head'} ({valid})")
        return out


def run_planted(
    out: Path, kinds: Sequence[str] = tuple(KINDS), n: int = 20, seed: int = 0
) -> pd.DataFrame:
    """The planted models alone: `placements.csv` and `kinds.csv` in the folder, with progress."""
    with Reporter().step("planted models", n * len(kinds)) as advance:
        table = placements.run_placements(out / "placements.csv", kinds, n, seed, advance)
    write_table(out / "kinds.csv", placements.by_kind(table).round(4))
    return table


def run_selftest(out: Path, n: int = 20, random_models: int = 100, seed: int = 0) -> SelfTest:
    """All tests, with progress on standard error; tables grow in the folder `out`."""
    reporter = Reporter()
    planted = run_planted(out, n=n, seed=seed)
    with reporter.step("random models", random_models) as advance:
        plain = run_random_models(out / "random.csv", random_models, seed, False, advance)
    with reporter.step("random models, every event taken as valid", random_models) as advance:
        every = run_random_models(out / "random_all.csv", random_models, seed, True, advance)
    with reporter.step("bystander families", 60) as advance:
        bystanders = run_bystanders(out / "bystanders.csv", seed=seed, progress=advance)
    with reporter.step("falsified prompts", 3) as advance:
        falsified = run_falsified(seed, advance)
    write_table(out / "falsified.csv", falsified)
    return SelfTest(planted, plain, every, bystanders, falsified)


def _rate_line(name: str, frame: pd.DataFrame) -> str:
    k, n, rate, low, high = false_positive_rate(frame)
    valid = sum(count > 0 for count in frame["n_counting"].tolist())
    nominated = sum(count > 0 for count in frame["n_nominated"].tolist())
    return (
        f"{name}: heads were pooled in {k} of {n} ({percent(rate)}, 95 % interval {percent(low)} "
        f"to {percent(high)}); some valid pair in {valid}, "
        f"some head was nominated in {nominated}"
    )
