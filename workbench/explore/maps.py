"""Maps over layers and heads: every score and measure of the tables, as numbers for the widget."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from plotly.colors import get_colorscale

from workbench.heads import head_name
from workbench.measures import MEASURES
from workbench.plots.heatmaps import pool_label, pooled_heads
from workbench.plots.style import (
    INK,
    POSITIONS,
    UNPATCHED,
    score_names,
    score_words,
    shown_measures,
    where,
)
from workbench.roles import POOL_WORDS

Values = list[float | None]
"""One value a head, layer by layer; None where there is none."""


@dataclass(frozen=True)
class Map:
    """One value per head; `limit` is the value of full colour."""

    title: str
    note: str
    unit: str
    values: Values
    limit: float
    low: Values | None = None
    high: Values | None = None
    more: Mapping[str, Values] | None = None
    """Further numbers that are shown while the pointer rests on a head."""


@dataclass(frozen=True)
class Choice:
    """An entry of the box that picks a map."""

    key: str
    group: str
    title: str


def palette() -> dict[str, Any]:
    """Colours of the heat maps, from −limit to limit, and of a head without a value."""
    return {"scale": [colour for _, colour in get_colorscale("RdBu_r")], "none": UNPATCHED}


def pools(headset: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Head → name and colour of its pool, and whether it reads out."""
    marked = {}
    for (layer, head), mark in pooled_heads(headset).items():
        words = POOL_WORDS.get(mark.partition(" ")[0])
        marked[head_name(layer, head)] = {
            "pool": pool_label(mark),
            "colour": words.colour if words else INK,
            "read_out": "read-out" in mark,
        }
    return marked


class TableMaps:
    """The maps that the tables of a run hold."""

    def __init__(self, tables: Mapping[str, pd.DataFrame], shape: tuple[int, int]) -> None:
        self.shape = shape
        self.scores = tables.get("scores", pd.DataFrame())
        self.effects = _one_half(tables.get("patching", pd.DataFrame()))

    @property
    def choices(self) -> list[Choice]:
        """Scores, then each measure where it was patched, in probability and as margins."""
        listed = [
            Choice(f"score {name}", "Scores: they nominate heads", score_words(name)[0])
            for name in score_names(self.scores.columns)
        ]
        for positions, words in reversed(POSITIONS.items()):
            there = self._at(positions)
            present = set() if there.empty else set(there["measure"])
            margins = [name for name, one in MEASURES.items() if one.margin and name in present]
            listed += [
                Choice(f"{positions} {name}", f"Effects of patching {words}", MEASURES[name].title)
                for name in [*shown_measures(present), *margins]
            ]
        return listed

    def map(self, key: str) -> Map:
        """The map of one of `choices`."""
        kind, _, name = key.partition(" ")
        return self._score(name) if kind == "score" else self._effect(kind, name)

    def _score(self, name: str) -> Map:
        title, unit = score_words(name)
        more = {"q": self._grid(self.scores, f"{name}_q"), "events": self._grid(self.scores, "n")}
        return self._made(
            self.scores, name, f"{name}_low", f"{name}_high", title=title, unit=unit, more=more,
            note="observational: nominates heads, proves nothing",
        )  # fmt: skip

    def _effect(self, positions: str, name: str) -> Map:
        there, measure = self._at(positions), MEASURES[name]
        rows = where(there, measure=name).drop_duplicates(["layer", "head"])
        return self._made(
            rows, "effect", "low", "high", title=f"{measure.title}, {POSITIONS[positions]}",
            unit=measure.unit, note=f"{name}: {measure.patched}. {measure.note}",
            more={"events": self._grid(rows, "n")}, limit=1.0,
        )  # fmt: skip

    def _at(self, positions: str) -> pd.DataFrame:
        return self.effects if self.effects.empty else where(self.effects, positions=positions)

    def _made(
        self,
        table: pd.DataFrame,
        value: str,
        low: str,
        high: str,
        *,
        limit: float | None = None,
        more: Mapping[str, Values | None],
        **words: str,
    ) -> Map:
        values = self._grid(table, value) or []
        return Map(
            values=values,
            limit=limit or full_colour(values),
            low=self._grid(table, low),
            high=self._grid(table, high),
            more={name: column for name, column in more.items() if column is not None},
            **words,
        )

    def _grid(self, table: pd.DataFrame, column: str) -> Values | None:
        """A column as one value a head."""
        if column not in table:
            return None
        grid = np.full(self.shape, np.nan)
        grid[table["layer"].to_numpy(), table["head"].to_numpy()] = table[column].to_numpy(float)
        return plain(grid)


def plain(grid: np.ndarray) -> Values:
    """An array as JSON holds it: four significant digits, None where there is no number."""
    return [float(f"{x:.4g}") if np.isfinite(x) else None for x in grid.ravel().tolist()]


def full_colour(values: Sequence[float | None]) -> float:
    """The value of full colour: the largest that there is, 1 where there is none."""
    return max((abs(value) for value in values if value is not None), default=0.0) or 1.0


def _one_half(patching: pd.DataFrame) -> pd.DataFrame:
    """Effects of the held-out half; of the selection half where nothing was held out."""
    if patching.empty:
        return patching
    held_out = where(patching, half="verify")
    return where(patching, half="choose") if held_out.empty else held_out
