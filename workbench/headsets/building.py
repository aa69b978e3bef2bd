"""Pools, scores and the effects on the held-out half, joined into a checked head set."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import pandas as pd

from workbench.errors import InputError, require
from workbench.heads import head_name
from workbench.headsets.headset import SCHEMA, HeadSet, parse
from workbench.headsets.pooling import (
    COLUMNS,
    KEYS,
    RULE,
    HeadId,
    Measured,
    head_id,
    number,
    rows_of,
)
from workbench.headsets.records import HeadScores
from workbench.headsets.thresholds import Thresholds
from workbench.roles import HEAD_POOLS

SCORES = [*HeadScores.model_fields]


def build_headset(
    *,
    pooled: pd.DataFrame,
    scores: pd.DataFrame,
    patching: pd.DataFrame,
    pools: pd.DataFrame | None,
    model: Mapping[str, Any],
    prompts: Mapping[str, Any],
    tokenizer: Mapping[str, Any],
    method: Mapping[str, Any],
    thresholds: Thresholds | None = None,
    passing: pd.DataFrame | None = None,
    rules: Mapping[str, str] | None = None,
) -> HeadSet:
    """Join pools, scores, verified effects and provenance into a checked `HeadSet`.

    `pooled` is the frame of `pool_heads` or `combine_tasks`; effects of heads and pools are those
    of the held-out half over the span. `method` need not repeat `thresholds` and `positions`;
    thresholds that it does hold are kept beside those of pooling. Without a `pools` table the file
    has no joint effects. `rules` names the rule behind each pool, this module's unless given.
    Numbers that are not finite become null. Of several draws of a random control, the file gets the
    mean effect, the lowest low, the highest high and the smallest n.

    Raises:
        InputError: a table lacks a column or a pooled head, or the result breaks the format.
    """
    require(pooled, "pooled", [name for name in COLUMNS if name != "passed_share"])
    require(scores, "scores", [*KEYS, *SCORES])
    columns = ["positions", "measure", "effect", "low", "high", "n"]
    require(patching, "patching", [*KEYS, "half", *columns])
    if pools is not None:
        require(pools, "pools", ["pool", "set", "draw", "heads", *columns])
    verified = rows_of(patching, "verify", "span")
    if passing is not None and len(passing):
        for key, rows in rows_of(passing, "verify", "span").items():
            verified.setdefault(key, {}).update(rows)
    if rules is None:
        rules = {name: RULE for name in HEAD_POOLS if name in set(pooled["pool"])}
    limits = {**method.get("thresholds", {}), **asdict(thresholds or Thresholds())}
    document = {
        "schema": SCHEMA,
        "model": dict(model),
        "prompts": dict(prompts),
        "tokenizer": dict(tokenizer),
        "method": {**method, "thresholds": limits, "positions": "span", "rules": dict(rules)},
        "heads": _head_records(pooled, scores, verified, model),
        "pools": [] if pools is None else _pool_records(pools),
    }
    return parse(json.dumps(document))


def _head_records(
    pooled: pd.DataFrame,
    scores: pd.DataFrame,
    verified: dict[HeadId, Measured],
    model: Mapping[str, Any],
) -> list[dict[str, Any]]:
    scores_of = {head_id(row): row for row in scores.to_dict("records")}
    records = []
    for row in pooled.to_dict("records"):
        layer, head = head_id(row)
        if (layer, head) not in scores_of:
            raise InputError(f"scores table has no row for pooled head {head_name(layer, head)}")
        records.append(
            {
                "layer": layer,
                "head": head,
                "kv_head": head * model["n_kv_heads"] // model["n_heads"],
                "pool": row["pool"],
                "read_out": bool(row["read_out"]),
                "decision_share": number(row["decision_share"]),
                "passed_share": number(row.get("passed_share")),
                "weight": float(row["weight"]),
                "tasks": int(row.get("tasks", 1)),
                "scores": {name: number(scores_of[layer, head][name]) for name in SCORES},
                "effects": _effects(verified.get((layer, head), {}).values()),
            }
        )
    return records


def _pool_records(pools: pd.DataFrame) -> list[dict[str, Any]]:
    rows = [row for row in pools.to_dict("records") if row["positions"] == "span"]
    records = []
    for pool in sorted({row["pool"] for row in rows}):
        sets: dict[str, list[dict[Any, Any]]] = {"pool": []}
        for row in rows:
            if row["pool"] == pool:
                sets.setdefault(row["set"], []).append(row)
        joint = sets.pop("pool")
        lists = {row["heads"] for row in joint}
        if len(lists) != 1:
            raise InputError(
                f"pools table: pool {pool!r} has {len(lists)} lists of heads with set 'pool', "
                "must be one"
            )
        records.append(
            {
                "pool": pool,
                "heads": lists.pop().split(),
                "effects": _effects(joint),
                "controls": {name: _control_effects(drawn) for name, drawn in sets.items()},
            }
        )
    return records


def _effects(rows: Iterable[Mapping[Any, Any]]) -> dict[str, dict[str, Any]]:
    return {
        row["measure"]: {
            **{name: number(row[name]) for name in ("effect", "low", "high")},
            "n": int(row["n"]),
        }
        for row in rows
    }


def _control_effects(rows: Sequence[Mapping[Any, Any]]) -> dict[str, dict[str, Any]]:
    effects = {}
    for measure in dict.fromkeys(row["measure"] for row in rows):
        draws = [row for row in rows if row["measure"] == measure]
        # numpy's mean, min and max pass NaN on: a draw without a value leaves none for all.
        effects[measure] = {
            "effect": number(np.mean([row["effect"] for row in draws])),
            "low": number(np.min([row["low"] for row in draws])),
            "high": number(np.max([row["high"] for row in draws])),
            "n": int(min(row["n"] for row in draws)),
            "draws": len({row["draw"] for row in draws}),
        }
    return effects
