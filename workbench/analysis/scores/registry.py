"""The scores of heads, each declared once: table, nomination and figures follow from it.

A module of this package that registers a `Score` adds it; no other file needs to know. A score
nominates heads; only patching shows what they do.
"""

import pkgutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import pandas as pd
from jaxtyping import Float, Int
from torch import Tensor

from workbench.analysis.scores.event_runs import EventRuns
from workbench.analysis.scores.nulls import RoleNull, RoleValues, RoutedValues


@dataclass(frozen=True)
class Score:
    """One number per head: the mean over events, or the largest of the means of its routes.

    With `by_size`, that is the largest in size, and heads rank by size: what works against the gold
    counts as well.
    """

    name: str
    """Its column; `name_low` and `name_high` are the interval, `name_p` and `name_q` the null's."""
    title: str
    unit: str
    of_event: Callable[[EventRuns], RoleValues | RoutedValues | Float[Tensor, "layer head"]]
    """One event's values; a plain tensor where there is no null."""
    routes: tuple[str, ...] = ()
    """Names along the last axis of the values; each gets a column, and so does the larger one."""
    null: Callable[[Sequence[Any], Sequence[str]], RoleNull] | None = None
    """(events, their prompt ids) → what the score would be if roles said nothing about a head."""
    nominates: bool = False
    """Whether its first heads are patched."""
    needs_ways: bool = False
    """Whether it is NaN where the way from heads to the residual stream is not known."""

    by_size: bool = False

    def best_route(self, means: Float[Tensor, "*cell route"]) -> Int[Tensor, "*cell"]:
        """The route that counts, from means over events."""
        return (means.abs() if self.by_size else means).argmax(dim=-1)

    def of_means(self, means: Float[Tensor, "*any"]) -> Float[Tensor, "*any_head"]:
        """The score, from means over events."""
        if not self.routes:
            return means
        return means.gather(-1, self.best_route(means)[..., None])[..., 0]

    def first(self, table: pd.DataFrame, count: int) -> pd.DataFrame:
        """The rows of a scores table with the largest scores."""
        score = pd.Series(table[self.name])
        return table.loc[
            (score.abs() if self.by_size else score).nlargest(count, keep="first").index
        ]

    def of_events(self, values: Float[Tensor, "event layer head *route"]) -> Tensor:
        """Per event, layer and head, what the score is the mean of."""
        if not self.routes:
            return values
        best = self.best_route(values.mean(dim=0))[None, ..., None]
        return values.gather(-1, best.expand(*values.shape[:-1], 1))[..., 0]


SCORES: dict[str, Score] = {}


def register(score: Score) -> Score:
    """Add a score; scores of other modules of this package are in `known_scores`."""
    SCORES[score.name] = score
    return score


def known_scores() -> dict[str, Score]:
    """All scores by name, in the order of their columns: by module, then as registered."""
    package = __package__ or ""
    for module in pkgutil.iter_modules(import_module(package).__path__):
        import_module(f"{package}.{module.name}")
    return SCORES
