"""Does the method find planted heads? Kinds of models × placements, each through the whole method.

A row of the table is a model: what was declared and what was found, pool by pool. Rows grow on
disk, so that a stopped study goes on with the next model.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import pandas as pd

from workbench.errors import InputError, require
from workbench.progress import Advance
from workbench.runs.config import DEFAULTS
from workbench.runs.growing import grown
from workbench.studies.found import Found, find_pools, names
from workbench.studies.planted.kinds import KINDS, NAMES, kind_named
from workbench.studies.planted.models import Planted, plant
from workbench.studies.planted.places import has_room

SHAPES: tuple[tuple[int, int, int], ...] = (
    (3, 4, 4),
    (3, 8, 4),
    (4, 4, 4),
    (4, 8, 2),
    (6, 4, 4),
    (6, 4, 2),
)
"""Layers, heads and key-value heads of planted models: three depths, with and without sharing."""

N_PROMPTS = DEFAULTS.n_prompts
"""As many as a run has; half of them select heads."""


@dataclass(frozen=True)
class Placement:
    """One planted model to be made."""

    kind: str
    seed: int
    shape: tuple[int, int, int]

    @property
    def id(self) -> str:
        """Its name in the table."""
        return f"{self.kind}-{self.seed}"


def placements_of(kinds: Sequence[str], n: int, seed: int) -> list[Placement]:
    """`n` placements of each kind: the shapes that have room for it in turn, places drawn anew.

    Kinds take turns, so that a study that was stopped has about as many of each.

    Raises:
        InputError: `n` below 1, an unknown kind, or the same twice.
    """
    if n < 1:
        raise InputError(f"n is {n} models, must be at least 1")
    twice = [kind for kind in kinds if kinds.count(kind) > 1]
    if twice:
        raise InputError(f"kind {twice[0]!r} is named twice")
    return [
        one
        for turn in islice(zip(*(_endless(k, seed) for k in kinds), strict=True), n)
        for one in turn
    ]


def _endless(kind: str, seed: int) -> Iterator[Placement]:
    parts = kind_named(kind).all_parts
    shapes = cycle([shape for shape in SHAPES if has_room(parts, *shape)])
    for number, shape in enumerate(shapes):
        yield Placement(kind, seed + number, shape)


def run_placements(
    path: Path,
    kinds: Sequence[str] = tuple(KINDS),
    n: int = 20,
    seed: int = 0,
    progress: Advance | None = None,
    *,
    n_prompts: int = N_PROMPTS,
) -> pd.DataFrame:
    """Find the heads of `n` planted models of each kind; rows go to the CSV file `path`.

    Columns: id, kind, seed, n_layers, n_heads, n_kv_heads, n_counting (valid pairs of the selection
    half), `<name>_true` and `<name>_found` for every name in `planted.kinds.NAMES` ("L-H L-H"),
    decoys_pooled.

    Raises:
        InputError: as `placements_of`, or the file cannot be read or written.
    """

    def rows_of(cases: Sequence[Placement]) -> pd.DataFrame:
        return pd.DataFrame([_row(case, n_prompts) for case in cases])

    cases = placements_of(kinds, n, seed)
    table = grown(path, cases, rows_of, at_once=1, advance=progress)
    if table["id"].tolist() != [case.id for case in cases]:
        raise InputError(f"{path}: holds other placements than asked for; give another --out")
    return table


def _row(case: Placement, n_prompts: int) -> dict[str, Any]:
    planted = plant(case.seed, *case.shape, kind=case.kind, n_prompts=n_prompts)
    found = find_pools(planted.model, planted.prompts, seed=case.seed)
    sizes = dict(zip(("n_layers", "n_heads", "n_kv_heads"), case.shape, strict=True))
    return {"id": case.id, "kind": case.kind, "seed": case.seed, **sizes, **compare(planted, found)}


def compare(planted: Planted, found: Found) -> dict[str, Any]:
    """Found heads beside the declared ones: the columns of `run_placements` after the shape."""
    row: dict[str, Any] = {"n_counting": found.n_valid}
    for name in NAMES:
        row[f"{name}_true"] = names(planted.pools[name])
        row[f"{name}_found"] = names(found.pools.get(name, ()))
    return row | {"decoys_pooled": len(planted.decoys & found.heads)}


def by_kind(placements: pd.DataFrame) -> pd.DataFrame:
    """Precision and recall of every pool name, kind by kind, over the heads of all placements.

    Columns: kind, pool (a name), placements, declared and found (heads of that name in all models),
    right (both), precision (1 where nothing was found and nothing declared, NaN where nothing was
    found of what is there), recall (NaN where nothing is declared), exact (models in which exactly
    the declared heads have the name), decoys_pooled (of the kind). A name that is neither declared
    nor found in a kind has no row.

    Raises:
        InputError: a column is missing.
    """
    columns = [f"{name}_{side}" for name in NAMES for side in ("true", "found")]
    require(placements, "placements", ["kind", *columns, "decoys_pooled"])
    rows = []
    for kind, models in placements.groupby("kind", sort=False):
        for name in NAMES:
            pairs = [
                (set(true.split()), set(got.split()))
                for true, got in zip(models[f"{name}_true"], models[f"{name}_found"], strict=True)
            ]
            declared = sum(len(true) for true, _ in pairs)
            found = sum(len(got) for _, got in pairs)
            right = sum(len(true & got) for true, got in pairs)
            if not declared and not found:
                continue
            rows.append(
                {
                    "kind": kind,
                    "pool": name,
                    "placements": len(models),
                    "declared": declared,
                    "found": found,
                    "right": right,
                    "precision": right / found if found else float("nan"),
                    "recall": right / declared if declared else float("nan"),
                    "exact": sum(true == got for true, got in pairs),
                    "decoys_pooled": int(models["decoys_pooled"].to_numpy().sum()),
                }
            )
    return pd.DataFrame(rows)


def lines(placements: pd.DataFrame) -> list[str]:
    """What came out of each kind, in plain words; a name that was never found is said to be."""
    table, out = by_kind(placements), []
    for kind, rows in table.groupby("kind", sort=False):
        said = []
        for row in rows.to_dict("records"):
            if not row["declared"]:
                said.append(f"{row['found']} wrongly called {row['pool']}")
                continue
            words = f"{row['pool']} {row['right']} of {row['declared']}"
            if not row["right"]:
                words = f"{row['pool']} UNDETECTED (0 of {row['declared']})"
            wrong = row["found"] - row["right"]
            said.append(words + (f" and {wrong} wrong" if wrong else ""))
        n = int(rows["placements"].iloc[0])
        decoys = int(rows["decoys_pooled"].iloc[0])
        out.append(f"{kind} ({n} models): {', '.join(said)}; {decoys} decoys pooled")
    return out
