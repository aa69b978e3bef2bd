import math

import pandas as pd
import pytest
from fixtures.tables import patch, patched, score_table

from workbench.headsets.candidates import NOTHING, explain_empty, nearest_heads, task_level
from workbench.headsets.pooling import pool_heads
from workbench.headsets.thresholds import Thresholds
from workbench.prompts.prompt import DecisionEvent, Option, Role

LEVEL = {"readout": 0.5, "chance": 0.4, "valid": 12, "events": 20}
LEVELS = {"coarse": LEVEL, "refine": LEVEL}


def nearest(rows, **thresholds):
    limits = Thresholds(**thresholds)
    table = pd.DataFrame(rows)
    pooled = pool_heads(score_table(), table, limits)
    return nearest_heads(table, pooled, LEVELS, 16, limits)


@pytest.mark.parametrize(
    ("pool", "effects", "criterion", "value", "limit"),
    [
        ("coarse", {"restore": 0.03}, "size", 0.03, 0.05),
        ("refine", {"reduce": 0.03}, "size", 0.03, 0.05),
        ("coarse", {"restore": 0.5, "sibling": -0.3}, "sibling", -0.1, -0.05),
        ("refine", {"restore": 0.5, "reduce": 0.4, "difference": -0.2}, "beyond coarse", -0.2, 0),
        ("coarse", {"restore": 0.5, "reduce": 0.5, "swap": 0.3}, "carrier", 0.4, 0.24),
        ("coarse", {"restore": 0.5, "reduce": 0.8, "difference": 0.2}, "other phase", 0.2, 0),
        ("coarse", {"reduce": -0.5, "restore": 0.1}, "hurts", -0.3, -0.1),
        ("coarse", {"restore": math.nan}, "interval", 20, 15),
    ],
)
def test_what_a_head_missed_and_by_how_much(pool, effects, criterion, value, limit):
    rows = [*patched((1, 0), **effects), *patched((2, 0), restore=-0.2, reduce=-0.2)]
    if math.isnan(effects.get("restore", 0.0)):
        rows = [patch((1, 0), row["measure"], 0.2, math.nan) for row in patched((1, 0))]
    table = nearest(rows)
    first = table[table["pool"] == pool].iloc[0]
    assert (first["layer"], first["head"], first["criterion"]) == (1, 0, criterion)
    assert first["value"] == pytest.approx(value) and first["limit"] == pytest.approx(limit)
    assert first["missing"] == pytest.approx(abs(value - limit))
    line = explain_empty(table, pool)[1]
    assert line.startswith("1-0 comes near") and ("{" not in line)


def test_three_heads_are_named_the_nearest_first_and_flags_that_may_help():
    lows = {(1, 0): 0.01, (1, 1): 0.04, (2, 0): -0.1, (2, 1): 0.02}
    table = nearest([row for at, low in lows.items() for row in patched(at, restore=low)])
    coarse = table[table["pool"] == "coarse"]
    assert list(zip(coarse["layer"], coarse["head"], strict=True)) == [(1, 1), (2, 1), (1, 0)]
    first, *_, last = explain_empty(table, "coarse")
    assert "12 of 20 events are valid pairs" in first and "by guessing it would be 0.40" in first
    for flag in ("--n,", "--min-restore-low", "--heads all", "--false-discovery-rate"):
        assert flag in last
    assert "the 12 heads that were not patched" in last


def test_pools_with_heads_need_no_reason():
    table = nearest([*patched((1, 0), restore=0.5), *patched((2, 0), reduce=0.5, difference=0.3)])
    assert table.empty and explain_empty(table, "coarse") == []


def test_without_a_valid_pair_nothing_came_near():
    table = nearest_heads(pd.DataFrame(), pool_heads(score_table(), EMPTY), LEVELS, 16)
    assert table["criterion"].tolist() == [NOTHING] * 2 and table["layer"].tolist() == [-1] * 2
    said = explain_empty(table, "refine")
    assert "no event of the selection half is a valid pair" in said[1]
    assert said[2] == "what may help: more prompts (--n, or a longer prompt file)"


def test_more_heads_are_no_help_where_no_head_can_have_an_interval():
    rows = [patch((1, 0), row["measure"], 0.2, math.nan) for row in patched((1, 0))]
    helps = []
    for n in (14, 15):
        table = nearest([row | {"n": n} for row in rows])
        helps.append(explain_empty(table, "coarse")[-1])
    assert helps[0] == "what may help: more prompts (--n, or a longer prompt file)"
    assert "--heads all" in helps[1]


EMPTY = pd.DataFrame(patched((1, 0))).iloc[:0]


def test_chance_is_the_share_of_options_that_count():
    roles: list[Role] = ["gold", "near", "near", "far", "far", "far", "other"]
    options = tuple(Option(f"o{i}", i, role, (1, 2)) for i, role in enumerate(roles))
    event = DecisionEvent("p", 0, (1, 2, 9), (3, 2, 9), (4, 2, 9), 2, (0, 1), options)
    rows = [
        {"variant": variant, "focus": 0.75, "confusion": 0.1, "counts_far": True}
        for variant in ("clean", "far", "near")
    ]
    levels = task_level([event], pd.DataFrame(rows).assign(counts_near=False))
    assert levels["coarse"] == {"readout": 0.75, "chance": 0.5, "valid": 1, "events": 1}
    assert levels["refine"]["chance"] == pytest.approx(1 / 3)
    assert levels["refine"]["readout"] == pytest.approx(0.9) and levels["refine"]["valid"] == 0
