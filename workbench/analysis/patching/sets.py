"""Sets of heads patched together: what a head adds to others.

Heads that can stand in for one another restore little or nothing one by one. So nominated heads are
also patched in pairs, and all together with each left out in turn. What a head *adds* to a set is
the effect of the set with it less that of the set without it, on the same resamples of prompts.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import pandas as pd

from workbench.analysis.patching.effects import Terms, effect_intervals, measure_terms
from workbench.errors import InputError, require
from workbench.heads import Head, head_name
from workbench.measures import MEASURES

PAIR, LEFT_OUT, WHOLE, REST = "pair", "left out", "whole", "rest"
"""How a set came about: two heads, all nominated heads less or with one, all of them, and those
that no effect of their own names."""
MANY: Head = (-1, -1)
"""In place of a head where many are meant."""

COLUMNS = ["layer", "head", "set", "others", "measure", "half", "effect", "low", "high", "n"]


@dataclass(frozen=True)
class Added:
    """A head and others that it is added to: indices of the set with it and of that without it.

    Of `REST`, `others` are the set itself, and there is nothing that it is added to.
    """

    head: Head
    others: tuple[Head, ...]
    kind: str
    with_it: int
    without: int | None


@dataclass(frozen=True)
class SetPlan:
    """Sets to patch, each once, and what is asked of them; `whole` is the index of all heads."""

    groups: tuple[tuple[Head, ...], ...]
    added: tuple[Added, ...]
    whole: int


def plan_sets(
    pairs: Iterable[tuple[Head, Head]], every: Sequence[Head], left_out: Iterable[Head]
) -> SetPlan:
    """These pairs, and all of `every` with each of `left_out` left out in turn.

    Raises:
        InputError: no head, or the same twice.
    """
    distinct = {tuple(sorted(pair)) for pair in pairs}
    if len(set(every)) < len(every) or any(one == other for one, other in distinct):
        raise InputError("sets of heads: a head is named twice")
    if not every:
        raise InputError("sets of heads: give at least one head")
    index: dict[tuple[Head, ...], int] = {}

    def at(heads: Sequence[Head]) -> int:
        return index.setdefault(tuple(sorted(heads)), len(index))

    added = []
    for one, other in sorted(distinct):
        for head, rest in ((one, other), (other, one)):
            added.append(Added(head, (rest,), PAIR, at([one, other]), at([rest])))
    if len(every) > 2:  # of two heads the pair says it
        for head in sorted(left_out):
            rest = tuple(other for other in sorted(every) if other != head)
            added.append(Added(head, rest, LEFT_OUT, at(every), at(rest)))
    whole = at(every)
    return SetPlan(tuple(index), tuple(added), whole)


def plan_whole(every: Sequence[Head], some: Sequence[Head]) -> SetPlan:
    """All heads together, and some of them together.

    Raises:
        InputError: no head.
    """
    if not (every and some):
        raise InputError("sets of heads: give at least one head")
    return SetPlan((tuple(every), tuple(some)), (Added(MANY, tuple(some), REST, 1, None),), 0)


def set_effects(
    events: pd.DataFrame,
    baseline: pd.DataFrame,
    plan: SetPlan,
    *,
    half: str = "choose",
    n_resamples: int = 2000,
    seed: int = 0,
) -> pd.DataFrame:
    """What each head of the plan adds, and what all heads do together, with 95 % intervals.

    `events` are rows of `sweep_event` over `plan.groups`, at one choice of positions; `baseline` is
    the baseline table. One row per question and measure: layer, head, set (`PAIR`, `LEFT_OUT`,
    `REST` or `WHOLE`), others ("L-H L-H", what it is added to), measure, half, effect, low, high,
    n (events). In rows of the rest and the whole, layer and head are -1; the whole's effect is that
    of all heads together. A measure whose run was not patched has no rows.

    Raises:
        InputError: a column is missing, or results of several positions.
    """
    require(events, "patching results of sets", ["target", "positions", "run", "id", "event"])
    if len(set(events["positions"])) > 1:
        raise InputError("patching results of sets: give those of one choice of positions")
    base = baseline[baseline["half"] == half].pivot(index=["id", "event"], columns="variant")
    questions = [(one.with_it, one.without) for one in plan.added]
    terms = {}
    for name, measure in MEASURES.items():
        if measure.value in events and measure.run in set(events["run"]):
            terms[name] = _added(measure_terms(events, base, measure, ("target",)), questions, plan)
    ids = [str(name) for name in base.index.get_level_values("id")]
    intervals = effect_intervals(terms, ids, n_resamples=n_resamples, seed=seed)
    heads = [(*one.head, one.kind, _names(one.others)) for one in plan.added]
    asked = pd.DataFrame([*heads, (*MANY, WHOLE, "")], columns=["layer", "head", "set", "others"])
    n = {name: one.counts.sum(dim=0).numpy() for name, one in terms.items()}
    least = pd.DataFrame(n).min(axis=1).to_numpy()
    frames = [
        asked.assign(
            measure=name,
            half=half,
            effect=interval.estimate.numpy(),
            low=interval.low.numpy(),
            high=interval.high.numpy(),
            n=n.get(name, least),
        )
        for name, interval in intervals.items()
    ]
    return pd.concat(frames, ignore_index=True).reindex(columns=COLUMNS)


def _added(terms: Terms, questions: Sequence[tuple[int, int | None]], plan: SetPlan) -> Terms:
    """Terms of what is added: numerators with the head less those without; last, the whole."""
    with_it = [one for one, _ in questions] + [plan.whole]
    without = [other for _, other in questions]
    numerator = terms.numerator[:, with_it].clone()
    for at, other in enumerate(without):
        if other is not None:
            numerator[:, at] -= terms.numerator[:, other]
    denominator, counts = terms.denominator[:, with_it], terms.counts[:, with_it]
    return Terms(numerator, denominator, counts)


def _names(heads: Sequence[Head]) -> str:
    return " ".join(head_name(*head) for head in heads)
