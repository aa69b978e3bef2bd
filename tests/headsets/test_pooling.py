import math

import pandas as pd
import pytest
from fixtures.tables import patch, patched, score_table

from workbench.errors import InputError
from workbench.headsets.pooling import COLUMNS, beats_null, combine_tasks, explain_sets, pool_heads
from workbench.headsets.thresholds import Thresholds


def pools_of(q, rows, passing=None, **thresholds):
    passing = None if passing is None else pd.DataFrame(passing)
    table = pool_heads(score_table(q), pd.DataFrame(rows), Thresholds(**thresholds), passing)
    return {(row.layer, row.head): row.pool for row in table.itertuples()}


def test_heads_are_pooled_by_effect():
    q = {(1, 0): (0.01, 1.0), (2, 0): (1.0, 0.01), (2, 1): (0.01, 0.01)}
    rows = [
        *patched((2, 0), reduce=0.3, difference=0.2),
        *patched((1, 0), restore=0.5),
        *patched((2, 1)),  # significant scores, no effect
        *patched((3, 3), restore=0.015, reduce=0.02, difference=0.02),  # too small
    ]
    assert pools_of(q, rows) == {(1, 0): "coarse", (2, 0): "refine"}


def test_probabilities_decide_nothing():
    """A head may move a margin by half and no probability, or a probability and no margin."""
    rows = [
        *patched((1, 0), restore=0.5),
        patch((1, 0), "coarse_restore", 0.0, -0.01),
        *patched((1, 1)),
        patch((1, 1), "coarse_restore", 0.9, 0.8),
    ]
    assert pools_of({(1, 0): (0.0, 1.0), (1, 1): (0.0, 1.0)}, rows) == {(1, 0): "coarse"}


@pytest.mark.parametrize(
    ("effects", "pool"),
    [
        ({"restore": 0.5, "reduce": 0.5, "swap": 0.3}, "carrier"),
        # A refine head swaps the label too, but where the region is wrong that helps nothing.
        ({"restore": 0.1, "reduce": 0.8, "swap": 0.8, "difference": 0.6}, "refine"),
        ({"restore": 0.58, "reduce": 1.0, "swap": 1.0, "difference": 0.4}, "refine"),
        ({"restore": 0.6, "reduce": 0.8, "swap": 0.5, "difference": 0.1}, "carrier"),
        # A head of the cluster knows no label, even where it does as much for near misses.
        ({"restore": 0.5, "reduce": 0.5, "swap": -0.1}, "coarse"),
        ({"restore": 0.5, "swap": 0.05}, "coarse"),
        # Gold's value restores the Focus and a sibling's surely less: no cluster is carried.
        ({"restore": 0.5, "sibling": -0.3}, None),
        ({"restore": 0.5, "sibling": -0.2}, "coarse"),
        ({"restore": -0.5}, "suppressor"),
        ({"reduce": -0.5, "restore": -0.1}, "suppressor"),
        # A large loss outweighs a small gain.
        ({"reduce": -0.5, "restore": 0.1}, "suppressor"),
        ({"reduce": -0.3, "restore": 0.5}, "coarse"),
        ({"reduce": -0.21, "restore": -0.1}, None),
    ],
)
def test_what_a_head_carries_is_told_from_a_sibling_s_value(effects, pool):
    found = pools_of({(1, 0): (0.0, 0.0)}, patched((1, 0), **effects))
    assert found == ({(1, 0): pool} if pool else {})


@pytest.mark.parametrize(
    ("effects", "pool"),
    [
        ({"restore": 0.5}, "coarse"),
        ({"reduce": 0.5, "difference": 0.4}, "refine"),
        ({"restore": 0.5, "reduce": 0.5, "swap": 0.3}, "carrier"),
    ],
)
def test_effects_decide_whatever_the_scores_are(effects, pool):
    rows = patched((1, 0), **effects)
    for q in ((0.0, 1.0), (1.0, 0.0), (1.0, 1.0)):
        assert pools_of({(1, 0): q}, rows) == {(1, 0): pool}
    assert pools_of({}, patched((1, 0), restore=-0.5)) == {(1, 0): "suppressor"}


@pytest.mark.parametrize(
    ("effects", "measure", "passed", "pool"),
    [
        ({"reduce": 0.4, "difference": 0.3}, "refine_passed_margin", 0.4, "mover"),
        ({"reduce": 0.4, "difference": 0.3}, "refine_passed_margin", 0.39, "refine"),
        ({"reduce": 0.4, "difference": 0.3}, "coarse_passed_margin", 0.5, "refine"),
        ({"restore": 0.4}, "coarse_passed_margin", 0.45, "mover"),
        ({"restore": 0.4, "reduce": 0.4, "swap": 0.3}, "coarse_passed_margin", 0.5, "mover"),
        ({"restore": -0.6}, "coarse_passed_margin", -0.5, "suppressor"),
    ],
)
def test_a_head_that_only_passes_on_is_a_mover(effects, measure, passed, pool):
    rows, q = patched((1, 0), **effects), {(1, 0): (0.0, 0.0)}
    assert pools_of(q, rows, [patch((1, 0), measure, passed, passed)]) == {(1, 0): pool}
    # The other half has no say.
    held_out = [patch((1, 0), measure, passed, passed, half="verify")]
    assert pools_of(q, rows, held_out) == pools_of(q, rows)


@pytest.mark.parametrize(("q", "pooled"), [(0.05, True), (0.0500001, False), (math.nan, False)])
def test_q_value_may_reach_the_rate(q, pooled):
    scores = score_table({(1, 0): (q, 1.0), (1, 1): (1.0, q)})
    found = scores.loc[beats_null(scores, Thresholds()), ["layer", "head"]].to_numpy().tolist()
    assert found == ([[1, 0], [1, 1]] if pooled else [])


@pytest.mark.parametrize(("low", "pooled"), [(0.05, False), (0.0500001, True), (math.nan, False)])
def test_lower_end_must_lie_above_the_threshold(low, pooled):
    rows = [*patched((1, 0), restore=low), *patched((1, 1), reduce=low, difference=0.5)]
    found = pools_of({(1, 0): (0.0, 1.0), (1, 1): (1.0, 0.0)}, rows)
    assert found == ({(1, 0): "coarse", (1, 1): "refine"} if pooled else {})


@pytest.mark.parametrize(("low", "pooled"), [(0.0, False), (1e-9, True), (-0.1, False)])
def test_refine_must_move_confusion_more_than_focus(low, pooled):
    rows = patched((1, 1), reduce=0.5, difference=low)
    assert bool(pools_of({(1, 1): (1.0, 0.0)}, rows)) is pooled


def test_head_that_qualifies_for_both_is_refine_only_where_it_surely_does_more_for_confusion():
    q = {(1, 1): (0.01, 0.01)}
    more = patched((1, 1), restore=0.03, reduce=0.9, difference=0.5)
    assert pools_of(q, more) == {(1, 1): "refine"}
    equal = patched((1, 1), restore=0.9, reduce=0.9, difference=-0.01)
    assert pools_of(q, equal) == {(1, 1): "coarse"}


def test_only_the_choosing_half_over_the_span_decides():
    rows = patched((1, 0))
    rows += [
        patch((1, 0), "coarse_restore_margin", 0.9, 0.8, half=half, positions=positions)
        for half, positions in [("verify", "span"), ("all", "span"), ("choose", "decision")]
    ]
    assert pools_of({(1, 0): (0.0, 0.0)}, rows) == {}


def test_thresholds_are_used_and_checked():
    rows = patched((1, 0), restore=0.1)
    q = {(1, 0): (0.2, 1.0)}
    assert pools_of(q, rows, false_discovery_rate=0.2, min_restore_low=0.05) == {(1, 0): "coarse"}
    assert pools_of(q, rows, false_discovery_rate=0.2, min_restore_low=0.1) == {}
    with pytest.raises(InputError, match=r"false_discovery_rate: .*greater than 0"):
        Thresholds(false_discovery_rate=0.0)
    with pytest.raises(InputError, match=r"min_restore_low: .*greater than or equal to 0"):
        Thresholds(min_restore_low=-0.1)


def decision_row(at_decision, span_effect=0.5):
    rows = patched((1, 0), restore=span_effect - 0.1)
    if at_decision is not None:
        rows.append(patch((1, 0), "coarse_restore_margin", at_decision, 0.0, positions="decision"))
    rows.append(patch((1, 0), "refine_reduce_margin", 0.9, 0.0, positions="decision"))
    return pool_heads(score_table({(1, 0): (0.0, 1.0)}), pd.DataFrame(rows)).iloc[0]


@pytest.mark.parametrize(
    ("at_decision", "share", "read_out"), [(0.4, 0.8, True), (0.39, 0.78, False), (0.6, 1.2, True)]
)
def test_read_out_is_judged_by_the_share_at_the_decision(at_decision, share, read_out):
    row = decision_row(at_decision)
    assert row["decision_share"] == pytest.approx(share)
    assert bool(row["read_out"]) is read_out


@pytest.mark.parametrize("unknown", [{"at_decision": None}, {"at_decision": math.nan}])
def test_share_is_unknown_without_a_decision_effect(unknown):
    row = decision_row(**unknown)
    assert math.isnan(row["decision_share"])
    assert not row["read_out"]


def test_weights_are_shares_of_their_own_pool():
    q = {(1, 0): (0.0, 1.0), (1, 1): (0.0, 1.0), (2, 0): (1.0, 0.0)}
    rows = [
        *patched((1, 0), restore=0.2),
        *patched((1, 1), restore=0.8),
        *patched((2, 0), reduce=0.3, difference=0.1),
    ]
    table = pool_heads(score_table(q), pd.DataFrame(rows))
    assert table["weight"].tolist() == pytest.approx([0.25, 0.75, 1.0])
    # Of pools that belong to no phase, the larger effect; its size where it hurts.
    rows = [
        *patched((1, 0), restore=0.1, reduce=0.2, swap=0.2),
        *patched((1, 1), restore=0.5, reduce=0.4, swap=0.3),
        *patched((2, 0), restore=-0.4, reduce=-0.1),
    ]
    table = pool_heads(score_table(q), pd.DataFrame(rows))
    assert table["pool"].tolist() == ["carrier", "carrier", "suppressor"]
    assert table["weight"].tolist() == pytest.approx([1 / 3, 2 / 3, 1.0])


def test_nothing_found_is_an_empty_frame_of_the_same_types():
    full = pool_heads(score_table({(1, 0): (0.0, 1.0)}), pd.DataFrame(patched((1, 0), restore=0.5)))
    for rows in (patched((1, 0)), []):
        empty = pool_heads(score_table(), pd.DataFrame(rows, columns=[*patch((0, 0), "", 0, 0)]))
        assert empty.empty
        assert empty.dtypes.equals(full.dtypes)


def test_table_faults_are_named():
    rows = patched((1, 0), restore=0.5)
    with pytest.raises(InputError, match=r"^scores table lacks column 'layer'$"):
        pool_heads(score_table().drop(columns="layer"), pd.DataFrame(rows))
    with pytest.raises(InputError, match=r"^patching table lacks column 'half', 'low'$"):
        pool_heads(score_table(), pd.DataFrame(rows).drop(columns=["half", "low"]))
    with pytest.raises(InputError, match="head 1-0 has two rows of 'coarse_restore_margin'"):
        pool_heads(score_table(), pd.DataFrame([*rows, rows[0]]))
    with pytest.raises(InputError, match="no row with half 'choose' and positions 'span'"):
        pool_heads(score_table(), pd.DataFrame(rows).assign(half="all"))
    with pytest.raises(InputError, match="no measure 'label_swap_margin', which pooling needs"):
        pool_heads(score_table(), pd.DataFrame(rows[:3]))


def pooled(*rows):
    columns = ["layer", "head", "pool", "read_out", "decision_share", "weight"]
    return pd.DataFrame(rows, columns=columns).assign(passed_share=0.1).reindex(columns=COLUMNS)


def test_tasks_are_combined_by_majority_and_ties_are_coarse():
    combined = combine_tasks(
        [
            pooled((1, 0, "coarse", True, 0.9, 1.0), (2, 0, "refine", True, 0.9, 1.0)),
            pooled((1, 0, "refine", False, 0.1, 1.0), (2, 1, "coarse", False, math.nan, 1.0)),
            pooled((2, 0, "refine", False, 0.3, 0.6), (2, 1, "refine", False, 0.5, 0.4)),
            pooled((2, 0, "coarse", False, 0.1, 0.5), (2, 1, "refine", True, 1.0, 1.0)),
        ]
    ).set_index(["layer", "head"])
    assert combined["pool"].to_dict() == {(1, 0): "coarse", (2, 0): "refine", (2, 1): "refine"}
    assert combined["tasks"].to_dict() == {(1, 0): 2, (2, 0): 3, (2, 1): 3}
    assert combined["decision_share"].tolist() == pytest.approx([0.9, 0.6, 0.75])
    # One task of two is not more than half.
    assert combined["read_out"].tolist() == [True, False, False]
    # Refine: 1.0 + 0.6 against 0.4 + 1.0; coarse votes of refine heads do not count.
    assert combined["weight"].tolist() == pytest.approx([1.0, 1.6 / 3.0, 1.4 / 3.0])


def test_one_task_combines_to_itself():
    table = pooled(
        (1, 0, "coarse", True, 0.9, 0.25),
        (1, 2, "coarse", False, math.nan, 0.75),
        (2, 0, "refine", False, 0.1, 1.0),
    )
    combined = combine_tasks([table])
    pd.testing.assert_frame_equal(combined.drop(columns="tasks"), table, check_dtype=False)
    assert combined["tasks"].tolist() == [1, 1, 1]
    assert combine_tasks([table.head(0)]).columns.tolist() == combined.columns.tolist()
    with pytest.raises(InputError, match="at least one task"):
        combine_tasks([])


def added(head, others, kind="pair", **lows):
    """Rows of `sets`: what a head adds to others."""
    rows = patched(head, **lows)
    return [row | {"set": kind, "others": others} for row in rows]


def pools_with_sets(q, rows, sets):
    table = pool_heads(score_table(q), pd.DataFrame(rows), sets=pd.DataFrame(sets))
    return {(row.layer, row.head): row.pool for row in table.itertuples()}


def test_a_head_enters_by_what_it_adds_to_another():
    q = {(1, 0): (0.01, 1.0), (1, 1): (0.01, 1.0), (2, 0): (0.01, 1.0)}
    rows = [row for head in q for row in patched(head, restore=-0.1)]
    sets = [
        *added((1, 0), "2-0", restore=-0.1),
        *added((1, 0), "1-1", restore=0.5),
        *added((1, 1), "1-0", reduce=0.4, difference=0.3),
        *added((2, 0), "1-0", restore=-0.1),
    ]
    assert pools_with_sets(q, rows, sets) == {(1, 0): "coarse", (1, 1): "refine"}
    assert pools_of(q, rows) == {}


def test_a_backup_that_no_score_sees_enters_beside_the_head_it_replaces():
    rows = [row for head in ((1, 0), (2, 0)) for row in patched(head, restore=-0.1)]
    sets = [*added((2, 0), "1-0", restore=0.2), *added((1, 0), "2-0", restore=0.2)]
    assert pools_with_sets({}, rows, sets) == {(1, 0): "coarse", (2, 0): "coarse"}


def test_what_a_set_loses_by_a_head_makes_no_suppressor():
    rows = patched((1, 0), restore=-0.1)
    sets = added((1, 0), "1-1", restore=-0.9)
    assert pools_with_sets({(1, 0): (0.01, 1.0)}, rows, sets) == {}


def test_a_head_that_enters_beside_others_may_be_a_mover():
    rows = patched((1, 0), restore=0.03)
    sets = pd.DataFrame(added((1, 0), "1-1", restore=0.3))

    def pool(passed):
        passing = pd.DataFrame([patch((1, 0), "coarse_passed_margin", passed, passed)])
        found = pool_heads(score_table(), pd.DataFrame(rows), Thresholds(), passing, sets)
        return found["pool"].tolist()

    effect = next(row["effect"] for row in rows if row["measure"] == "coarse_restore_margin")
    assert pool(effect) == ["mover"]
    assert pool(0.5 * effect) == ["coarse"]


def test_what_a_head_adds_must_be_larger_than_what_one_does_alone():
    rows = patched((1, 0), restore=-0.01)
    assert pools_of({}, patched((1, 0), restore=0.1)) == {(1, 0): "coarse"}
    assert pools_with_sets({}, rows, added((1, 0), "1-1", restore=0.1)) == {}
    assert pools_with_sets({}, rows, added((1, 0), "1-1", restore=0.2)) == {(1, 0): "coarse"}


def test_it_is_said_what_all_do_together_and_that_no_head_explains_the_confusion():
    whole = patched((-1, -1), restore=0.8, reduce=-0.1)
    sets = pd.DataFrame([row | {"set": "whole", "others": ""} for row in whole])
    coarse = pd.DataFrame({"pool": ["coarse"]})
    together, nothing = explain_sets(sets, coarse)
    assert "0.90 of the coarse margin and 0.00 of the near-miss margin" in together
    assert nothing.startswith("heads do not explain the Confusion")
    assert len(explain_sets(sets, pd.DataFrame({"pool": ["coarse", "refine"]}))) == 1
    assert explain_sets(None, coarse) == []
