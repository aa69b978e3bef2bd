"""Tables of an 8×8-head model with known effects, and what the figures must show of them."""

import math
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import pytest

from workbench.errors import InputError
from workbench.plots import figures

N_LAYERS = N_HEADS = 8
EFFECT = {(4, 3): {"coarse": 0.93}, (5, 1): {"refine": 0.41}, (7, 2): {"refine": 0.30}}
POOLED = {(4, 3): "coarse", (5, 1): "refine", (7, 2): "refine read-out"}


def make_scores() -> pd.DataFrame:
    generator = np.random.default_rng(0)
    rows = []
    for layer in range(N_LAYERS):
        for head in range(N_HEADS):
            row: dict[str, Any] = {"layer": layer, "head": head}
            for name in figures.SCORES:
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
                for measure in figures.MEASURES:
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
                for measure in figures.MEASURES:
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


def heatmap_of(figure: go.Figure) -> Any:
    return next(trace for trace in figure.data if trace.type == "heatmap")


def outlines(figure: go.Figure) -> dict[str, Any]:
    """Marker traces with a legend entry, by name."""
    return {
        trace.name: trace for trace in figure.data if trace.type == "scatter" and trace.showlegend
    }


def test_values_land_at_layer_then_head() -> None:
    table = pd.DataFrame({"layer": [4, 0], "head": [3, 5], "x": [0.5, -2.0]})
    heat = heatmap_of(figures.head_heatmap(table, "x", title="t", colorbar_title="u"))
    assert heat.z[4][3] == 0.5
    assert heat.z[0][5] == -2.0
    assert np.isfinite(np.asarray(heat.z, dtype=float)).sum() == 2
    assert list(heat.y) == [0, 1, 2, 3, 4]


def test_limits_are_symmetric_about_zero() -> None:
    table = pd.DataFrame({"layer": [0, 0], "head": [0, 1], "x": [0.5, -2.0]})
    heat = heatmap_of(figures.head_heatmap(table, "x", title="t", colorbar_title="u"))
    assert (heat.zmin, heat.zmax) == (-2.0, 2.0)


def test_colour_bar_says_when_values_lie_beyond_the_limit() -> None:
    table = pd.DataFrame({"layer": [0, 0], "head": [0, 1], "x": [0.5, 3.0]})
    heat = heatmap_of(figures.head_heatmap(table, "x", title="t", colorbar_title="u", limit=1))
    assert heat.zmax == 1.0
    assert heat.colorbar.ticktext[-1].startswith("≥ 1.00")


def test_all_causal_measures_share_one_colour_scale() -> None:
    drawn = figures.patching_heatmaps(make_patching(), POOLED)
    assert set(drawn) == {
        (measure, place)
        for measure in ("coarse_restore", "coarse_disrupt", "refine_reduce", "refine_boost")
        for place in ("decision", "span")
    }
    assert {(heatmap_of(f).zmin, heatmap_of(f).zmax) for f in drawn.values()} == {(-1.0, 1.0)}


def test_heads_without_a_patch_are_empty_and_say_so() -> None:
    heat = heatmap_of(figures.patching_heatmaps(make_patching(), POOLED)["coarse_restore", "span"])
    measured = np.isfinite(np.asarray(heat.z, dtype=float))
    assert set(zip(*np.nonzero(measured), strict=True)) == {*EFFECT, (2, 6)}
    assert "layer 0, head 7" in heat.hovertext[0][7]
    assert "not patched" in heat.hovertext[0][7]
    assert "not patched" not in heat.hovertext[4][3]


def test_hover_tells_interval_events_and_absolute_boost() -> None:
    patching = make_patching()
    heat = heatmap_of(figures.patching_heatmaps(patching, POOLED)["refine_boost", "span"])
    rows = patching.query("layer == 5 and head == 1 and positions == 'span' and half == 'verify'")
    value = rows.set_index("measure").loc["refine_boost"]
    absolute = rows.set_index("measure").loc["refine_boost_abs", "effect"]
    text = heat.hovertext[5][1]
    assert f"{value['effect']:.2f} [{value['low']:.2f}, {value['high']:.2f}]" in text
    assert "events: 7 (1 did not count)" in text
    assert f"refine boost abs: {absolute:.2f}" in text
    assert "in the refine pool" in text


def test_undefined_effect_says_that_no_event_counted() -> None:
    table = pd.DataFrame({"layer": [0], "head": [0], "x": [np.nan], "n": [0]})
    heat = heatmap_of(figures.head_heatmap(table, "x", title="t", colorbar_title="u"))
    assert "no event counted" in heat.hovertext[0][0]
    assert heat.zmax == 1.0


def test_pooled_heads_are_outlined_where_they_are() -> None:
    marks = outlines(figures.score_heatmaps(make_scores(), POOLED)["coarse"])
    assert {name: (list(t.x), list(t.y)) for name, t in marks.items()} == {
        "coarse pool": ([3], [4]),
        "refine pool": ([1], [5]),
        "refine pool, read-out": ([2], [7]),
    }
    assert marks["coarse pool"].marker.symbol == "square-open"
    assert marks["refine pool, read-out"].marker.symbol == "circle-open"
    assert marks["refine pool, read-out"].marker.color == figures.READ_OUT


def test_pooled_heads_are_read_from_a_head_set() -> None:
    heads = [
        {"layer": 4, "head": 3, "pool": "coarse", "read_out": False},
        {"layer": 7, "head": 2, "pool": "refine", "read_out": True},
    ]
    assert figures.pooled_heads({"heads": heads}) == {(4, 3): "coarse", (7, 2): "refine read-out"}
    assert figures.pooled_heads({}) == {}


def test_score_hover_gives_q_and_route() -> None:
    drawn = figures.score_heatmaps(make_scores(), POOLED)
    assert list(drawn) == ["coarse", "refine", "refine_direct", "coarse_attribution"]
    text = heatmap_of(drawn["coarse"]).hovertext[4][3]
    assert "q: 0.004" in text
    assert "coarse route: evidence" in text


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ({"layer": [0], "head": [0]}, "column 'x' is missing"),
        ({"layer": [1, 1], "head": [0, 0], "x": [1.0, 2.0]}, "layer 1, head 0 has two rows"),
        ({"layer": [9], "head": [0], "x": [1.0]}, "layer 9, head 0 is outside 8 × 8"),
    ],
)
def test_bad_tables_are_refused(rows: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        figures.head_heatmap(
            pd.DataFrame(rows), "x", title="t", colorbar_title="u", shape=(N_LAYERS, N_HEADS)
        )


def test_a_half_that_is_not_there_is_named() -> None:
    with pytest.raises(InputError, match="no rows of half 'all', only 'choose', 'verify'"):
        figures.patching_heatmaps(make_patching(), {}, half="all")
    assert figures.patching_heatmaps(make_patching().iloc[:0], {}) == {}


def test_bootstrap_draws_prompts_and_weights_events() -> None:
    constant = pd.DataFrame({"id": list("aabc"), "focus": [0.5] * 4})
    assert figures.bootstrap_over_prompts(constant, "focus") == (0.5, 0.5, 0.5)
    # Two prompts draw (a, a), (a, b), (b, a) or (b, b): the ends of the interval are the prompts.
    uneven = pd.DataFrame({"id": list("aaab"), "focus": [0.0, 0.0, 0.0, 1.0]})
    assert figures.bootstrap_over_prompts(uneven, "focus") == (0.25, 0.0, 1.0)


def test_baseline_points_are_prompts_and_the_drawing_repeats() -> None:
    figure = figures.focus_confusion(make_baseline())
    clean_focus, clean_mean = figure.data[0], figure.data[1]
    assert len(clean_focus.y) == 16
    assert clean_focus.y[3] == 0.2
    assert clean_mean.y[0] == pytest.approx(np.mean(clean_focus.y))
    assert np.abs(np.asarray(clean_focus.x)).max() <= 0.25
    assert figure.to_json() == figures.focus_confusion(make_baseline()).to_json()


def test_no_prompt_id_enters_a_figure() -> None:
    baseline = make_baseline()
    baseline["id"] = "patient-" + baseline["id"]
    assert "patient" not in figures.focus_confusion(baseline).to_json()


def test_random_control_is_the_mean_over_draws_with_every_draw_shown() -> None:
    pools = make_pools()
    figure = figures.pool_effects(pools)
    drawn = pools.query("pool == 'coarse' and positions == 'decision' and set == 'random'")
    first = {trace.name: trace for trace in reversed(figure.data)}
    mean = dict(
        zip(first["random heads, mean"].customdata, first["random heads, mean"].x, strict=True)
    )
    expected = drawn.query("measure == 'coarse_restore'")["effect"].mean()
    assert mean["coarse_restore"] == pytest.approx(expected)
    assert len(first["random heads, each draw"].x) == 5 * 4


def test_pool_intervals_and_one_legend_entry_per_name() -> None:
    figure = figures.pool_effects(make_pools())
    pool = next(trace for trace in figure.data if trace.name == "coarse pool")
    assert np.allclose(pool.error_x.array, 0.05)
    assert np.allclose(pool.error_x.arrayminus, 0.05)
    shown = [trace.name for trace in figure.data if trace.showlegend]
    assert len(shown) == len(set(shown)) == 5


def test_no_pools_is_said_in_words() -> None:
    figure = figures.pool_effects(make_pools().iloc[:0])
    assert "no head qualified" in figure.layout.annotations[0].text


def test_trajectory_has_a_line_and_a_band_per_variant_and_panel() -> None:
    table = make_trajectory().sample(frac=1, random_state=0)
    figure = figures.trajectory(table)
    lines = [trace for trace in figure.data if trace.name == "near"]
    assert [list(line.x) for line in lines] == [list(range(N_LAYERS + 1))] * 2
    assert sum(trace.fill == "toself" for trace in figure.data) == 6
    band = figure.data[0]
    assert np.allclose(np.asarray(band.y)[: N_LAYERS + 1] - figure.data[1].y, 0.05)


def test_choose_verify_shows_nominated_heads_only() -> None:
    patching = make_patching()
    figure = figures.choose_verify(patching)
    span = next(trace for trace in figure.data if trace.name == "over the whole suffix")
    assert list(span.text) == ["layer 4, head 3", "layer 5, head 1", "layer 7, head 2"]
    rows = patching.query("layer == 4 and head == 3 and positions == 'span'")
    effect = rows.query("measure == 'coarse_restore'").set_index("half")["effect"]
    assert (span.x[0], span.y[0]) == (effect["choose"], effect["verify"])


def test_choose_verify_without_two_halves_says_so() -> None:
    figure = figures.choose_verify(make_patching().query("half == 'verify'"))
    assert "two halves" in figure.layout.annotations[0].text


@pytest.mark.parametrize("count", [8, 12, 32, 64, 80])
def test_ticks_and_marks_fit_models_of_any_width(count: int) -> None:
    table = pd.DataFrame({"layer": [count - 1], "head": [count - 1], "x": [1.0]})
    figure = figures.head_heatmap(
        table, "x", title="t", colorbar_title="u", pooled={(0, 0): "coarse"}
    )
    assert count / figure.layout.xaxis.dtick <= 16
    assert 250 < figure.layout.height < 1000
    assert outlines(figure)["coarse pool"].marker.size >= 6
