import json
import math

import pandas as pd
import pytest
from fixtures.headsets import METHOD, head_record, model_record
from fixtures.tables import HEADS, LAYERS, patch, patched, score_table

from workbench.errors import InputError
from workbench.headsets.building import build_headset
from workbench.headsets.headset import describe_prompts
from workbench.headsets.pooling import pool_heads
from workbench.headsets.thresholds import Thresholds

METHOD_WITH_THRESHOLD = METHOD | {"thresholds": {"min_clean_focus": 0.5}}


def pool_row(name, draw, effect, low, high, n, positions="span"):
    return {
        "pool": "coarse",
        "set": name,
        "draw": draw,
        "positions": positions,
        "measure": "coarse_restore",
        "effect": effect,
        "low": low,
        "high": high,
        "n": n,
        "heads": "1-3" if name == "pool" else f"1-{draw}",
    }


POOL_ROWS = [
    pool_row("pool", 0, 0.9, 0.8, 1.0, 30),
    pool_row("pool", 0, 0.1, 0.0, 0.2, 30, positions="decision"),
    pool_row("random", 0, 0.0, -0.1, 0.1, 30),
    pool_row("random", 1, 0.2, 0.1, 0.4, 28),
    pool_row("norm", 0, math.nan, math.nan, math.nan, 0),
]


def built(pool_rows=POOL_ROWS, scores=None):
    q = {(1, 3): (0.01, 1.0)}
    rows = [
        *patched((1, 3), restore=0.5),
        patch((1, 3), "coarse_restore", 0.7, 0.6, half="verify", n=30),
        patch((1, 3), "refine_reduce", math.nan, math.nan, half="verify", n=0),
        patch((1, 3), "coarse_restore", 0.1, 0.0, half="verify", positions="decision"),
        patch((2, 2), "coarse_restore", 0.2, 0.1, half="verify"),
    ]
    scores = score_table(q) if scores is None else scores
    return build_headset(
        pooled=pool_heads(score_table(q), pd.DataFrame(rows)),
        scores=scores,
        patching=pd.DataFrame(rows),
        pools=None if pool_rows is None else pd.DataFrame(pool_rows),
        model=model_record(LAYERS, HEADS, 2),
        prompts=describe_prompts("codes", "b" * 64, ["p0"], ["p1"], 0),
        tokenizer={"sha256": None, "template": None, "special_tokens": {}},
        method=METHOD_WITH_THRESHOLD,
        thresholds=Thresholds(read_out_share=0.7),
    )


def test_head_set_reports_the_verifying_half_over_the_span():
    (head,) = json.loads(built().model_dump_json())["heads"]
    scores = {"coarse": 0.1, "coarse_q": 0.01, "refine": 0.1 * 3, "refine_q": 1.0}
    scores |= {"refine_direct": None, "coarse_attribution": 0.5}
    effects = {
        "coarse_restore": {"effect": 0.7, "low": 0.6, "high": 0.7 + 0.1, "n": 30},
        "refine_reduce": {"effect": None, "low": None, "high": None, "n": 0},
    }
    expected = head_record(1, 3, "coarse", 1.0, scores=scores, effects=effects)
    assert head == expected | {"chosen_share": None, "passed_share": None}


def test_head_set_keeps_thresholds_of_pooling_and_of_the_caller():
    assert built().method.thresholds == {
        "min_clean_focus": 0.5,
        "false_discovery_rate": 0.05,
        "min_restore_low": 0.05,
        "read_out_share": 0.7,
        "alike": 0.65,
        "swapped": 0.4,
        "passed_share": 0.8,
        "min_strict_low": 0.1,
    }
    assert built().method.rules == {"coarse": "margins"}


def test_controls_are_summarised_over_draws():
    (pool,) = json.loads(built().model_dump_json())["pools"]
    assert pool["heads"] == ["1-3"]
    assert pool["effects"] == {"coarse_restore": {"effect": 0.9, "low": 0.8, "high": 1.0, "n": 30}}
    assert pool["controls"] == {
        "random": {
            "coarse_restore": {"effect": 0.1, "low": -0.1, "high": 0.4, "n": 28, "draws": 2}
        },
        "norm": {"coarse_restore": {"effect": None, "low": None, "high": None, "n": 0, "draws": 1}},
    }
    assert built(pool_rows=None).pools == ()


def test_tables_that_do_not_belong_together_are_refused():
    with pytest.raises(InputError, match="no row for pooled head 1-3"):
        built(scores=score_table().query("layer != 1"))
    foreign = [{**row, "heads": "2-2"} for row in POOL_ROWS]
    with pytest.raises(InputError, match="lists 2-2, but 'heads' puts 1-3 into 'coarse'"):
        built(pool_rows=foreign)
    with pytest.raises(InputError, match="pool 'coarse' has 0 lists of heads with set 'pool'"):
        built(pool_rows=POOL_ROWS[2:])
