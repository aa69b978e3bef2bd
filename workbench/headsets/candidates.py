"""Why a pool is empty: the heads that came nearest, and what of the rule they missed.

For each phase whose pool is empty, the three heads whose margin lies highest are asked what the
rule of `pooling` asks, in its order. The first answer that is no is what they missed: its value,
the limit, and the distance. The readout beside chance says whether the model does the task at all.
"""

import math
from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

import pandas as pd

from workbench.heads import head_name
from workbench.headsets.pooling import AS_A_SIBLING, MARGINS, MORE_REFINE, SWAP, Measured, rows_of
from workbench.headsets.thresholds import Thresholds
from workbench.measures import MEASURES
from workbench.phases import MIN_PROMPTS, PHASES
from workbench.prompts.prompt import DecisionEvent

N_NEAREST = 3
COLUMNS = [
    *("pool", "layer", "head", "criterion", "value", "limit", "missing"),
    *("effect", "low", "high", "n", "readout", "chance", "valid", "events", "unpatched"),
]
NOTHING = "nothing patched"
WORDS = {
    "interval": "no interval, since fewer than {limit:.0f} prompts of the selection half are valid "
    "pairs ({value:.0f} events), or the counterfactual hardly moves the margin",
    "size": "its interval starts at {value:.2f}, {missing:.2f} below the limit of {limit:.2f}",
    "beyond coarse": "it restores the coarse margin, too: by how much more it reduces the "
    "near-miss one starts at {value:.2f}, the limit is {limit:.2f}",
    "sibling": "a sibling's value restores less than its own: the difference ends at {value:.2f}, "
    "{missing:.2f} below the limit of {limit:.2f}",
    "hurts": "it lowers the other margin, down to {value:.2f} where {limit:.2f} is the limit "
    "(--min-strict-low): it is a suppressor",
    "carrier": "it swaps the label by {value:.2f}, the limit is {limit:.2f} (--swapped, --alike): "
    "it is a label carrier, which does the work of both phases",
    "mover": "it has {value:.2f} of its effect by passing on, the limit is {limit:.2f} "
    "(--passed-share): it is a mover",
    "other phase": "it reduces the near-miss margin by {value:.2f} more at the least, the limit is "
    "{limit:.2f}: it is in the refine pool",
}
"""Criterion → what a head has there, beside what it needs."""
MORE = "more prompts (--n, or a longer prompt file)"
HELP = {
    "interval": (MORE,),
    "size": (MORE, "a lower --min-restore-low"),
    "beyond coarse": (MORE,),
    "sibling": (MORE, "a higher --min-restore-low"),
    NOTHING: (MORE,),
}
"""Criterion → what would help."""


def nearest_heads(
    patching: pd.DataFrame,
    pooled: pd.DataFrame,
    levels: Mapping[str, Mapping[str, float]],
    n_heads: int,
    thresholds: Thresholds | None = None,
) -> pd.DataFrame:
    """The nearest heads of every phase whose pool is empty; effects are of the selection half.

    Args:
        patching: the patching table.
        pooled: frame of `pool_heads`.
        levels: phase → what `task_level` says.
        n_heads: heads of the model.
        thresholds: those of `pool_heads`.

    Returns:
        One row a head, the nearest first: `COLUMNS`. `criterion` is what was missed (a key of
        `WORDS`), `value` what the head has, `limit` what it needs, `missing` the distance; effect,
        low, high and n are those of the phase's margin; `unpatched` counts heads. Where no head has
        an effect, one row with layer and head -1 says so.
    """
    limits = thresholds or Thresholds()
    in_pool = {(row["layer"], row["head"]): row for row in pooled.to_dict("records")}
    span = rows_of(patching, "choose", "span") if len(patching) else {}
    rows = []
    for pool, measure in MARGINS.items():
        if pool in set(pooled["pool"]):
            continue
        known = [key for key, of in span.items() if not math.isnan(_value(of, measure, "effect"))]
        known.sort(key=lambda key: (-_nearness(span[key], measure), key))
        for key in known[:N_NEAREST]:
            criterion, value, limit = _missed(pool, span[key], in_pool.get(key), limits)
            row = {"layer": key[0], "head": key[1], "criterion": criterion, "value": value}
            row |= {name: span[key][measure][name] for name in ("effect", "low", "high", "n")}
            rows.append(row | {"pool": pool, "limit": limit, "missing": abs(value - limit)})
            rows[-1] |= levels[pool]
        if not known:
            nobody = {"pool": pool, "layer": -1, "head": -1, "criterion": NOTHING, "n": 0}
            rows.append(nobody | dict(levels[pool]))
    table = pd.DataFrame(rows, columns=COLUMNS).assign(unpatched=n_heads - len(span))
    whole = dict.fromkeys(("layer", "head", "n", "valid", "events", "unpatched"), "int64")
    text = dict.fromkeys(("pool", "criterion"), "str")
    return table.astype(dict.fromkeys(COLUMNS, "float64") | whole | text)


def task_level(
    events: Sequence[DecisionEvent], baseline: pd.DataFrame
) -> dict[str, dict[str, float]]:
    """Phase → how well the model does on clean prompts, and how well it would by guessing.

    `readout` is its mean Focus, or 1 − Confusion, over all events; `chance` is the share of gold
    and near among the options, or of gold among these; `valid` counts valid pairs of `events`.
    """
    clean = baseline.loc[baseline["variant"] == "clean"]
    near = [len(event.with_role("near")) for event in events]
    far = [len(event.with_role("far")) for event in events]
    by_chance = {
        "coarse": [(1 + n) / (1 + n + f) for n, f in zip(near, far, strict=True)],
        "refine": [1 / (1 + n) for n in near],
    }
    return {
        name: {
            "readout": float(phase.good(clean[phase.readout].mean())),
            "chance": fmean(by_chance[name]),
            "valid": int(clean[phase.valid].sum()),
            "events": len(clean),
        }
        for name, phase in PHASES.items()
    }


def _nearness(of: Measured, measure: str) -> float:
    """Low end of the interval; heads without any come behind all others, by their effect."""
    low = _value(of, measure, "low")
    return _value(of, measure, "effect") - 1e6 if math.isnan(low) else low


def _value(of: Measured, measure: str, column: str) -> float:
    return float(of[measure][column]) if measure in of else math.nan


def _missed(
    pool: str, of: Measured, pooled: Mapping[Any, Any] | None, limits: Thresholds
) -> tuple[str, float, float]:
    """What of the rule a head missed, what it has there, and what it needs."""
    measure = MARGINS[pool]
    low = _value(of, measure, "low")
    if math.isnan(low):
        return "interval", _value(of, measure, "n"), float(MIN_PROMPTS)
    where = None if pooled is None else pooled["pool"]
    if where == "suppressor":
        worst = min(_value(of, name, "high") for name in MARGINS.values())
        return "hurts", worst, -limits.min_strict_low
    if not low > limits.min_restore_low:
        return "size", low, limits.min_restore_low
    if where == "carrier":
        largest = max(_value(of, name, "effect") for name in MARGINS.values())
        return "carrier", _value(of, SWAP, "effect"), limits.swapped * largest
    if pooled is not None and where == "mover":
        return "mover", float(pooled["passed_share"]), limits.passed_share
    more = _value(of, MORE_REFINE, "low")
    if pool == "refine":
        return "beyond coarse", more, 0.0
    if where == "refine":
        return "other phase", more, 0.0
    return "sibling", _value(of, AS_A_SIBLING, "high"), -limits.min_restore_low


def explain_empty(candidates: pd.DataFrame, pool: str) -> list[str]:
    """Why a phase's pool is empty, in plain words; nothing where it has heads."""
    rows = candidates.loc[candidates["pool"] == pool].to_dict("records")
    if not rows:
        return []
    phase, about = PHASES[pool], rows[0]
    lines = [
        f"{about['valid']} of {about['events']} events are valid pairs; {phase.good_title} on "
        f"clean prompts is {about['readout']:.2f}, by guessing it would be {about['chance']:.2f}"
    ]
    heads = [row for row in rows if row["criterion"] != NOTHING]
    title = MEASURES[MARGINS[pool]].title
    for row in heads:
        why = WORDS[row["criterion"]].format(**row)
        name = head_name(row["layer"], row["head"])
        lines.append(f"{name} comes near ({title} {row['effect']:.2f}): {why}")
    if not heads:
        lines.append("no head has an effect, since no event of the selection half is a valid pair")
    helps = dict.fromkeys(word for row in rows for word in HELP.get(row["criterion"], ()))
    # Without enough valid pairs no head has an interval, however many are patched.
    few = all(row["criterion"] == "interval" and row["n"] < MIN_PROMPTS for row in heads)
    heads = [] if few else heads
    if heads and about["unpatched"]:
        helps[f"the {about['unpatched']} heads that were not patched (--heads all)"] = None
    if heads:
        helps["more heads patched in sets (a higher --false-discovery-rate)"] = None
    return [*lines, f"what may help: {'; '.join(helps)}"]
