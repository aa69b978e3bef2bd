"""Observational scores of every head: CoarseScore for filtering, RefineScore for near misses.

1. Per event, run clean (attention patterns and head outputs), near and far (with gradients).
2. Each score of the registry reads its values from these runs.
3. Over events: bootstrap intervals, permutation p-values, false discovery rate over all heads.

A score nominates heads; only patching shows what they do.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from workbench.analysis.readout import widen
from workbench.analysis.scores.attribution import added_to_stream, head_outputs
from workbench.analysis.scores.event_runs import EventRuns
from workbench.analysis.scores.nulls import RoleNull, RoleValues, RoutedValues, null_p, null_q
from workbench.analysis.scores.registry import known_scores
from workbench.analysis.statistics import Interval, bootstrap
from workbench.errors import InputError
from workbench.models.hooked import HookedModel
from workbench.processes import Spread, in_order
from workbench.prompts.prompt import VARIANTS, DecisionEvent, PromptSet


@dataclass(frozen=True)
class EventScores:
    """What one decision event says about every head, by score."""

    values: dict[str, RoleValues | RoutedValues | Float[Tensor, "layer head"]]
    output_norm: Float[Tensor, "layer head"]
    """How much the head adds to the residual stream at the decision; NaN where not known."""

    def own(self, name: str) -> Float[Tensor, "layer head *route"]:
        """A score's values with the roles as they are."""
        values = self.values[name]
        return values if isinstance(values, Tensor) else values.own


RECORDS = (EventScores, RoleValues, RoutedValues)
"""What the scores of an event are made of, for processes that send them to one another."""


def score_heads(
    model: HookedModel,
    prompts: PromptSet,
    *,
    n_resamples: int = 2000,
    n_permutations: int = 2000,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
    spread: Spread = in_order,
) -> pd.DataFrame:
    """Score every head on every event: one row per layer and head.

    Intervals are 95 %, over prompts; `*_p` are one-sided permutation p-values and `*_q` their
    Benjamini-Hochberg adjustment over all heads. `n_permutations` is raised to 20 per head where it
    is less: with fewer, no head could pass alone. `progress` is called with (events done, events);
    several processes `spread` them.
    """
    output_weights = model.output_weights()

    def scored(events: Sequence[DecisionEvent]) -> Iterator[EventScores]:
        return (score_event(model, event, output_weights) for event in events)

    scores = spread(scored, prompts.events, progress, records=RECORDS)
    ids = [event.id for event in prompts]
    return scores_table(
        scores, ids, n_resamples=n_resamples, n_permutations=n_permutations, seed=seed
    )


def score_event(
    model: HookedModel,
    event: DecisionEvent,
    output_weights: Float[Tensor, "layer head d_head d_model"],
) -> EventScores:
    """All per-event values, from one clean, one near and one far run.

    Raises:
        InputError: a variant is longer than the model takes, a token outside its vocabulary, or
            gradients that overflow the model's dtype.
    """
    model.check_sequences([event.variant(name) for name in VARIANTS])
    runs = EventRuns(model, event, output_weights)
    values = {name: score.of_event(runs) for name, score in known_scores().items()}
    written = head_outputs(widen(runs.clean.z[:, -1]), output_weights)
    added = added_to_stream(model.ways, written, runs.clean.projected)
    found = EventScores(values, added.norm(dim=-1).cpu().double())
    known = None not in model.ways
    wanted = [name for name, score in known_scores().items() if known or not score.needs_ways]
    if not all(bool(found.own(name).isfinite().all()) for name in wanted):
        raise InputError(
            f"prompt {event.id!r} event {event.event}: its gradients are not finite in "
            f"{model.info.dtype}; use --dtype float32 or bfloat16"
        )
    return found


def scores_table(
    scores: Sequence[EventScores],
    prompt_ids: Sequence[str],
    *,
    n_resamples: int = 2000,
    n_permutations: int = 2000,
    seed: int = 0,
) -> pd.DataFrame:
    """Means, intervals and p-values over events, as the `scores` table.

    `n_permutations` is a minimum, as in `score_heads`.
    """
    layer, head = np.indices(scores[0].output_norm.shape)
    columns: dict[str, Any] = {"layer": layer, "head": head}
    nulls = score_nulls(scores, prompt_ids)
    for name, score in known_scores().items():
        values = torch.stack([event.own(name) for event in scores])
        interval = bootstrap(
            score.of_means,
            values,
            prompt_ids=prompt_ids,
            n_resamples=n_resamples,
            seed=seed,
            labels=[name],
        )
        ends = zip(Interval._fields, ("", "_low", "_high"), strict=True)
        columns |= {name + end: getattr(interval, field) for field, end in ends}
        if name in nulls:
            p = null_p(nulls[name], n_permutations=n_permutations, seed=seed)
            columns |= {f"{name}_p": p[0], f"{name}_q": null_q(nulls[name], p)[0]}
        if score.routes:
            means = values.mean(dim=0)
            columns[f"{name}_route"] = np.array(score.routes)[score.best_route(means).numpy()]
            columns |= {f"{name}_{route}": means[..., at] for at, route in enumerate(score.routes)}
    columns["output_norm"] = torch.stack([event.output_norm for event in scores]).mean(dim=0)
    flat = {name: np.asarray(values).ravel() for name, values in columns.items()}
    return pd.DataFrame(flat).assign(n=len(scores))


def score_nulls(scores: Sequence[EventScores], prompt_ids: Sequence[str]) -> dict[str, RoleNull]:
    """The permutation null of every score that has one, roles dealt out by prompt."""
    nulls = {}
    for name, score in known_scores().items():
        if score.null is not None:
            nulls[name] = score.null([event.values[name] for event in scores], prompt_ids)
    return nulls
