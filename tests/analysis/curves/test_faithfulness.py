from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from fixtures.slow_patching import slow_patch
from fixtures.tiny_model import HEADS
from fixtures.tiny_runs import ARCHITECTURES, save_model

from workbench.analysis.curves.areas import AREAS, CURVES, faithfulness_tables
from workbench.analysis.curves.faithfulness import (
    EVENT_COLUMNS,
    curve_event,
    default_sizes,
    plan_curves,
    wanted_sets,
)
from workbench.analysis.patching.patching import EventCache
from workbench.errors import InputError
from workbench.models.forked import can_fork
from workbench.models.hooked import HookedModel
from workbench.models.shortcuts import Shortcut
from workbench.phases import OF_READOUT

UP = {"focus": HEADS, "confusion": HEADS}
DOWN = {"focus": HEADS[::-1], "confusion": HEADS[::-1]}
KEYS = ["order", "kind", "readout"]


def measured(model, prompts, base, orders, sizes):
    """Tables of the events of the held-out half."""
    plan = plan_curves(model, orders, sizes)
    held_out = prompts.subset(["p2", "p3"])
    wanted = [(event, wanted_sets(plan, event, base)) for event in held_out]
    frames = [curve_event(model, event, sets) for event, sets in wanted if sets]
    return faithfulness_tables(pd.concat(frames), plan, base, n_resamples=10)


def slow_value(model: HookedModel, event, readout: str, ablated) -> float:
    phase = OF_READOUT[readout]
    values = slow_patch(model, event, "clean", phase.counterfactual, ablated)
    return phase.good(dict(zip(OF_READOUT, values, strict=True))[readout])


def points(tables, **wanted) -> np.ndarray:
    rows = tables.curves
    for name, value in wanted.items():
        rows = rows[rows[name] == value]
    return rows["faithfulness"].to_numpy()


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_every_set_equals_ablating_by_hand(architecture, tmp_path, make_event):
    """Also where embeddings are absolute and variants of different length."""
    model = HookedModel.load(save_model(architecture, tmp_path / "model"), device="cpu")
    heads = [(layer, head) for layer in range(2) for head in range(4)]
    plan = plan_curves(model, {"down": {"focus": heads[::-1], "confusion": heads[::-1]}})
    for evidence_first in (True, False):
        event = make_event(4, evidence_first=evidence_first)
        frame = curve_event(model, event, plan.sets)
        assert list(frame.columns) == EVENT_COLUMNS
        assert len(frame) == sum(map(len, plan.sets.values())) - 2  # all but the two clean runs
        for row in frame.itertuples():
            ablated = plan.sets[row.readout][row.target]
            assert row.value == pytest.approx(
                slow_value(model, event, row.readout, ablated), abs=1e-5
            )


def test_sets_of_a_deep_order_start_late_and_are_right(model, event, monkeypatch):
    """Three layers: the joined prefix serves sets that keep heads of the last layer alone."""
    import workbench.analysis.curves.faithfulness as module

    plan = plan_curves(model, {"down": DOWN})
    bases = []
    patch = module.patch_heads

    def spy(model, base, z, groups, **options):
        bases.append((base, groups))
        return patch(model, base, z, groups, **options)

    monkeypatch.setattr(module, "patch_heads", spy)
    cache = EventCache.of(model, event, ("span",))
    frame = curve_event(model, event, plan.sets, cache)
    joined = [groups for base, groups in bases if base is not cache.bases["clean"]]
    # Focus and Confusion: sizes 0 to 4 of sufficiency, and nothing below the second layer.
    assert [len(groups) for groups in joined] == [5, 5]
    assert min(layer for groups in joined for group in groups for layer, _ in group) == 1
    for row in frame.itertuples():
        slow = slow_value(model, event, row.readout, plan.sets[row.readout][row.target])
        assert row.value == pytest.approx(slow, abs=1e-5)


def test_without_branches_the_values_are_the_same(model, event, monkeypatch):
    plan = plan_curves(model, {"down": DOWN}, [1, 3])
    quick = curve_event(model, event, plan.sets)
    monkeypatch.setitem(model.shortcuts, "forked forward", Shortcut(wrong_from=0))
    assert not can_fork(model, event.clean)
    slow = curve_event(model, event, plan.sets)
    pd.testing.assert_frame_equal(quick, slow, atol=1e-5)


def test_plan_has_each_set_once(model):
    plan = plan_curves(model, {"up": UP, "again": UP, "down": DOWN}, [5])
    # None, all, the first 5 gone or kept, from either end: 5 gone = all but 7 kept.
    assert {name: len(sets) for name, sets in plan.sets.items()} == {"focus": 6, "confusion": 6}
    for name, sets in plan.sets.items():
        assert sets[0] == ()
        assert sets[1] == tuple(HEADS)
        assert len({frozenset(heads) for heads in sets}) == len(sets), name
    at = plan.points.set_index(["order", "kind", "readout", "k"])["target"]
    for readout, sets in plan.sets.items():
        assert set(sets[at["down", "necessity", readout, 5]]) == set(HEADS[-5:])
        assert set(sets[at["down", "sufficiency", readout, 5]]) == set(HEADS[:-5])
        assert at["up", "necessity", readout, 0] == at["down", "sufficiency", readout, 12] == 0
        assert at["up", "necessity", readout, 12] == at["down", "sufficiency", readout, 0] == 1


def test_default_sizes_grow_with_the_model():
    assert default_sizes(48) == [*range(49)]
    assert default_sizes(270) == [0, 1, 2, 3, 5, 8, 12, 20, 30, 50, 80, 120, 200, 270]
    assert default_sizes(1024)[9:] == [50, 80, 120, 200, 300, 500, 800, 1024]


def test_curves_go_from_one_end_to_the_other(model, prompts, base):
    tables = measured(model, prompts, base, {"up": UP, "down": DOWN}, [4])
    assert list(tables.curves.columns) == CURVES
    assert list(tables.areas.columns) == AREAS
    assert (tables.curves["n"] == 2).all()
    for order in ("up", "down"):
        for readout in ("focus", "confusion"):
            of = {"order": order, "readout": readout}
            assert points(tables, kind="necessity", **of)[[0, -1]] == pytest.approx([1, 0])
            assert points(tables, kind="sufficiency", **of)[[0, -1]] == pytest.approx([0, 1])
    by = tables.curves.set_index([*KEYS, "k"])["value"]
    verify = base[(base["half"] == "verify") & (base["variant"] == "clean")]
    assert by["up", "necessity", "focus", 0] == pytest.approx(verify["focus"].mean())
    assert by["up", "necessity", "confusion", 0] == pytest.approx(1 - verify["confusion"].mean())


def made_up(model, curve_of, clean=0.9, nothing=0.1, prompts=("a", "b", "c")):
    """Events whose values follow `curve_of(order, kind, share)`, and their baseline."""
    mixed = HEADS[::2] + HEADS[1::2]  # shares no set with the other, so curves are free
    orders = {"pool": {"focus": HEADS}, "rival": {"focus": mixed}}
    plan = plan_curves(model, orders, [3, 6, 9])
    rows = []
    for number, name in enumerate(prompts):
        for point in plan.points.itertuples():
            f = curve_of(point.order, point.kind, point.k / 12)
            value = nothing + (clean + 0.01 * number - nothing) * f
            if point.target:
                rows.append(
                    (point.target, "focus", name, 0, nothing if point.target == 1 else value)
                )
    events = pd.DataFrame(rows, columns=EVENT_COLUMNS).drop_duplicates(EVENT_COLUMNS[:-1])
    base = pd.DataFrame(
        {"id": prompts, "event": 0, "variant": "clean", "half": "verify", "confusion": 0.0}
    ).assign(focus=[clean + 0.01 * number for number in range(len(prompts))])
    return events, plan, base.assign(counts_far=True, counts_near=False)


def test_areas_are_those_of_known_curves(model):
    """Sufficiency: the pool's share is all there from 3 heads on, the rival's overshoots."""

    def curve_of(order, kind, share):
        if kind == "necessity":
            return 1 - share if order == "pool" else 1.0 - 1.5 * (share > 0)
        return 1.0 if order == "pool" else 1.5

    events, plan, base = made_up(model, curve_of)
    areas = faithfulness_tables(events, plan, base, n_resamples=20).areas.set_index(KEYS)
    pool, rival = (areas.loc[(name, "sufficiency", "focus")] for name in ("pool", "rival"))
    assert pool["cpr"] == pytest.approx(1 - 0.125)  # the first step rises from 0
    assert pool["cmd"] == pytest.approx(0.125)
    assert rival["cpr"] == pytest.approx(0.1875 + 0.5 * 1.5 + 0.25 * 1.25)
    assert rival["cmd"] == pytest.approx(0.25 * 0.75 + 0.5 * 0.5 + 0.25 * 0.25)
    assert rival["cpr_minus"] == pytest.approx(rival["cpr"] - pool["cpr"])
    assert pool["cpr_minus"] == 0
    assert set(areas["minus"]) == {"pool"}
    necessity = areas.loc[("pool", "necessity", "focus")]
    assert necessity[["cpr", "cmd"]].tolist() == pytest.approx([0.5, 0.5])
    below = areas.loc[("rival", "necessity", "focus")]
    assert below["cpr"] == pytest.approx(0.0625 - 0.25 - 0.0625)
    assert below["cmd"] == pytest.approx(0.1875 + 0.25 + 0.0625)


def test_differences_are_paired(model):
    """Two orders that differ by a constant: prompts vary, their difference does not."""

    def curve_of(order, kind, share):
        return 0.5 if order == "pool" else 0.7

    events, plan, base = made_up(model, curve_of, prompts=[*"abcdefghijklmno"])
    noise = events["id"].map(lambda name: {0: 0.2, 1: -0.1, 2: 0.0}[ord(name) % 3])
    events["value"] += noise.where(events["target"] > 1, 0)
    areas = faithfulness_tables(events, plan, base, n_resamples=200).areas.set_index(KEYS)
    rival = areas.loc[("rival", "sufficiency", "focus")]
    assert rival["cpr_high"] - rival["cpr_low"] > 0.05
    assert rival["cpr_minus_high"] - rival["cpr_minus_low"] < 0.01
    assert rival["cpr_minus_low"] == pytest.approx(0.2 * 0.75, abs=0.01)


def test_a_readout_is_run_where_it_counts_alone(model, prompts, base):
    base = base.assign(counts_near=base["id"] == "p2", counts_far=base["id"] != "p1")
    plan = plan_curves(model, {"up": UP}, [])
    wanted = [list(wanted_sets(plan, event, base)) for event in prompts]
    both = ["focus", "confusion"]
    assert wanted == [["focus"], ["focus"], [], both, ["focus"]]
    tables = measured(model, prompts, base, {"up": UP}, [])
    n = tables.areas.groupby("readout")["n"].first()
    assert n.to_dict() == {"focus": 2, "confusion": 1}
    assert set(tables.areas["minus"]) == {"up"}  # there is no pool


def test_the_order_of_events_does_not_matter_and_missing_ones_are_named(model, prompts, base):
    orders = {"up": UP, "down": {"focus": DOWN["focus"]}}
    plan = plan_curves(model, orders, [2])
    frames = [curve_event(model, e, wanted_sets(plan, e, base)) for e in prompts]
    forth, back = (
        faithfulness_tables(pd.concat(some), plan, base, n_resamples=20)
        for some in (frames, frames[::-1])
    )
    pd.testing.assert_frame_equal(forth.curves, back.curves)
    pd.testing.assert_frame_equal(forth.areas, back.areas)
    with pytest.raises(InputError, match="lacks a set of 'focus'"):
        faithfulness_tables(frames[0].iloc[1:], plan, base)
    with pytest.raises(InputError, match="twice"):
        faithfulness_tables(pd.concat([frames[0], frames[0]]), plan, base)


def test_bad_requests_are_named(model, prompts, event, base):
    with pytest.raises(InputError, match="'half' of readout 'focus' has 6 heads"):
        plan_curves(model, {"half": {"focus": HEADS[:6]}})
    with pytest.raises(InputError, match="12 heads, 11 of them different"):
        plan_curves(model, {"same": {"focus": [HEADS[1], *HEADS[1:]]}})
    with pytest.raises(InputError, match="readout 'loss'"):
        plan_curves(model, {"up": {**UP, "loss": HEADS}})
    with pytest.raises(InputError, match="size 13"):
        plan_curves(model, {"up": UP}, [13])
    with pytest.raises(InputError, match="no order"):
        plan_curves(model, {})
    with pytest.raises(InputError, match="no set of heads to ablate"):
        curve_event(model, event, {})
    plan = plan_curves(model, {"up": UP})
    with pytest.raises(InputError, match="not in the baseline"):
        wanted_sets(plan, replace(event, id="unknown"), base)
    with pytest.raises(InputError, match="is empty"):
        faithfulness_tables(pd.DataFrame(columns=EVENT_COLUMNS), plan, base)
