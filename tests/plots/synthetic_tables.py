"""Made-up tables of an 8×8-head model with known effects, for the tests of figures and report."""

import math
from typing import Any

import numpy as np
import pandas as pd

from workbench.plots.style import MEASURES, SCORES

N_LAYERS = N_HEADS = 8
EFFECT = {(4, 3): {"coarse": 0.93}, (5, 1): {"refine": 0.41}, (7, 2): {"refine": 0.30}}
POOLED = {(4, 3): "coarse", (5, 1): "refine", (7, 2): "refine read-out"}


def make_scores() -> pd.DataFrame:
    generator = np.random.default_rng(0)
    rows = []
    for layer in range(N_LAYERS):
        for head in range(N_HEADS):
            row: dict[str, Any] = {"layer": layer, "head": head}
            for name in SCORES:
                phase = "coarse" if name.startswith("coarse") else "refine"
                mean = EFFECT.get((layer, head), {}).get(phase, 0.0) + generator.normal(0, 0.02)
                row |= {name: mean, f"{name}_low": mean - 0.05, f"{name}_high": mean + 0.05}
                row[f"{name}_q"] = 0.004 if mean > 0.2 else 0.8
            rows.append(row | {"coarse_route": "evidence", "coarse_evidence": 0.1, "n": 16})
    return pd.DataFrame(rows)


def make_patching() -> pd.DataFrame:
    """All heads at the decision token; over the span only those with an effect, and one control."""
    generator = np.random.default_rng(1)
    rows = []
    for layer in range(N_LAYERS):
        for head in range(N_HEADS):
            nominated = (layer, head) in EFFECT
            places = ["decision", "span"] if nominated or (layer, head) == (2, 6) else ["decision"]
            for positions in places:
                group = "nominated" if nominated else "control" if len(places) == 2 else "all"
                for measure in MEASURES:
                    effect = EFFECT.get((layer, head), {}).get(measure.split("_")[0], 0.0)
                    share = 1.0 if positions == "span" or layer == 7 else 0.1
                    for half in ("choose", "verify"):
                        value = (
                            effect * share + generator.normal(0, 0.01) - 0.03 * (half == "verify")
                        )
                        rows.append(
                            {"layer": layer, "head": head, "positions": positions}
                            | {"measure": measure, "half": half, "effect": value, "group": group}
                            | {"low": value - 0.06, "high": value + 0.05, "n": 7, "n_excluded": 1}
                        )
    return pd.DataFrame(rows)


def make_baseline() -> pd.DataFrame:
    generator = np.random.default_rng(2)
    mean = {"clean": (0.95, 0.06), "far": (0.08, 0.3), "near": (0.93, 0.85)}
    rows = []
    for prompt in range(16):
        for variant, (focus, confusion) in mean.items():
            focus, confusion = np.clip(generator.normal((focus, confusion), 0.05), 0, 1)
            if prompt == 3 and variant == "clean":
                focus = 0.2
            rows.append(
                {"id": f"p{prompt}", "event": 0, "half": "choose" if prompt < 8 else "verify"}
                | {"variant": variant, "focus": focus, "confusion": confusion}
                | {"p_gold": focus * (1 - confusion)}
                | {"counts_far": prompt != 3, "counts_near": prompt not in (3, 11)}
            )
    return pd.DataFrame(rows)


def make_pools() -> pd.DataFrame:
    generator = np.random.default_rng(3)
    rows = []
    for pool, heads in {"coarse": "4-3", "refine": "5-1 7-2"}.items():
        for positions in ("decision", "span"):
            for kind, draw in [("pool", 0), *(("random", i) for i in range(5)), ("norm", 0)]:
                for measure in MEASURES:
                    own = kind == "pool" and measure.startswith(pool)
                    value = (0.9 if positions == "span" else 0.25) * own + generator.normal(0, 0.02)
                    rows.append(
                        {"pool": pool, "set": kind, "draw": draw, "positions": positions}
                        | {"measure": measure, "effect": value, "low": value - 0.05}
                        | {"high": value + 0.05, "n": 7, "heads": heads if own else "0-0"}
                    )
    return pd.DataFrame(rows)


def make_trajectory() -> pd.DataFrame:
    rows = []
    for variant in ("clean", "far", "near"):
        for step in range(N_LAYERS + 1):
            focus = 0.25 + 0.7 / (1 + math.exp(-3 * (step - 4.5))) * (variant != "far")
            wrong = 1.0 if variant == "near" else -1.0
            confusion = 0.75 + wrong * 0.15 / (1 + math.exp(-3 * (step - 6)))
            rows.append(
                {"kind": "layer", "step": step, "variant": variant, "n": 16}
                | {"focus": focus, "focus_low": focus - 0.05, "focus_high": focus + 0.05}
                | {"confusion": confusion, "confusion_low": confusion - 0.05}
                | {"confusion_high": confusion + 0.05}
            )
    return pd.DataFrame(rows)
