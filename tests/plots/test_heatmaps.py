"""What the heat maps must show of tables with known effects."""

from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import pytest
from fixtures.synthetic_tables import EFFECT, N_HEADS, N_LAYERS, POOLED, make_patching, make_scores

from workbench.errors import InputError
from workbench.measures import MEASURES
from workbench.plots import heatmaps
from workbench.plots.style import READ_OUT


def heatmap_of(figure: go.Figure) -> Any:
    return next(trace for trace in figure.data if trace.type == "heatmap")


def outlines(figure: go.Figure) -> dict[str, Any]:
    """Marker traces with a legend entry, by name."""
    return {
        trace.name: trace for trace in figure.data if trace.type == "scatter" and trace.showlegend
    }


def map_of(rows: dict[str, Any], **more: Any) -> go.Figure:
    return heatmaps.head_heatmap(pd.DataFrame(rows), "x", title="t", colorbar_title="u", **more)


def test_values_land_at_layer_then_head() -> None:
    heat = heatmap_of(map_of({"layer": [4, 0], "head": [3, 5], "x": [0.5, -2.0]}))
    assert heat.z[4][3] == 0.5
    assert heat.z[0][5] == -2.0
    assert np.isfinite(np.asarray(heat.z, dtype=float)).sum() == 2
    assert list(heat.y) == [0, 1, 2, 3, 4]


def test_limits_are_symmetric_about_zero_and_values_beyond_them_are_told() -> None:
    rows = {"layer": [0, 0], "head": [0, 1], "x": [0.5, -2.0]}
    heat = heatmap_of(map_of(rows))
    assert (heat.zmin, heat.zmax) == (-2.0, 2.0)
    heat = heatmap_of(map_of(rows | {"x": [0.5, 3.0]}, limit=1))
    assert heat.zmax == 1.0
    assert heat.colorbar.ticktext[-1].startswith("≥ 1.00")
    heat = heatmap_of(map_of({"layer": [0], "head": [0], "x": [np.nan], "n": [0]}))
    assert "no valid pair" in heat.hovertext[0][0]
    assert heat.zmax == 1.0


def test_all_causal_measures_share_one_colour_scale() -> None:
    drawn = heatmaps.patching_heatmaps(make_patching(), POOLED)
    assert set(drawn) == {
        (measure, place)
        for measure in set(MEASURES) - {"refine_boost"}
        for place in ("decision", "span")
    }
    assert {(heatmap_of(f).zmin, heatmap_of(f).zmax) for f in drawn.values()} == {(-1.0, 1.0)}


def test_heads_without_a_patch_are_empty_and_say_so() -> None:
    heat = heatmap_of(heatmaps.patching_heatmaps(make_patching(), POOLED)["coarse_restore", "span"])
    measured = np.isfinite(np.asarray(heat.z, dtype=float))
    assert set(zip(*np.nonzero(measured), strict=True)) == {*EFFECT, (2, 6)}
    assert "layer 0, head 7" in heat.hovertext[0][7]
    assert "not patched" in heat.hovertext[0][7]
    assert "not patched" not in heat.hovertext[4][3]


def test_a_boost_is_drawn_as_a_difference_and_its_hover_tells_the_factor() -> None:
    patching = make_patching()
    heat = heatmap_of(heatmaps.patching_heatmaps(patching, POOLED)["refine_boost_abs", "span"])
    rows = patching.query("layer == 5 and head == 1 and positions == 'span' and half == 'verify'")
    value = rows.set_index("measure").loc["refine_boost_abs"]
    factor = rows.set_index("measure").loc["refine_boost", "effect"]
    text = heat.hovertext[5][1]
    assert f"{value['effect']:.2f} [{value['low']:.2f}, {value['high']:.2f}]" in text
    assert "events: 7 (1 did not count)" in text
    assert f"refine boost: {factor:.2f}" in text
    assert heat.z[5][1] == value["effect"]
    assert "in the refine pool" in text


def test_pooled_heads_are_outlined_where_they_are() -> None:
    marks = outlines(heatmaps.score_heatmaps(make_scores(), POOLED)["coarse"])
    assert {name: (list(t.x), list(t.y)) for name, t in marks.items()} == {
        "coarse pool": ([3], [4]),
        "refine pool": ([1], [5]),
        "refine pool, read-out": ([2], [7]),
    }
    assert marks["coarse pool"].marker.symbol == "square-open"
    assert marks["refine pool, read-out"].marker.symbol == "circle-open"
    assert marks["refine pool, read-out"].marker.color == READ_OUT


def test_pooled_heads_are_read_from_a_head_set() -> None:
    heads = [
        {"layer": 4, "head": 3, "pool": "coarse", "read_out": False},
        {"layer": 7, "head": 2, "pool": "refine", "read_out": True},
    ]
    assert heatmaps.pooled_heads({"heads": heads}) == {(4, 3): "coarse", (7, 2): "refine read-out"}
    assert heatmaps.pooled_heads({}) == {}


def test_score_hover_gives_q_and_route() -> None:
    drawn = heatmaps.score_heatmaps(make_scores(), POOLED)
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
        map_of(rows, shape=(N_LAYERS, N_HEADS))


def test_a_half_that_is_not_there_is_named() -> None:
    with pytest.raises(InputError, match="no rows of half 'all', only 'choose', 'verify'"):
        heatmaps.patching_heatmaps(make_patching(), {}, half="all")
    assert heatmaps.patching_heatmaps(make_patching().iloc[:0], {}) == {}
    for half, words in (("verify", "held-out half"), ("choose", "selection half")):
        figure = heatmaps.patching_heatmaps(make_patching(), {}, half=half)[
            "coarse_restore", "span"
        ]
        assert words in figure.layout.title.subtitle.text


@pytest.mark.parametrize("count", [8, 12, 32, 64, 80])
def test_ticks_and_marks_fit_models_of_any_width(count: int) -> None:
    rows = {"layer": [count - 1], "head": [count - 1], "x": [1.0]}
    figure = map_of(rows, pooled={(0, 0): "coarse"})
    assert count / figure.layout.xaxis.dtick <= 16
    assert 250 < figure.layout.height < 1000
    assert outlines(figure)["coarse pool"].marker.size >= 6
