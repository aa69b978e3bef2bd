"""Which students a study trains, in which order, and with which settings.

All arms get the same small grid of settings; those of an arm are chosen on other prompts than its
results are reported on, by the students of seed 0. These are the seed 0 of the results, too.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from workbench.distill.arms import find_arm
from workbench.distill.config import LossConfig
from workbench.errors import InputError

CHAIN = "chain"
"""The term that all arms have, with the same weight."""
TEACHER = "teacher"


@dataclass(frozen=True)
class Job:
    """One student.

    Attributes:
        arm: of `arms.ARMS`.
        heads: name of the head set, "" for an arm that needs none.
        layers: of the teacher that are copied.
        steps: of training.
        rate: peak of the learning rate.
        factor: of the weights of all terms beside the chains'.
        traces: rows that it is trained on, over and over.
        seed: of the order of rows.
    """

    arm: str
    heads: str
    layers: int
    steps: int
    rate: float
    factor: float
    traces: int
    seed: int

    @property
    def series(self) -> str:
        """Arm and head set."""
        return f"{self.arm}@{self.heads}" if self.heads else self.arm

    @property
    def name(self) -> str:
        """Of its file of results."""
        settings = f"L{self.layers}-s{self.steps}-r{self.rate:g}-f{self.factor:g}-t{self.traces}"
        return f"{self.series}-{settings}-{self.seed}"

    @property
    def loss(self) -> LossConfig:
        """Terms of the arm, of which all but the chains' weigh `factor` as much."""
        config = find_arm(self.arm).loss
        more = {name: getattr(config, name) * self.factor for name in config.on if name != CHAIN}
        return replace(config, **more)

    def to_json(self) -> dict[str, Any]:
        """As a file of results holds it."""
        return asdict(self)


def parse_series(given: str, heads: Sequence[str]) -> tuple[str, str]:
    """Arm and head set of ARM or ARM@HEADS; the first head set where an arm needs one.

    Raises:
        InputError: no such arm or head set, or an arm that needs heads and none are given.
    """
    arm, at, named = given.partition("@")
    needs = bool(find_arm(arm).loss.about_heads)
    if at and (not needs or named not in heads):
        known = ", ".join(heads) or "none"
        raise InputError(f"arm {given!r}: {named!r} is no head set for it; there are {known}")
    if needs and not heads:
        raise InputError(f"arm {arm!r} needs heads of the teacher: give --heads NAME=FILE")
    return arm, (named or heads[0]) if needs else ""


@dataclass(frozen=True)
class Plan:
    """A cross of settings.

    Attributes:
        arms: arms, as `parse_series` reads them.
        heads: names of the head sets.
        layers, steps, rates, factors, traces: values of the settings, see `Job`.
        rates_alone: of arms that have no factor, so that they have as many settings.
        seeds: students of each.
        few: arms (as in `arms`) that get fewer seeds, and how many.
    """

    arms: Sequence[str]
    heads: Sequence[str]
    layers: Sequence[int]
    steps: Sequence[int]
    rates: Sequence[float]
    factors: Sequence[float]
    rates_alone: Sequence[float]
    traces: Sequence[int]
    seeds: Sequence[int]
    few: Mapping[str, int]

    def grid(self) -> list[Job]:
        """All of them, seeds outermost and arms innermost, so that what is done is balanced.

        An arm of chains alone has no factor.

        Raises:
            InputError: what `parse_series` refuses, or nothing to do.
        """
        pairs = [parse_series(arm, self.heads) for arm in self.arms]
        jobs: dict[Job, None] = {}
        for seed in self.seeds:
            for layers in self.layers:
                for steps in self.steps:
                    for traces in self.traces:
                        for at in range(self.n_settings):
                            for given, (arm, heads) in zip(self.arms, pairs, strict=True):
                                settings = self.settings(arm)
                                if at < len(settings) and seed < self.few.get(given, seed + 1):
                                    rate, factor = settings[at]
                                    job = Job(arm, heads, layers, steps, rate, factor, traces, seed)
                                    jobs[job] = None
        if not jobs:
            raise InputError("there is no student to train: give arms, layers, steps and seeds")
        return list(jobs)

    def settings(self, arm: str) -> list[tuple[float, float]]:
        """Rates and factors that are tried for an arm, those in the middle of their list first."""
        if not has_factor(arm):
            return [(rate, 1.0) for rate in _middle_first(self.rates_alone)]
        factors = _middle_first(self.factors)
        return [(rate, factor) for factor in factors for rate in self.rates]

    @property
    def n_settings(self) -> int:
        """Of the arm that has most."""
        return max(len(self.rates_alone), len(self.rates) * len(self.factors))

    def chosen(self, results: Sequence[Mapping[str, Any]]) -> list[Job]:
        """The same with each arm's best rate and factor, of those that were tried with seed 0.

        An arm that was not tried has those of the arm that it is made of (`phases-p1` those of
        `phases`), with the same heads or the first ones; if that was not either, the first that
        would be tried.
        """
        best = best_settings(results)
        first = _middle_first(self.factors)[:1], _middle_first(self.rates_alone)[:1]
        once = replace(self, rates=self.rates[:1], factors=first[0], rates_alone=first[1])
        found: dict[Job, None] = {}
        for job in once.grid():
            sources = [job.series, *_kin(job, self.heads)]
            key = next(
                (key for key in ((name, job.layers) for name in sources) if key in best), None
            )
            if key is None:
                found[job] = None
                continue
            rate, factor = best[key]
            own = factor if has_factor(job.arm) else 1.0
            found[replace(job, rate=rate, factor=own)] = None
        return list(found)


def has_factor(arm: str) -> bool:
    """Whether an arm has a term beside the chains'."""
    return bool(find_arm(arm).loss.on.keys() - {CHAIN})


def best_settings(
    results: Sequence[Mapping[str, Any]],
) -> dict[tuple[str, int], tuple[float, float]]:
    """Rate and factor by (series, layers) with the most prompts right of those to select on.

    Of seed 0 and of as many steps and traces as most of its students have. Of equals the one with
    more decisions right, then the lower rate and the factor nearer to 1.
    """
    found: dict[tuple[str, int], tuple[tuple[float, ...], tuple[float, float]]] = {}
    done = [one for one in results if one["finished"] and one["job"]["seed"] == 0]
    sizes = [(one["job"]["steps"], one["job"]["traces"]) for one in done]
    for one in done:
        job = Job(**one["job"])
        if job.arm == TEACHER or (job.steps, job.traces) != max(set(sizes), key=sizes.count):
            continue
        last = one["curve"][-1]["select"]
        exact, decisions = (sum(map(int, last[name])) for name in ("exact", "decisions"))
        value = (exact, decisions, -job.rate, -abs(job.factor - 1))
        key = (job.series, job.layers)
        if key not in found or value > found[key][0]:
            found[key] = (value, (job.rate, job.factor))
    return {key: setting for key, (_, setting) in found.items()}


def _kin(job: Job, heads: Sequence[str]) -> list[str]:
    """Series whose settings an arm takes that was not tried itself, the nearest first."""
    arms = [job.arm, job.arm.partition("-")[0]]
    sets = [job.heads, heads[0] if heads else ""] if job.heads else [""]
    return [f"{arm}@{one}" if one else arm for one in sets for arm in arms]


def _middle_first(values: Sequence[float]) -> list[float]:
    middle = (len(values) - 1) / 2
    order = sorted(range(len(values)), key=lambda at: (abs(at - middle), at))
    return [values[at] for at in order]
