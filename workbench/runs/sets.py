"""The step that patches nominated heads in sets: in pairs, and all less one.

Heads that the pooling rule names by their own effect need no partner. The others are patched all
together, and with them the heads that step in when one is taken away. Where that does nothing, no
head is hidden by another; else the first few are paired with one another, and with their backups.
"""

from collections.abc import Sequence
from functools import partial
from itertools import combinations

import pandas as pd

from workbench.analysis.patching.backups import find_backups
from workbench.analysis.patching.sets import (
    COLUMNS,
    REST,
    SetPlan,
    plan_sets,
    plan_whole,
    set_effects,
)
from workbench.heads import Head
from workbench.headsets.pooling import MARGINS, pool_heads
from workbench.headsets.thresholds import Thresholds
from workbench.phases import PHASES, valid_pairs
from workbench.prompts.prompt import DecisionEvent
from workbench.runs.patch import heads_of
from workbench.runs.pool import thresholds_of
from workbench.runs.rows import sweep_sets
from workbench.runs.steps import Made
from workbench.runs.subject import Parts, Subject, Tables, runs_worth_patching

N_BACKUPS = 2
"""Heads that each head is paired with because they step in for it."""


def sets(subject: Subject, tables: Tables, parts: Parts) -> Made:
    """What nominated heads add to one another, over the span, on the selection half.

    Empty where no head is nominated, or no event of that half is a valid pair.
    """
    config, baseline, scores = subject.config, tables["baseline"], tables["scores"]
    thresholds = thresholds_of(config)
    events = valid_pairs(subject.selection, baseline)
    every = nominated(scores, thresholds)
    counts = {"events": len(events), "heads": len(every)}
    named = set(heads_of(pool_heads(scores, tables["patching"], thresholds)))
    others = [head for head in every if head not in named]
    if not (events and others):
        return Made({"sets": pd.DataFrame(columns=COLUMNS)}, counts)
    first = others[: config.n_paired]
    pairs = _pairs(subject, events, first)
    backups = {head for pair in pairs for head in pair} - named
    before = subject.rows("sets")
    plan = plan_whole(every, sorted({*others, *backups}))
    whole, kept = _effects(subject, tables, before, parts, plan, "large sets")
    limit = thresholds.min_strict_low
    if not subject.together.told(lambda: _do_something(whole, limit)):
        return Made({"sets": whole}, counts, kept)
    plan = plan_sets(pairs, every, first)
    table, kept = _effects(subject, tables, kept, parts, plan, "sets")
    return Made({"sets": table}, counts | {"sets": len(plan.groups)}, kept)


def _do_something(whole: pd.DataFrame, limit: float) -> bool:
    """Whether the heads that no effect of their own names may, together, give back a margin."""
    asked = (whole["set"] == REST) & whole["measure"].isin(list(MARGINS.values()))
    return bool((whole.loc[asked, "high"] > limit).any())


def _effects(
    subject: Subject, tables: Tables, before: pd.DataFrame, parts: Parts, plan: SetPlan, what: str
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """What the heads of a plan add, and the rows of single events to keep."""
    config, baseline = subject.config, tables["baseline"]
    events = valid_pairs(subject.selection, baseline)
    with subject.reporter.step(f"{len(plan.groups)} {what} of heads", len(events)) as advance:
        swept = sweep_sets(
            subject.model,
            events,
            plan.groups,
            ("span",),
            runs_worth_patching(baseline, subject.halves),
            before=before,
            parts=parts,
            advance=advance,
            together=subject.together,
            everywhere=True,
        )
    effects = set_effects(
        swept.asked, baseline, plan, n_resamples=config.n_resamples, seed=config.seed
    )
    return effects, swept.kept


def _pairs(
    subject: Subject, events: Sequence[DecisionEvent], first: Sequence[Head]
) -> list[tuple[Head, Head]]:
    spread = partial(subject.together.spread, everywhere=True)
    backups = find_backups(subject.model, events, first, N_BACKUPS, spread=spread)
    return [
        *combinations(first, 2),
        *((head, other) for head, others in backups.items() for other in others),
    ]


def nominated(scores: pd.DataFrame, thresholds: Thresholds) -> Sequence[Head]:
    """Heads whose CoarseScore or RefineScore beats its null, by their rank among those that do."""
    ranks = []
    for phase in PHASES.values():
        passes = scores[phase.q] <= thresholds.false_discovery_rate
        ranks.append(scores[phase.name].where(passes).rank(ascending=False, method="first"))
    best = pd.concat(ranks, axis=1).min(axis=1).dropna()
    return heads_of(scores.loc[best.sort_values(kind="stable").index])
