import math

import numpy as np
import pandas as pd
import pytest
from fixtures.event_scores import event_scores

from workbench.analysis.patching.effects import causal_effects
from workbench.analysis.scores.scores import EventScores, scores_table
from workbench.errors import InputError
from workbench.headsets.pooling import pool_heads
from workbench.headsets.stability import sample_size_curve, selection_stability, winners_curse
from workbench.headsets.thresholds import Thresholds
from workbench.roles import HEAD_POOLS

N_PROMPTS = 24
COARSE, REFINE, WEAK = (0, 1), (1, 0), (1, 1)
MARGINS = ["focus_margin", "confusion_margin", "swap_margin"]
QUICK = {"n_permutations": 99, "n_inner": 100}


def scores_of(prompt: int) -> EventScores:
    """COARSE filters and REFINE refines on every prompt, WEAK on half of them."""
    return event_scores(prompt, coarse={COARSE: 5.0}, refine={REFINE: 5.0, WEAK: 5 * (prompt % 2)})


def patching_of(prompt: int) -> tuple[list[dict], list[dict]]:
    at = {"id": f"p{prompt}", "event": 0, "half": "choose"}
    counting = {"counts_far": True, "counts_near": True}
    readouts = {"clean": (4.0, 4.0), "far": (-4.0, 0.0), "near": (4.0, -4.0)}
    base = [
        at | counting | {"variant": name} | dict(zip(MARGINS, [*margins, 0.0], strict=True))
        for name, margins in readouts.items()
    ]
    events = []
    for head in (COARSE, REFINE, WEAK):
        focus = 0.2 * (prompt % 3) if head == COARSE else -4.0
        reduced = {COARSE: 0.0, REFINE: 4.0, WEAK: 2.0 if prompt % 4 == 1 else 0.0}[head]
        ran = {"far_with_clean": (focus, 0.0), "near_with_clean": (4.0, -4.0 + reduced)}
        ran |= {"clean_with_far": (4.0, 4.0), "clean_with_near": (4.0, 4.0)}
        ran |= {"far_with_near": (focus, 0.0)}
        for run, margins in ran.items():
            place = {"layer": head[0], "head": head[1], "group": "all", "positions": "span"}
            events.append(
                at | place | {"run": run} | dict(zip(MARGINS, [*margins, 0.0], strict=True))
            )
    return base, events


@pytest.fixture(scope="module")
def inputs() -> tuple[list[EventScores], list[str], pd.DataFrame, pd.DataFrame]:
    pairs = [patching_of(prompt) for prompt in range(N_PROMPTS)]
    base = pd.DataFrame([row for rows, _ in pairs for row in rows])
    events = pd.DataFrame([row for _, rows in pairs for row in rows])
    scores = [scores_of(prompt) for prompt in range(N_PROMPTS)]
    return scores, [f"p{prompt}" for prompt in range(N_PROMPTS)], events, base


def pools_of(table: pd.DataFrame) -> set[tuple]:
    return set(table[["pool", "layer", "head"]].itertuples(index=False, name=None))


def test_firm_heads_are_chosen_always_and_shaky_ones_sometimes(inputs):
    table = selection_stability(*inputs, n_resamples=60, **QUICK)
    share = table.set_index(["pool", "layer", "head"])["share"]
    assert share["coarse", *COARSE] == share["refine", *REFINE] == 1
    assert 0 < share["refine", *WEAK] < 1
    assert set(share.index) == {("coarse", *COARSE), ("refine", *REFINE), ("refine", *WEAK)}
    assert (table["n_resamples"] == 60).all()
    pd.testing.assert_frame_equal(
        table, selection_stability(*inputs, n_resamples=60, **QUICK), check_exact=True
    )


def test_each_prompt_once_is_the_rule_of_a_run(inputs):
    """All prompts, one subset: what `pool_heads` says of the tables that a run would write."""
    scores, ids, events, base = inputs
    readouts = dict.fromkeys(("focus", "confusion", "swap"), 0.5)
    effects = causal_effects(
        events.assign(**readouts), base.assign(**readouts), halves=("choose",), n_resamples=100
    )
    table = scores_table(scores, ids, n_resamples=10, n_permutations=99)
    for limits in (None, Thresholds(min_restore_low=0.0), Thresholds(min_restore_low=0.5)):
        expected = pool_heads(table, effects, limits)
        curve = sample_size_curve(*inputs, [N_PROMPTS], thresholds=limits, n_subsets=1, **QUICK)
        sizes = expected["pool"].value_counts()
        got = curve.set_index("pool")["size"]
        assert got.to_dict() == {pool: sizes.get(pool, 0) for pool in HEAD_POOLS}
    assert sizes.get("refine", 0) == 0  # the last limits are too strict for it
    assert math.isnan(curve.set_index("pool").loc["refine", "overlap"])


def test_a_mover_is_one_in_every_resample(inputs):
    passing = pd.DataFrame(
        [
            {"layer": 0, "head": 1, "positions": "span", "measure": "coarse_passed_margin"}
            | {"half": "choose", "effect": 0.6, "low": 0.5, "high": 0.7}
        ]
    )
    table = selection_stability(*inputs, passing=passing, n_resamples=20, **QUICK)
    share = table.set_index(["pool", "layer", "head"])["share"]
    assert share["mover", *COARSE] == share["refine", *REFINE] == 1


def test_few_prompts_choose_nothing_and_more_come_closer(inputs):
    curve = sample_size_curve(*inputs, [14, 18, N_PROMPTS], n_subsets=10, **QUICK)
    coarse = curve[curve["pool"] == "coarse"].set_index("n_prompts")
    # Below fifteen prompts there is no interval.
    assert coarse.loc[14, ["overlap", "size", "empty"]].tolist() == [0, 0, 1]
    assert coarse.loc[N_PROMPTS, ["overlap", "size", "empty"]].tolist() == [1, 1, 0]
    assert coarse["overlap"].is_monotonic_increasing
    assert (curve["n_subsets"] == 10).all()


def test_prompts_that_do_not_choose_have_no_influence(inputs):
    scores, ids, events, base = inputs
    part = selection_stability(scores[:16], ids[:16], events, base, n_resamples=20, **QUICK)
    own = [table[table["id"].isin(ids[:16])] for table in (events, base)]
    alone = selection_stability(scores[:16], ids[:16], *own, n_resamples=20, **QUICK)
    pd.testing.assert_frame_equal(part, alone)


def test_an_event_that_was_not_patched_counts_for_nothing(inputs):
    """Nine of 24 prompts without patches: some resamples hold too few that count."""
    scores, ids, events, base = inputs
    few = events[events["id"].isin(ids[:15])]
    table = selection_stability(scores, ids, few, base, n_resamples=40, **QUICK)
    assert table["share"].max() < 0.7


def test_bad_input_is_named(inputs):
    scores, ids, events, base = inputs
    with pytest.raises(InputError, match="n_resamples is 0"):
        selection_stability(*inputs, n_resamples=0)
    with pytest.raises(InputError, match="23 prompt ids for the scores of 24 events"):
        selection_stability(scores, ids[:-1], events, base)
    with pytest.raises(InputError, match="no row of prompt 'p3'"):
        selection_stability(scores, ids, events, base[base["id"] != "p3"])
    with pytest.raises(InputError, match="lacks column 'run'"):
        selection_stability(scores, ids, events.drop(columns="run"), base)
    with pytest.raises(InputError, match=r"sizes \[25\] must be numbers of prompts from 1 to 24"):
        sample_size_curve(*inputs, [25])
    with pytest.raises(InputError, match="no span patch"):
        selection_stability(scores, ids, events.assign(positions="decision"), base)


def test_winners_curse_joins_both_halves():
    def row(head: int, measure: str, half: str, effect: float, positions: str = "span") -> dict:
        ends = {"effect": effect, "low": effect - 0.1, "high": effect + 0.1}
        return (
            {"layer": 3, "head": head, "measure": measure, "half": half}
            | ends
            | {"positions": positions}
        )

    patching = pd.DataFrame(
        [
            row(0, "coarse_restore", "choose", 0.5),
            row(0, "coarse_restore", "verify", 0.4),
            row(0, "coarse_restore", "verify", 0.0, "decision"),
            row(0, "refine_reduce", "verify", 0.9),
            row(6, "refine_reduce", "choose", 0.3),
        ]
    )
    pooled = pd.DataFrame({"layer": [3, 3], "head": [0, 6], "pool": ["coarse", "refine"]})
    table = winners_curse(patching, pooled)
    first, second = table.to_dict("records")
    assert first["measure"] == "coarse_restore"
    assert first["gap"] == pytest.approx(0.1)
    assert (first["low_verify"], first["high_verify"]) == pytest.approx((0.3, 0.5))
    assert second["effect_choose"] == 0.3
    assert np.isnan([second["effect_verify"], second["gap"]]).all()
    assert winners_curse(patching, pooled[:0]).empty
    with pytest.raises(InputError, match="pooled table lacks column 'pool'"):
        winners_curse(patching, pooled.drop(columns="pool"))
