"""From rows per prompt to values with intervals: per student, between two, and over seeds.

Every student answers the same prompts, so one set of resamples of prompts serves all. For each
measure of each student the value on every resample is kept (`Drawn`), the value on all prompts
first. Then
- a student's interval is the percentiles of its draws, of at least `MIN_PROMPTS` prompts;
- a paired difference is the difference of two students' draws;
- over seeds, each draw also resamples the seeds, the same prompts for every seed (two factors
  crossed, each resampled by itself, as in Owen 2007).

Few seeds make such an interval too narrow: with three, a tenth of the resamples hold one seed
thrice. `n_seeds` says how many there were; with one, the interval is over prompts alone.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float

from workbench.analysis.label_space.label_sets import macro_f1, micro_f1
from workbench.analysis.label_space.ranked import Rankings
from workbench.analysis.label_space.ranking import Draws, Terms, Weights, interval
from workbench.analysis.statistics import resample_weights
from workbench.distill.arms import CUSTOM
from workbench.errors import InputError
from workbench.phases import MIN_PROMPTS

WHO = ["student", "arm", "seed"]
NO_MEANS = {*WHO, "setting", "prompt", "gold", "listed", "tp", "fp", "fn", "id", "event", "steps"}
"""Columns of answers and distances of which no mean is taken."""
TEACHER = "teacher"
TABLE_COLUMNS = [*WHO, "setting", "measure", "value", "low", "high", "n"]
OVER_COLUMNS = ["arm", "against", "setting", "measure", "value", "low", "high", "n_seeds"]


@dataclass(frozen=True)
class Drawn:
    """One measure of one student: its value on all prompts, then on every resample of them.

    `n` prompts (events, for causal measures) count.
    """

    student: str
    arm: str
    seed: int
    setting: str
    measure: str
    draws: Draws
    n: int

    @property
    def what(self) -> tuple[str, str]:
        """What is measured: setting and measure."""
        return self.setting, self.measure


def draw(table: pd.DataFrame, *, n_resamples: int = 2000, seed: int = 0) -> list[Drawn]:
    """Every measure of every student on the same resamples of prompts.

    Args:
        table: the answers, distances or effects of an `Evaluation`: columns student, arm, seed and
            setting, beside those of `answers`, `distances` or `pool_terms`. Measures are exact, p1,
            p3, ndcg3, micro_f1 and macro_f1; focus and confusion; or those of `MEASURES`.
        n_resamples: of prompts.
        seed: of the resamples.

    Raises:
        InputError: students that did not answer the same prompts.
    """
    found: list[Drawn] = []
    if table.empty:
        return found
    weights: dict[tuple[Any, ...], Weights] = {}
    keys = ["prompt"] if "listed" in table else ["id", "event"]
    by = [*WHO, "setting", *(["measure"] if "numerator" in table else [])]
    for group, part in table.groupby(by, sort=False):
        assert isinstance(group, tuple)
        part = part.sort_values(keys)
        prompts = tuple(part[keys].itertuples(index=False, name=None))
        if weights and prompts not in weights:
            raise InputError(
                f"student {group[0]!r}, {group[3]}: other prompts than the students before it"
            )
        if not weights:
            ids = [str(one[0]) for one in prompts]
            drawn = resample_weights(ids, n_resamples, seed, "evaluate").numpy()
            if len(set(ids)) < MIN_PROMPTS:
                drawn[1:] = np.nan  # no interval over so few
            weights[prompts] = drawn
        student, arm, number, setting, *rest = group
        for measure, draws, n in _measures(part, weights[prompts]):
            who = (str(student), str(arm), int(number), str(setting))
            found.append(Drawn(*who, rest[0] if rest else measure, draws, n))
    return found


def _measures(part: pd.DataFrame, weights: Weights) -> Iterator[tuple[str, Draws, int]]:
    """Name, draws and n of every measure in the rows of one student and setting."""
    if "numerator" in part:
        terms = Terms(*(part[name].to_numpy(float) for name in Terms._fields))
        ratio = terms.draws(weights)
        counts = part["counts"].to_numpy(bool)
        if len(set(part["id"].to_numpy()[counts])) < MIN_PROMPTS:
            ratio[1:] = np.nan  # no interval over so few
        yield "", ratio, int(counts.sum())
        return
    for name in (column for column in part if column not in NO_MEANS):
        yield name, weights @ part[name].to_numpy(float), len(part)
    if "listed" in part:
        gold, listed = ([str(row).split() for row in part[name]] for name in ("gold", "listed"))
        ranked = Rankings.of_names(gold, listed)
        yield "micro_f1", micro_f1(ranked).draws(weights), len(part)
        yield "macro_f1", macro_f1(ranked, weights), len(part)


def per_student(drawn: Sequence[Drawn]) -> pd.DataFrame:
    """Columns student, arm, seed, setting, measure, value, low, high (95 % over prompts), n.

    The ends are NaN where fewer than `MIN_PROMPTS` prompts count.
    """
    rows = [
        (one.student, one.arm, one.seed, *one.what, *interval(one.draws), one.n) for one in drawn
    ]
    return pd.DataFrame(rows, columns=TABLE_COLUMNS)


def difference(drawn: Sequence[Drawn], student: str, other: str) -> pd.DataFrame:
    """One student minus another on the same prompts, in everything that both were measured in.

    Returns:
        columns student, against, setting, measure, value, low, high (95 % over prompts).

    Raises:
        InputError: nothing was measured of one of the two.
    """
    found = {
        name: {x.what: x.draws for x in drawn if x.student == name} for name in (student, other)
    }
    for name, measured in found.items():
        if not measured:
            raise InputError(f"nothing was measured of a student named {name!r}")
    rows = [
        (student, other, *what, *interval(draws - found[other][what]))
        for what, draws in found[student].items()
        if what in found[other]
    ]
    columns = ["student", "against", "setting", "measure", "value", "low", "high"]
    return pd.DataFrame(rows, columns=columns)


def over_seeds(
    drawn: Sequence[Drawn], *, against: Sequence[str] = ("cot", "mechanistic"), seed: int = 0
) -> pd.DataFrame:
    """Mean over the seeds of each arm, and differences between arms on the seeds that both have.

    Seeds in which a measure has no value, or no interval, do not take part in it. The teacher and
    students of no known arm are left out.

    Args:
        drawn: of `draw`.
        against: arms that all others are compared with, where they are there.
        seed: of the resamples of seeds.

    Returns:
        columns arm, against ("" for the arm itself, else the value is arm minus against), setting,
        measure, value, low, high (95 % over seeds and prompts), n_seeds.

    Raises:
        InputError: two students of the same arm and seed.
    """
    kept = [one for one in drawn if one.arm not in (TEACHER, CUSTOM)]
    by_arm: dict[tuple[str, str], dict[str, dict[int, Drawn]]] = {}
    for one in kept:
        seeds = by_arm.setdefault(one.what, {}).setdefault(one.arm, {})
        if one.seed in seeds:
            raise InputError(
                f"students {seeds[one.seed].student!r} and {one.student!r} are both of arm "
                f"{one.arm!r} and seed {one.seed}"
            )
        if not np.isnan(one.draws[1:]).all():
            seeds[one.seed] = one
    rows = []
    for what, arms in by_arm.items():
        for arm, seeds in arms.items():
            rows.append((arm, "", *what, *_mean([x.draws for x in seeds.values()], seed)))
            for other in against:
                if other == arm or other not in arms:
                    continue
                both = sorted(seeds.keys() & arms[other].keys())
                draws = [seeds[n].draws - arms[other][n].draws for n in both]
                rows.append((arm, other, *what, *_mean(draws, seed)))
    return pd.DataFrame(rows, columns=OVER_COLUMNS)


def _mean(by_seed: Sequence[Draws], seed: int) -> tuple[float, float, float, int]:
    """Value and ends over seeds and prompts, and the number of seeds."""
    if not by_seed:
        return np.nan, np.nan, np.nan, 0
    values: Float[np.ndarray, "seed draw"] = np.stack(by_seed)
    ids = [str(n) for n in range(len(by_seed))]
    weights = resample_weights(ids, values.shape[1] - 1, seed, "seeds").numpy()
    return *interval((weights.T * values).sum(axis=0)), len(by_seed)
