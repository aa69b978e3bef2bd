"""The step that patches nominated heads in sets: in pairs, and all less one.

Heads that the pooling rule names by their own effect need no partner. Of the others the first few
are paired with one another, and each with the heads that step in when it is taken away.
"""

from collections.abc import Iterator, Sequence
from itertools import combinations

import pandas as pd

from workbench.analysis.patching.backups import find_backups
from workbench.analysis.patching.patching import sweep_event
from workbench.analysis.patching.sets import COLUMNS, plan_sets, set_effects
from workbench.analysis.scores.registry import known_scores
from workbench.heads import Head
from workbench.headsets.pooling import pool_heads
from workbench.models.hooked import HookedModel
from workbench.phases import PHASES, valid_pairs
from workbench.prompts.prompt import DecisionEvent
from workbench.runs.patch import heads_of
from workbench.runs.pool import thresholds_of
from workbench.runs.steps import Made
from workbench.runs.subject import Parts, Subject, Tables, runs_worth_patching

N_BACKUPS = 2
"""Heads that each head is paired with because they step in for it."""


def sets(subject: Subject, tables: Tables, parts: Parts) -> Made:
    """What nominated heads add to one another, over the span, on the selection half.

    Empty where no head is nominated, or no event of that half is a valid pair.
    """
    config, baseline, scores = subject.config, tables["baseline"], tables["scores"]
    events = valid_pairs(subject.selection, baseline)
    every = nominated(scores, config.false_discovery_rate)
    counts = {"events": len(events), "heads": len(every)}
    if not (events and every):
        return Made({"sets": pd.DataFrame(columns=COLUMNS)}, counts)
    alone = set(heads_of(pool_heads(scores, tables["patching"], thresholds_of(config))))
    first = [head for head in every if head not in alone][: config.n_paired]
    plan = plan_sets(_pairs(subject.model, events, first), every)
    runs_of = runs_worth_patching(baseline, subject.halves)
    with subject.reporter.step(f"{len(plan.groups)} sets of heads", len(events)) as advance:
        for number, event in enumerate(events):
            if number not in parts:
                parts[number] = sweep_event(
                    subject.model, event, plan.groups, ("span",), runs=runs_of(event)
                )
            advance(number + 1, len(events))
    table = set_effects(
        pd.concat(parts.values(), ignore_index=True),
        baseline,
        plan,
        n_resamples=config.n_resamples,
        seed=config.seed,
    )
    return Made({"sets": table}, counts | {"sets": len(plan.groups)})


def _pairs(
    model: HookedModel, events: Sequence[DecisionEvent], first: Sequence[Head]
) -> Iterator[tuple[Head, Head]]:
    yield from combinations(first, 2)
    for head, backups in find_backups(model, events, first, N_BACKUPS).items():
        yield from ((head, other) for other in backups)


def nominated(scores: pd.DataFrame, rate: float) -> Sequence[Head]:
    """Heads whose score beats its null in a phase, by the best of their ranks in any score."""
    passes = scores[[phase.q for phase in PHASES.values()]].min(axis=1) <= rate
    names = [name for name, score in known_scores().items() if score.nominates and name in scores]
    best = scores[names].rank(ascending=False, method="first").min(axis=1)
    order = best[passes].sort_values(kind="stable").index
    return heads_of(scores.loc[order])
