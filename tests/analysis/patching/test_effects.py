import numpy as np
import pandas as pd
import pytest

from workbench.analysis.patching.effects import HALVES, causal_effects
from workbench.errors import InputError
from workbench.measures import DIFFERENCE, MEASURES
from workbench.phases import MIN_PROMPTS

RUNS = ("far_with_clean", "clean_with_far", "near_with_clean", "clean_with_near", "far_with_near")


def make_baseline(rows: list[dict]) -> pd.DataFrame:
    """One dict per event: half, far (counts), near (counts), and (focus, confusion) per variant."""
    return pd.DataFrame(
        [
            {
                "id": f"p{index}",
                "event": 0,
                "half": row.get("half", "choose"),
                "variant": variant,
                "focus": row[variant][0],
                "confusion": row[variant][1],
                "p_gold": row[variant][0] * (1 - row[variant][1]),
                "counts_far": row.get("counts_far", True),
                "counts_near": row.get("counts_near", True),
            }
            for index, row in enumerate(rows)
            for variant in ("clean", "far", "near")
        ]
    )


def make_events(values: list[dict], head: int = 0, positions: str = "span") -> pd.DataFrame:
    """One dict per event: run name → (focus, confusion)."""
    return pd.DataFrame(
        [
            {"layer": 1, "head": head, "group": "all", "positions": positions, "run": run}
            | {"id": f"p{index}", "event": 0, "focus": value[run][0], "confusion": value[run][1]}
            for index, value in enumerate(values)
            for run in RUNS
        ]
    )


def patched(restore: float, disrupt: float, reduce: float, boost: float) -> dict:
    pairs = [(restore, 0.5), (disrupt, 0.5), (0.5, reduce), (0.5, boost), (restore, 0.9)]
    return dict(zip(RUNS, pairs, strict=True))


PLAIN = [name for name, one in MEASURES.items() if one.value in ("focus", "confusion")]
"""Measures of a table without margins."""

BASE = {"clean": (0.9, 0.1), "far": (0.1, 0.4), "near": (0.8, 0.8)}
OTHER = {"clean": (0.7, 0.3), "far": (0.3, 0.4), "near": (0.8, 0.6)}


@pytest.fixture
def two_events() -> tuple[pd.DataFrame, pd.DataFrame]:
    events = make_events([patched(0.5, 0.6, 0.2, 0.2), patched(0.4, 0.7, 0.6, 0.5)])
    return events, make_baseline([BASE, OTHER | {"half": "verify"}])


MARGINS = ["focus_margin", "confusion_margin", "swap", "swap_margin"]


def with_margins(table: pd.DataFrame, values: dict[str, tuple]) -> pd.DataFrame:
    """The columns of margins, by run or variant."""
    key = "run" if "run" in table else "variant"
    return table.join(table[key].map(values).apply(pd.Series).set_axis(MARGINS, axis=1))


def effect_of(table: pd.DataFrame, half: str = "all") -> pd.Series:
    return table[table["half"] == half].set_index("measure")["effect"]


def test_effects_are_ratios_of_means(two_events):
    effect = effect_of(causal_effects(*two_events, n_resamples=50))
    assert effect["coarse_restore"] == pytest.approx((0.4 + 0.1) / (0.8 + 0.4))
    assert effect["coarse_disrupt"] == pytest.approx((0.3 + 0.0) / (0.9 + 0.7))
    assert effect["refine_reduce"] == pytest.approx((0.6 + 0.0) / (0.8 + 0.6))
    assert effect["refine_boost"] == pytest.approx((0.1 + 0.2) / (0.1 + 0.3))
    assert effect["refine_boost_abs"] == pytest.approx((0.1 + 0.2) / 2)
    assert effect[DIFFERENCE] == pytest.approx(0.6 / 1.4 - 0.5 / 1.2)


def test_margins_are_shares_of_what_the_counterfactual_takes(two_events):
    """A head may do a third of the work in log-odds and nothing in probability."""
    events, baseline = two_events
    baseline = with_margins(
        baseline,
        {"clean": (6.0, 8.0, -1, -9.0), "far": (-6.0, 0.0, 0, 0), "near": (5.0, -4.0, 1, 6.0)},
    )
    nothing = {"focus": 0.1, "confusion": 0.4}
    events = with_margins(
        events.assign(**nothing),
        {
            "far_with_clean": (-3.0, 1.0, 0.0, -2.0),
            "clean_with_far": (0.0, 8.0, -1.0, -9.0),
            "near_with_clean": (5.0, -1.0, 0.8, 3.0),
            "clean_with_near": (5.5, 2.0, -0.2, -3.0),
            "far_with_near": (-4.0, -1.0, 0.25, 3.0),
        },
    ).query("id == 'p0'")
    table = causal_effects(events, baseline, halves=("choose",), n_resamples=20)
    effect = effect_of(table, "choose")
    assert effect["coarse_restore"] == pytest.approx(0)
    assert effect["coarse_restore_margin"] == pytest.approx(3 / 12)
    assert effect["coarse_disrupt_margin"] == pytest.approx(6 / 12)
    assert effect["refine_reduce_margin"] == pytest.approx(3 / 12)
    assert effect["refine_boost_margin"] == pytest.approx(6 / 12)
    assert effect["cluster_restore_margin"] == pytest.approx(2 / 12)
    assert effect["label_swap"] == pytest.approx(0.25)
    assert effect["label_swap_margin"] == pytest.approx(3 / 6)
    assert effect["reduce_minus_restore_margin"] == pytest.approx(0)
    assert effect["cluster_minus_restore_margin"] == pytest.approx(-1 / 12)
    # Both counterfactuals must have moved an event whose label is swapped.
    one = causal_effects(
        events, baseline.assign(counts_near=False), halves=("choose",), n_resamples=20
    ).set_index("measure")
    assert one.loc["label_swap", "n"] == 0 and one.loc["cluster_restore", "n"] == 1


def test_halves_see_their_own_prompts(two_events):
    table = causal_effects(*two_events, n_resamples=50)
    assert effect_of(table, "choose")["coarse_restore"] == pytest.approx(0.4 / 0.8)
    assert effect_of(table, "verify")["coarse_restore"] == pytest.approx(0.1 / 0.4)
    counts = table.groupby("half")[["n", "n_excluded"]].max()
    assert counts.loc["choose"].tolist() == [1, 0]
    assert counts.loc["all"].tolist() == [2, 0]


def test_excluded_events_have_no_influence_but_are_counted():
    wild = patched(100.0, -100.0, 100.0, 100.0)
    events = make_events([patched(0.5, 0.6, 0.2, 0.2), wild])
    baseline = make_baseline([BASE, OTHER | {"counts_far": False}])
    table = causal_effects(events, baseline, halves=("all",), n_resamples=50)
    table = table.set_index("measure")
    assert table.loc["coarse_restore", "effect"] == pytest.approx(0.4 / 0.8)
    assert table.loc["coarse_restore", ["n", "n_excluded"]].tolist() == [1, 1]
    assert table.loc["refine_reduce", ["n", "n_excluded"]].tolist() == [2, 0]
    assert table.loc[DIFFERENCE, "n"] == 1


def test_no_counting_event_gives_nan_and_zero_n():
    nothing = {"counts_far": False, "counts_near": False}
    table = causal_effects(
        make_events([patched(0.5, 0.6, 0.2, 0.2)]),
        make_baseline([BASE | nothing]),
        halves=("all",),
        n_resamples=10,
    )
    assert table[["effect", "low", "high"]].isna().all(axis=None)
    assert (table["n"] == 0).all()
    assert (table["n_excluded"] == 1).all()


def test_intervals_are_paired():
    """Reduce and restore are equal on every event, so their difference is 0 without width."""
    rows, values = [], []
    for share in (0.1, 0.1, 0.5, 0.9, 0.9) * 3:
        rows.append({"clean": (1.0, 0.0), "far": (0.0, 0.0), "near": (1.0, 1.0)})
        values.append(patched(share, 1.0, 1 - share, 0.0))
    table = causal_effects(make_events(values), make_baseline(rows), halves=("all",))
    table = table.set_index("measure")
    assert table.loc["coarse_restore", "high"] - table.loc["coarse_restore", "low"] > 0.3
    assert table.loc[DIFFERENCE, ["low", "high"]].abs().max() < 1e-12


def test_each_head_and_position_keeps_its_own_values(two_events):
    events, baseline = two_events
    stronger = make_events([patched(0.9, 0.1, 0.1, 0.8), patched(0.7, 0.3, 0.3, 0.6)], head=3)
    decision = make_events([patched(0.1, 0.9, 0.8, 0.1)] * 2, head=3, positions="decision")
    both = pd.concat([stronger, decision, events]).sample(frac=1, random_state=0)
    table = causal_effects(both, baseline, n_resamples=20)
    alone = causal_effects(events, baseline, n_resamples=20)
    rows = table[(table["head"] == 0)].reset_index(drop=True)
    pd.testing.assert_frame_equal(rows, alone)
    restore = table[(table["measure"] == "coarse_restore") & (table["half"] == "all")]
    restore = restore.set_index(["head", "positions"])["effect"]
    assert restore[3, "span"] == pytest.approx(1.0)
    assert restore[3, "decision"] == pytest.approx((0.0 - 0.2) / (0.8 + 0.4))


def test_table_covers_every_combination(two_events):
    table = causal_effects(*two_events, n_resamples=10)
    assert set(table["measure"]) == {*PLAIN, DIFFERENCE}
    assert len(table) == (len(PLAIN) + 1) * len(HALVES)
    assert list(table.columns) == [
        *("layer", "head", "positions", "measure", "half"),
        *("effect", "low", "high", "n", "n_excluded", "group"),
    ]


def test_too_few_prompts_get_an_effect_without_interval():
    values = [patched(0.3 + 0.1 * (at % 3), 0.6, 0.2, 0.2) for at in range(MIN_PROMPTS)]

    def effects(last: dict, same_prompt: bool = False) -> pd.DataFrame:
        tables = [make_events(values), make_baseline([BASE] * (MIN_PROMPTS - 1) + [last])]
        for table in tables:
            table.loc[table["id"] == f"p{MIN_PROMPTS - 1}", "event"] = 1
            if same_prompt:
                table["id"] = table["id"].replace(f"p{MIN_PROMPTS - 1}", "p0")
        effects = causal_effects(*tables, halves=("all",), n_resamples=50)
        assert effects["effect"].notna().all()
        return effects.set_index("measure")

    enough = effects(BASE)
    assert (enough["low"] <= enough["effect"] + 1e-12).all()
    assert (enough["effect"] <= enough["high"] + 1e-12).all()
    few = effects(BASE | {"counts_far": False})
    coarse = ["coarse_restore", "coarse_disrupt", "cluster_restore", DIFFERENCE]
    assert few.loc[coarse, ["low", "high"]].isna().all(axis=None)
    assert few.drop(index=coarse)[["low", "high"]].notna().all(axis=None)
    one_less = effects(BASE, same_prompt=True)
    assert (one_less["n"] == MIN_PROMPTS).all()
    assert one_less[["low", "high"]].isna().all(axis=None)


def test_a_share_of_a_margin_that_hardly_moved_has_no_interval():
    """Of noise, a head may well restore a third, with a narrow interval."""
    n = 2 * MIN_PROMPTS

    def lows(moved: float) -> pd.Series:
        # The counterfactual adds as much as it takes, but for what it moves on average.
        noise = [4.0 if at % 2 else -4.0 for at in range(n)]
        baseline, events = make_baseline([BASE] * n), make_events([patched(0.5, 0.6, 0.2, 0.2)] * n)
        for table, runs in ((baseline, {"clean": 1.0, "far": 0.0, "near": 0.0}), (events, {})):
            order = table["id"].str[1:].astype(int).to_numpy()
            change = np.array(noise)[order] + moved
            share = table["variant"].map(runs) if runs else 1 / 3
            for name in ("focus_margin", "confusion_margin", "swap_margin"):
                table[name] = change * share
        table = causal_effects(events, baseline, halves=("all",), n_resamples=50)
        return table.set_index("measure")["low"]

    margins = ["coarse_restore_margin", "refine_reduce_margin", "reduce_minus_restore_margin"]
    assert lows(0.0)[margins].isna().all() and lows(1.0)[margins].isna().all()
    assert lows(3.0)[margins].notna().all()
    assert lows(0.0)[["coarse_restore", "refine_reduce", DIFFERENCE]].notna().all()


def test_events_that_were_not_patched_count_as_excluded(two_events):
    events, baseline = two_events
    table = causal_effects(events[events["id"] == "p0"], baseline, halves=("all",), n_resamples=10)
    assert (table["n"] == 1).all()
    assert (table["n_excluded"] == 1).all()
    assert np.isfinite(table["effect"]).all()


def test_bad_tables_are_named(two_events):
    events, baseline = two_events
    with pytest.raises(InputError, match="patching results table lacks column 'focus'"):
        causal_effects(events.drop(columns="focus"), baseline)
    with pytest.raises(InputError, match="same run twice: layer 1, head 0"):
        causal_effects(pd.concat([events, events]), baseline)
    with pytest.raises(InputError, match="half 'both' is not one of"):
        causal_effects(events, baseline, halves=("both",))
    with pytest.raises(InputError, match="no event in half 'verify'"):
        causal_effects(events, baseline[baseline["half"] == "choose"], halves=("verify",))
