"""From tables to pools: which heads carry which phase, which the label, and which only pass it on.

1. `pool_heads` applies the rule to the selection half of the prompts. A score only nominates: what
   the head does decides on its pool. All effects are margins, and an effect is there when its
   interval lies above a limit. What a head adds to a set of others counts as well as what it does
   alone, above a higher limit: heads that can replace one another do nothing alone.

   *suppressor*  its clean value lowers one of the margins by more than it raises the other
   *carrier*     restores the coarse margin by about as much as it reduces the near-miss margin, and
                 swaps the label: one match of a label does the work of both phases
   *refine*      reduces the near-miss margin by more than it restores the coarse one
   *coarse*      restores the coarse margin, and a sibling's value does not restore less: it carries
                 the cluster
   *mover*       one of the last three whose effect is there where it attends as in the corrupted
                 run and only what other heads wrote is the clean run's: it passes on

2. `combine_tasks` pools over tasks. `building` makes a head set of either.
"""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

import pandas as pd

from workbench.errors import InputError, require
from workbench.heads import head_name
from workbench.headsets.thresholds import Thresholds
from workbench.measures import DIFFERENCES, PASSED, margin_name
from workbench.phases import PHASES
from workbench.roles import HEAD_POOLS, HeadPool

RULE = "margins"
"""Name of the rule in a head set."""
MARGINS = {name: margin_name(phase.chief) for name, phase in PHASES.items()}
"""Phase → the margin measure that proves a head."""
CLUSTER, SWAP = "cluster_restore_margin", "label_swap_margin"
RULE_MEASURES = (*MARGINS.values(), CLUSTER, SWAP)
"""Measures that the rule reads, beside their differences."""
MORE_REFINE, AS_A_SIBLING = "reduce_minus_restore_margin", "cluster_minus_restore_margin"
RULE_DIFFERENCES = tuple(
    name for name, pair in DIFFERENCES.items() if set(pair) <= set(RULE_MEASURES)
)

COLUMNS = ["layer", "head", "pool", "read_out", "decision_share", "passed_share", "weight"]
KEYS = ["layer", "head"]
DTYPES = {
    "layer": "int64",
    "head": "int64",
    "pool": "str",
    "read_out": "bool",
    "decision_share": "float64",
    "passed_share": "float64",
    "weight": "float64",
    "tasks": "int64",
}

HeadId = tuple[int, int]
"""Layer and head, from 0."""
Measured = dict[str, dict[Any, Any]]
"""Rows of a patching table for one head, by measure."""


def pool_heads(
    scores: pd.DataFrame,
    patching: pd.DataFrame,
    thresholds: Thresholds | None = None,
    passing: pd.DataFrame | None = None,
    sets: pd.DataFrame | None = None,
) -> pd.DataFrame:
    """One row per pooled head: `COLUMNS`.

    Only rows with half `choose` are used, so that effects of the other half stay an honest check.
    `passing` holds the measures of `PASSING`, in rows like those of `patching`; without it, or
    where it lacks a head, no head is called a mover. With `sets` (of `set_effects`), a head that no
    effect of its own lets in may enter by what it adds to a set, though not as a suppressor.
    `weight` is the size of the head's span effect, or of what it adds, over the sum of its pool:
    the larger of the two margins where the pool belongs to no phase.
    `decision_share` and `passed_share` are what the same effect is at the decision alone, and by
    passing on, over the whole of it; NaN where that is unknown.

    Raises:
        InputError: a table lacks a column, a head has two rows for one measure, or the patching
            table lacks the choose half over the span or a margin that the rule needs.
    """
    thresholds = thresholds or Thresholds()
    require(scores, "scores", KEYS)
    columns = [*KEYS, "positions", "measure", "half", "effect", "low", "high"]
    require(patching, "patching", columns)
    span = rows_of(patching, "choose", "span")
    at_decision = rows_of(patching, "choose", "decision")
    if len(patching) and not span:
        raise InputError("patching table has no row with half 'choose' and positions 'span'")
    measures = {measure for rows in span.values() for measure in rows}
    missing = [name for name in (*RULE_MEASURES, *RULE_DIFFERENCES) if name not in measures]
    if span and missing:
        raise InputError(
            f"patching table has no measure {missing[0]!r}, which pooling needs; patch the heads "
            "again with this version"
        )
    if passing is not None and len(passing):
        require(passing, "passing", columns)
        for key, rows in rows_of(passing, "choose", "span").items():
            span.setdefault(key, {}).update(rows)
    added = {} if sets is None else _added(sets)
    pooled = []
    for row in sorted(scores.to_dict("records"), key=head_id):
        key = head_id(row)
        pool = _pool_of(span.get(key, {}), thresholds.min_restore_low, thresholds)
        if pool is not None:
            shares = _describe(pool, span[key], at_decision.get(key, {}), thresholds)
            pooled.append({"layer": key[0], "head": key[1], **shares})
            continue
        for rows in added.get(key, ()):
            pool = _pool_of(rows, thresholds.min_strict_low, thresholds)
            if pool is not None and pool != "suppressor":
                shares = _describe(pool, rows, {}, thresholds)
                shares["passed_share"] = _passed_alone(span.get(key, {}))
                if shares["passed_share"] >= thresholds.passed_share:
                    shares["pool"] = "mover"
                pooled.append({"layer": key[0], "head": key[1], **shares})
                break
    return frame_of(pooled)


def _added(sets: pd.DataFrame) -> dict[HeadId, list[Measured]]:
    """What a head adds to each set, by measure, the set first to which it adds most."""
    require(sets, "sets", [*KEYS, "set", "others", "measure", "effect", "low", "high"])
    found: dict[HeadId, dict[str, Measured]] = {}
    for row in sets.to_dict("records"):
        if row["layer"] >= 0:
            of_head = found.setdefault(head_id(row), {})
            of_head.setdefault(row["others"], {})[row["measure"]] = row

    def most(rows: Measured) -> float:
        return max(_value(rows, measure, "low") for measure in MARGINS.values())

    return {key: sorted(of.values(), key=most, reverse=True) for key, of in found.items()}


def explain_sets(sets: pd.DataFrame | None, pooled: pd.DataFrame) -> list[str]:
    """What all nominated heads do together, and which phase no head explains, in plain words."""
    if sets is None or sets.empty:
        return []
    whole = sets[sets["set"] == "whole"]
    effects = dict(zip(whole["measure"], whole["effect"], strict=True))
    together = {name: float(effects.get(measure, math.nan)) for name, measure in MARGINS.items()}
    n = len(sets.loc[sets["layer"] >= 0, KEYS].drop_duplicates())
    lines = [
        f"all nominated heads together give back {together['coarse']:.2f} of the coarse margin and "
        f"{together['refine']:.2f} of the near-miss margin"
        + (f"; {n} heads were asked what they add to others" if n else "")
    ]
    explained = set(pooled["pool"]) & {"refine", "carrier", "mover"}
    if not explained:
        lines.append(
            "heads do not explain the Confusion: none takes it away, alone or beside others"
        )
    return lines


def beats_null(scores: pd.DataFrame, thresholds: Thresholds) -> pd.Series:
    """Per row of a scores table, whether some score of the head beats its null."""
    return (
        scores[[phase.q for phase in PHASES.values()]]
        .min(axis=1)
        .le(thresholds.false_discovery_rate)
    )


def head_id(row: Mapping[Any, Any]) -> HeadId:
    """Layer and head of a row of a table."""
    return int(row["layer"]), int(row["head"])


def rows_of(patching: pd.DataFrame, half: str, positions: str) -> dict[HeadId, Measured]:
    """Rows of a patching table by head and measure, of one half and choice of positions.

    Raises:
        InputError: a head has two rows for one measure.
    """
    rows: dict[HeadId, Measured] = {}
    for row in patching.to_dict("records"):
        if row["half"] != half or row["positions"] != positions:
            continue
        of_head = rows.setdefault(head_id(row), {})
        if row["measure"] in of_head:
            raise InputError(
                f"patching table: head {head_name(*head_id(row))} has two rows of "
                f"{row['measure']!r} with half {half!r} and positions {positions!r}"
            )
        of_head[row["measure"]] = row
    return rows


def _value(rows: Measured, measure: str, column: str) -> float:
    """NaN where the measure is missing: no comparison with NaN lets a head in."""
    return float(rows[measure][column]) if measure in rows else math.nan


def _pool_of(span: Measured, limit: float, thresholds: Thresholds) -> HeadPool | None:
    coarse, refine = MARGINS.values()

    def does(measure: str) -> bool:
        return _value(span, measure, "low") > limit

    strict = thresholds.min_strict_low
    sizes = [_value(span, measure, "effect") for measure in (coarse, refine)]
    hurts = any(_value(span, measure, "high") < -strict for measure in (coarse, refine))
    helps = does(coarse) or does(refine)
    if hurts and (not helps or -min(sizes) > max(sizes)):
        return "suppressor"
    if does(coarse) and does(SWAP):
        swap = _value(span, SWAP, "effect")
        if min(sizes) >= thresholds.alike * max(sizes) and swap >= thresholds.swapped * max(sizes):
            return "carrier"
    if does(refine) and _value(span, MORE_REFINE, "low") > 0:
        return "refine"
    # A head that carries both equally, and no label, is coarse.
    if does(coarse) and _value(span, AS_A_SIBLING, "high") >= -limit:
        return "coarse"
    return None


def _describe(
    pool: HeadPool, span: Measured, at_decision: Measured, thresholds: Thresholds
) -> dict[str, Any]:
    """The head's columns; a head that only passes on becomes a mover here."""
    effects = {name: _value(span, measure, "effect") for name, measure in MARGINS.items()}
    phase = pool if pool in effects else max(effects, key=lambda name: abs(effects[name]))
    effect = effects[phase]
    share = _value(at_decision, MARGINS[phase], "effect") / effect
    passed = _value(span, PASSED[phase], "effect") / effect
    if pool != "suppressor" and passed >= thresholds.passed_share:
        pool = "mover"
    return {
        "pool": pool,
        "read_out": share >= thresholds.read_out_share,
        "decision_share": share,
        "passed_share": passed,
        "weight": abs(effect),
    }


def _passed_alone(span: Measured) -> float:
    """Share that a head passes on of its larger margin by itself; NaN where it has none."""
    name = max(MARGINS, key=lambda one: _value(span, MARGINS[one], "low"))
    if not _value(span, MARGINS[name], "low") > 0:
        return math.nan
    return _value(span, PASSED[name], "effect") / _value(span, MARGINS[name], "effect")


def frame_of(pooled: Sequence[dict[str, Any]], columns: Sequence[str] = COLUMNS) -> pd.DataFrame:
    """Rows as a frame, of the same dtypes when empty; effects become shares of their pool's sum.

    No weight is 0 here: an effect lies above a limit, a score above 0.
    """
    total: Counter[str] = Counter()
    for row in pooled:
        total[row["pool"]] += row["weight"]
    rows = [{**row, "weight": row["weight"] / total[row["pool"]]} for row in pooled]
    table = {name: pd.Series([row[name] for row in rows], dtype=DTYPES[name]) for name in columns}
    return pd.DataFrame(table)


def combine_tasks(per_task: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """Pool over tasks: the frames of `pool_heads`, one a task, become one with a `tasks` column.

    `tasks` counts the tasks in which the head qualified for any pool. Its pool is the one of most
    of them, on ties the first of `HEAD_POOLS`. From the tasks of that pool come: `decision_share`
    and `passed_share` (means), `read_out` (more than half of them) and `weight` (sum, normalised
    again, so that a head of few tasks weighs less).

    Raises:
        InputError: no frames.
    """
    if not per_task:
        raise InputError("pooling over tasks needs the pools of at least one task")
    of_head: dict[HeadId, list[dict[Any, Any]]] = {}
    for frame in per_task:
        for row in frame.to_dict("records"):
            of_head.setdefault(head_id(row), []).append(row)
    combined = [_combine(key, rows) for key, rows in sorted(of_head.items())]
    return frame_of(combined, [*COLUMNS, "tasks"])


def _combine(key: HeadId, rows: Sequence[Mapping[Any, Any]]) -> dict[str, Any]:
    votes = Counter(row["pool"] for row in rows)
    pool = max(HEAD_POOLS, key=lambda name: votes[name])
    own = [row for row in rows if row["pool"] == pool]

    def mean(column: str) -> float:
        known = [float(row[column]) for row in own if number(row.get(column)) is not None]
        return fmean(known) if known else math.nan

    return {
        "layer": key[0],
        "head": key[1],
        "pool": pool,
        "read_out": sum(bool(row["read_out"]) for row in own) * 2 > len(own),
        "decision_share": mean("decision_share"),
        "passed_share": mean("passed_share"),
        "weight": sum(row["weight"] for row in own),
        "tasks": len(rows),
    }


def number(value: Any) -> float | None:
    """A number as the file holds it: None where it is not finite."""
    return float(value) if pd.notna(value) and math.isfinite(value) else None
