import numpy as np
import pandas as pd
import pytest

from workbench.analysis.curves.cumulative import EVENT_COLUMNS, cumulative_sizes, cumulative_tables
from workbench.analysis.curves.dissociation import kind_of, set_shares, sets_plan
from workbench.analysis.curves.faithfulness import Plan, plan_curves
from workbench.errors import InputError

EVERY = [(layer, head) for layer in range(3) for head in range(4)]


def plan_of(model) -> Plan:
    """A good ordering, its reverse, and two draws."""
    shuffled = [EVERY[at] for at in (3, 1, 4, 0, 5, 2, 7, 6, 9, 8, 11, 10)]
    orders = {"good": EVERY, "bad": EVERY[::-1], "random 1": shuffled, "random 2": shuffled[::-1]}
    by = {name: {"focus": order} for name, order in orders.items()}
    return plan_curves(model, by, [0, 1, 3, 12], kinds=("cumulative",))


def events_of(plan: Plan, n: int = 20) -> pd.DataFrame:
    """Head 0-0 leads three quarters of the way, all heads together the whole."""
    noise = np.random.default_rng(0).normal(0, 0.01, n)
    frames = []
    for number in range(n):
        lead = [0.75 if (0, 0) in group else 0.0 for group in plan.sets["focus"]]
        lead[0], lead[1] = 0.0, 1.0
        way = np.array(lead)
        frame = pd.DataFrame(
            {"target": range(len(way)), "value": 0.2 + (0.6 + noise[number]) * way}
        )
        frame = frame.assign(start=0.2, goal=0.8 + noise[number], margin=4 * way)
        frames.append(frame.assign(margin_start=0.0, margin_goal=4.0, id=f"p{number}", event=0))
    keys = {"place": "span", "intervention": "z", "direction": "denoising", "readout": "focus"}
    return pd.concat(frames).assign(**keys).reindex(columns=EVENT_COLUMNS)


def test_curves_rise_by_what_their_first_heads_explain(model):
    plan = plan_of(model)
    found = cumulative_tables(events_of(plan), plan, n_resamples=200)
    curves = found.curves.set_index(["order", "k"])
    assert curves.loc["good", "explained"].tolist() == pytest.approx([0, 0.75, 0.75, 1])
    assert curves.loc["bad", "margin_explained"].tolist() == pytest.approx([0, 0, 0, 1])
    # One of the two draws has the head among its first three... none among its first.
    assert curves.loc["random", "explained"].tolist() == pytest.approx([0, 0, 0, 1])
    assert curves.loc[("good", 1), "value"] == pytest.approx(0.65, abs=0.01)
    assert curves.loc[("good", 1), "value_low"] < curves.loc[("good", 1), "value_high"]
    assert set(found.curves["n"]) == {20}


def test_areas_and_their_paired_differences(model):
    plan = plan_of(model)
    found = cumulative_tables(events_of(plan), plan, n_resamples=200)
    areas = found.areas.set_index(["axis", "order"])["margin_area"]
    steps = np.array([1, 2, 9]) / 12
    good = (np.array([0.375, 0.75, 0.875]) * steps).sum()
    assert areas["share", "good"] == pytest.approx(good)
    assert areas["share", "bad"] == pytest.approx(0.5 * 9 / 12)
    spread = np.diff(np.log1p([0, 1, 3, 12])) / np.log1p(12)
    assert areas["log", "good"] == pytest.approx((np.array([0.375, 0.75, 0.875]) * spread).sum())
    row = found.differences.set_index(["axis", "order", "other"]).loc[("share", "good", "bad")]
    assert row["margin_difference"] == pytest.approx(good - 0.375)
    assert row["difference_low"] > 0
    assert len(found.differences) == 2 * 3


def test_few_prompts_have_no_interval(model):
    plan = plan_of(model)
    found = cumulative_tables(events_of(plan, 3), plan, n_resamples=50)
    assert found.areas["area"].notna().all() and found.areas["area_low"].isna().all()


def test_a_set_that_was_not_run_is_missed(model):
    plan = plan_of(model)
    events = events_of(plan)
    with pytest.raises(InputError, match="lacks a set of heads on some event"):
        cumulative_tables(events[events["target"] != 2], plan)
    with pytest.raises(InputError, match="no event is a valid pair"):
        cumulative_tables(events.iloc[:0], plan)


def test_sizes_are_the_papers_and_its_shares_of_all_heads():
    assert cumulative_sizes(48) == list(range(49))
    assert cumulative_sizes(5120) == [0, 3, 8, 16, 40, 100, 5120]
    assert cumulative_sizes(270) == [0, 1, 2, 3, 5, 8, 16, 40, 100, 270]


def test_heads_that_move_one_readout_alone_are_told():
    """Target 1 moves Focus, 2 Confusion, 3 both, 4 neither; each readout is a frame."""
    lead = {"focus": [0, 0.5, 0.0, 0.5, 0.0], "confusion": [0, 0.0, 0.4, 0.4, 0.0]}
    frames = []
    for readout, ways in lead.items():
        for number in range(16):
            frame = pd.DataFrame({"target": range(5), "margin": 2 * np.array(ways)})
            frame = frame.assign(value=0.5, start=0.0, goal=1.0, margin_start=0.0, margin_goal=2.0)
            frames.append(frame.assign(readout=readout, id=f"p{number}", event=0))
    keys = {"place": "fine", "intervention": "pattern", "direction": "denoising"}
    shares = set_shares(pd.concat(frames).assign(**keys), n_resamples=50).set_index("target")
    kinds = [kind_of(row) for row in shares.loc[1:].to_dict("records")]
    assert kinds == ["focus only", "confusion only", "both", ""]
    assert shares.loc[3, "confusion"] == pytest.approx(0.4)
    assert sets_plan([[(1, 0), (0, 1)]], 12).sets["focus"] == [(), ((0, 1), (1, 0))]


def test_a_head_moves_one_readout_mostly_by_the_ends_of_both_intervals():
    row = {"confusion_low": 0.96, "confusion_high": 1.1, "focus_low": -0.15, "focus_high": -0.04}
    assert kind_of(row) == "confusion mostly"
    assert kind_of(row | {"focus_low": -0.2}) == ""  # more than a fifth of 0.96
    assert kind_of(row | {"focus_low": -0.01, "focus_high": 0.01}) == "confusion only"
    assert kind_of(row | {"focus_low": 0.05, "focus_high": 0.3}) == "both"
    assert kind_of(row | dict.fromkeys(("focus_low", "focus_high"), float("nan"))) == ""
