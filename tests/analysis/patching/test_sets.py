import pandas as pd
import pytest

from workbench.analysis.patching.sets import (
    LEFT_OUT,
    PAIR,
    REST,
    WHOLE,
    plan_sets,
    plan_whole,
    set_effects,
)
from workbench.errors import InputError

A, B, C = (0, 0), (0, 1), (1, 0)
N = 20


def tables(restored, plan=None):
    """Patching results and baseline; `restored` gives a set's share of the lost margin."""
    plan = plan or plan_sets([(A, B), (B, C)], [A, B, C], [A, B, C])
    columns = {"confusion": 0.0, "confusion_margin": 0.0, "focus": 0.0}
    rows, base = [], []
    for number in range(N):
        where = {"id": f"p{number}", "event": 0}
        # Lost margins differ from event to event, shares do not.
        lost = 4.0 + number % 3
        for variant, margin in (("clean", lost), ("far", 0.0), ("near", 0.0)):
            values = columns | {"focus_margin": margin}
            flags = {"counts_far": True, "counts_near": False, "half": "choose"}
            base.append(where | {"variant": variant} | values | flags)
        for target, heads in enumerate(plan.groups):
            values = columns | {"focus_margin": lost * restored(heads)}
            run = {"target": target, "positions": "span", "run": "far_with_clean"}
            rows.append(where | run | values)
    return plan, pd.DataFrame(rows), pd.DataFrame(base)


def added(table, measure="coarse_restore_margin"):
    rows = table[table["measure"] == measure]
    return {
        (row["set"], (row["layer"], row["head"]), row["others"]): row["effect"]
        for row in rows.to_dict("records")
    }


def test_sets_are_patched_once_and_asked_about_both_ways():
    plan = plan_sets([(A, B), (B, A), (B, C)], [C, B, A], [C, B, A])
    assert len(set(plan.groups)) == len(plan.groups)
    assert {frozenset(group) for group in plan.groups} == {
        *map(frozenset, ([A], [B], [C], [A, B], [B, C], [A, C], [A, B, C]))
    }
    asked = {(one.kind, one.head, one.others) for one in plan.added}
    assert {(PAIR, A, (B,)), (PAIR, B, (A,)), (PAIR, B, (C,)), (PAIR, C, (B,))} <= asked
    assert {one for one in asked if one[0] == LEFT_OUT} == {
        (LEFT_OUT, A, (B, C)),
        (LEFT_OUT, B, (A, C)),
        (LEFT_OUT, C, (A, B)),
    }
    assert plan.groups[plan.whole] == (A, B, C)
    for one in plan.added:
        assert set(plan.groups[one.with_it]) == {one.head, *one.others}
        assert set(plan.groups[one.without]) == set(one.others)


def test_heads_that_need_each_other_add_to_a_pair_what_neither_does_alone():
    plan, events, baseline = tables(lambda heads: 0.8 if {A, B} <= set(heads) else 0.0)
    table = set_effects(events, baseline, plan, n_resamples=200)
    found = added(table)
    assert found[PAIR, A, "0-1"] == pytest.approx(0.8)
    assert found[PAIR, B, "0-0"] == pytest.approx(0.8)
    assert found[PAIR, C, "0-1"] == found[PAIR, B, "1-0"] == 0
    assert found[LEFT_OUT, C, "0-0 0-1"] == 0
    assert found[LEFT_OUT, A, "0-1 1-0"] == pytest.approx(0.8)
    assert found[WHOLE, (-1, -1), ""] == pytest.approx(0.8)
    assert set(table["n"]) == {N} and set(table["half"]) == {"choose"}
    sure = table[(table["head"] == 0) & (table["set"] == PAIR) & (table["layer"] == 0)]
    assert float(sure.loc[sure["measure"] == "coarse_restore_margin", "low"].iloc[0]) > 0.7


def test_a_head_with_an_effect_of_its_own_lends_none_to_its_partner():
    plan, events, baseline = tables(lambda heads: 0.5 * (B in heads))
    found = added(set_effects(events, baseline, plan, n_resamples=50))
    assert found[PAIR, B, "0-0"] == pytest.approx(0.5)
    assert found[PAIR, A, "0-1"] == 0


def test_runs_that_were_not_patched_give_no_rows():
    plan, events, baseline = tables(lambda heads: 0.0)
    measures = set(set_effects(events, baseline, plan, n_resamples=10)["measure"])
    assert "coarse_restore_margin" in measures
    assert not any(name.startswith(("refine", "cluster")) for name in measures)


@pytest.mark.parametrize(
    ("pairs", "every", "message"),
    [([(A, A)], [A], "named twice"), ([], [A, A], "named twice"), ([], [], "at least one head")],
)
def test_sets_that_are_none_are_refused(pairs, every, message):
    with pytest.raises(InputError, match=message):
        plan_sets(pairs, every, every)


def test_results_of_several_positions_are_refused():
    plan, events, baseline = tables(lambda heads: 0.0)
    twice = pd.concat([events, events.assign(positions="decision")])
    with pytest.raises(InputError, match="one choice of positions"):
        set_effects(twice, baseline, plan)


def test_some_heads_are_asked_what_they_do_together():
    plan = plan_whole([A, B, C], [B, C])
    _, events, baseline = tables(lambda heads: len(heads) / 4, plan)
    found = added(set_effects(events, baseline, plan, n_resamples=50))
    assert found[REST, (-1, -1), "0-1 1-0"] == pytest.approx(2 / 4)
    assert found[WHOLE, (-1, -1), ""] == pytest.approx(3 / 4)
    with pytest.raises(InputError, match="at least one head"):
        plan_whole([A], [])
