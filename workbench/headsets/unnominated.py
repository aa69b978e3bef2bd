"""Heads that patching shows to matter and that no score nominates."""

import pandas as pd

from workbench.headsets.pooling import HeadId, head_id
from workbench.headsets.thresholds import Thresholds
from workbench.phases import PHASES


def unnominated(
    scores: pd.DataFrame, patching: pd.DataFrame, thresholds: Thresholds
) -> dict[str, list[HeadId]]:
    """Per pool, patched heads whose effect would let them in but whose score does not.

    Effects are the pool's chief measure over the span, on the selection half; the largest first.
    """
    found = {}
    span = patching.loc[(patching["positions"] == "span") & (patching["half"] == "choose")]
    for pool, phase in PHASES.items():
        passed = scores.loc[scores[phase.q] <= thresholds.false_discovery_rate]
        named = {head_id(row) for row in passed.to_dict("records")}
        large = span.loc[
            (span["measure"] == phase.chief) & (span["low"] > thresholds.min_restore_low)
        ]
        ranked = large.sort_values("effect", ascending=False, kind="stable").to_dict("records")
        found[pool] = [head_id(row) for row in ranked if head_id(row) not in named]
    return found
