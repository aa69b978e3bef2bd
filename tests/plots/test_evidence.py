"""What the figures of the evidence must show of tables with known values."""

from itertools import product

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import pytest

from workbench.errors import InputError
from workbench.phases import OF_READOUT, PHASES
from workbench.plots import chains, evidence
from workbench.plots.style import CONTROL, INK, POOL_COLOUR

COARSE, REFINE = (phase.colour for phase in PHASES.values())

SIZES = [0, 1, 2, 8]
ORDERS = ["pool", "score", "attribution", "random 0", "random 1"]


def make_curves() -> pd.DataFrame:
    rows = []
    for order, readout, kind, k in product(ORDERS, OF_READOUT, evidence.KINDS, SIZES):
        share = k / 8
        value = 1 - share if kind == "necessity" else share
        ends = (value - 0.1, value + 0.1)
        rows.append((order, kind, readout, k, share, value, *ends, value, 20))
    return pd.DataFrame(rows, columns=evidence.CURVES)


def make_areas() -> pd.DataFrame:
    rows = []
    for (number, order), readout, kind in product(enumerate(ORDERS), OF_READOUT, evidence.KINDS):
        cpr = 0.9 - number / 10
        rows.append((order, kind, readout, cpr, cpr - 0.05, cpr + 0.02, 0.2, 0.1, 0.3))
    return pd.DataFrame(rows, columns=evidence.AREAS)


def make_chain() -> pd.DataFrame:
    rows = []
    steps = enumerate(("direct", "coarse", "fine"))
    for model, source, (step, label) in product(
        ("teacher", "student"), ("given", "generated"), steps
    ):
        focus, confusion = 0.3 + step / 3, 0.6 - step / 5
        ends = [(mean - 0.1, mean + 0.1) for mean in (focus, confusion)]
        row = ("chain", model, source, step, label, focus, *ends[0], confusion, *ends[1])
        rows.append((*row, 12))
    return pd.DataFrame(rows, columns=chains.CHAIN)


def make_effects() -> pd.DataFrame:
    rows = []
    for layer, head, pool in ((4, 6, "refine"), (3, 0, "coarse"), (pd.NA, pd.NA, "coarse")):
        for measure in ("coarse_restore", "refine_reduce", "refine_boost", "refine_boost_abs"):
            own = measure.startswith(pool)
            for step in range(3):
                effect = 0.8 - step / 10 if own else -0.001
                rows.append((step, layer, head, pool, measure, effect, effect - 0.1, effect + 0.1))
    table = pd.DataFrame(rows, columns=chains.CHAIN_EFFECTS[:-1]).assign(n=9)
    return table.astype({"layer": "Int64", "head": "Int64"})


def make_stability(rows: list[tuple[str, int, int, float]]) -> pd.DataFrame:
    return pd.DataFrame([(*row, 200) for row in rows], columns=evidence.STABILITY)


def named_traces(figure: go.Figure, name: str) -> list[go.Scatter]:
    return [trace for trace in figure.data if trace.name == name]


def test_curves_have_every_size_also_none_of_the_heads() -> None:
    figure = evidence.faithfulness_curves(make_curves())
    [first, _] = named_traces(figure, "pool, Focus")
    np.testing.assert_allclose(np.expm1(first.x), SIZES)
    assert list(first.y) == [1 - k / 8 for k in SIZES]
    assert list(figure.layout.xaxis.ticktext) == ["0", "1", "2", "8"]
    titles = [note.text for note in figure.layout.annotations]
    assert titles[1] == "Focus, all but the first k<br>ablated"
    assert titles[2] == "1 − Confusion, first k<br>heads ablated"


def test_pool_is_thick_in_its_colour_and_random_orders_share_one_legend_entry() -> None:
    figure = evidence.faithfulness_curves(make_curves())
    random = named_traces(figure, "random")
    assert len(random) == 2 * 4
    assert sum(trace.showlegend for trace in random) == 1
    assert {trace.line.color for trace in random} == {CONTROL}
    for name, colour in (("pool, Focus", COARSE), ("pool, 1 − Confusion", REFINE)):
        assert {trace.line.color for trace in named_traces(figure, name)} == {colour}
    own = {trace.line.color for name in ("CoarseScore, RefineScore", "attribution")
           for trace in named_traces(figure, name)}  # fmt: skip
    assert len(own) == 2
    assert not own & {COARSE, REFINE, CONTROL}
    thick = named_traces(figure, "pool, Focus")[0].line.width
    assert all(trace.line.width < thick for trace in random)


def test_only_the_pool_has_a_band_and_it_passes_over_missing_intervals() -> None:
    curves = make_curves()
    curves.loc[curves["k"] == 2, ["low", "high"]] = np.nan
    bands = [trace for trace in evidence.faithfulness_curves(curves).data if trace.fill]
    assert len(bands) == 4
    assert len(bands[0].x) == 2 * 3
    np.testing.assert_allclose(bands[0].y[:3], [1.1, 1 - 1 / 8 + 0.1, 0.1])
    assert np.isfinite(bands[0].y).all()


def test_ticks_of_a_large_model_keep_their_distance() -> None:
    sizes = [0, 1, 2, 3, 5, 8, 12, 20, 30, 50, 80, 120, 200, 300, 500, 800, 1024]
    ticks = evidence._spread_ticks(sizes)
    assert (ticks[0], ticks[-1]) == (0, 1024)
    gaps = np.diff(np.log1p(ticks)) / np.log1p(1024)
    assert gaps.min() >= 1 / 13
    assert len(ticks) >= 8
    assert evidence._spread_ticks([5]) == [5]


def test_tables_of_one_readout_and_kind_have_one_panel() -> None:
    curves = make_curves().query("readout == 'confusion' and kind == 'sufficiency'")
    figure = evidence.faithfulness_curves(curves)
    assert len(figure.layout.annotations) == 1
    with pytest.raises(InputError, match="readouts 'loss'"):
        evidence.faithfulness_curves(make_curves().assign(readout="loss"))


def test_random_areas_are_the_mean_over_draws_with_their_range() -> None:
    figure = evidence.curve_areas(make_areas())
    cpr = named_traces(figure, evidence.AREA_NAMES["cpr"])[0]
    areas = dict(zip(cpr.text, cpr.x, strict=True))
    assert list(areas) == ["pool", "CoarseScore, RefineScore", "attribution", "random"]
    assert areas["random"] == pytest.approx((0.6 + 0.5) / 2)
    assert cpr.error_x.array[-1] == pytest.approx(0.6 - 0.55)
    assert cpr.error_x.arrayminus[-1] == pytest.approx(0.55 - 0.5)
    assert cpr.error_x.arrayminus[0] == pytest.approx(0.05)
    assert figure.layout.yaxis.ticktext[-1] == "random, mean of 2"


def test_the_pool_is_the_upper_line_wherever_it_stands_in_the_table() -> None:
    figure = evidence.curve_areas(make_areas().iloc[::-1])
    assert figure.layout.yaxis.ticktext[0] == "pool"
    low, high = figure.layout.yaxis.range
    assert low > high  # downwards
    for trace in named_traces(figure, evidence.AREA_NAMES["cmd"]):
        place = dict(zip(trace.text, trace.y, strict=True))
        assert round(place["pool"]) == 0
        colour = dict(zip(trace.text, trace.marker.color, strict=True))
        assert (colour["attribution"], colour["random"]) == (INK, CONTROL)


def test_areas_without_random_orders_are_drawn() -> None:
    areas = make_areas()
    figure = evidence.curve_areas(areas[~areas["order"].str.startswith("random")])
    assert len(figure.layout.yaxis.ticktext) == 3


def test_bars_are_sorted_by_share_within_their_pool_and_rare_heads_counted() -> None:
    rows = [("coarse", 4, 3, 0.3), ("coarse", 3, 0, 1.0), ("refine", 4, 3, 0.6)]
    rows += [("refine", 5, 1, 0.02), ("refine", 5, 2, 0.0)]
    figure = evidence.selection_stability(make_stability(rows))
    assert list(figure.layout.xaxis.ticktext) == ["3-0", "4-3", "4-3"]
    coarse, refine = figure.data
    assert list(coarse.x) == [0, 1]
    assert list(refine.x) == [2]
    assert (coarse.marker.color, refine.marker.color) == (COARSE, REFINE)
    assert figure.layout.shapes[0].y0 == 0.5
    assert figure.layout.title.subtitle.text.endswith("; 1 rarer not shown")


def test_no_more_bars_than_can_be_read() -> None:
    rows = [("coarse", layer, head, 0.5) for layer in range(10) for head in range(10)]
    figure = evidence.selection_stability(make_stability(rows))
    assert sum(len(bars.x) for bars in figure.data) == evidence.MOST_BARS
    assert "60 rarer" in figure.layout.title.subtitle.text
    seldom = evidence.selection_stability(make_stability([("coarse", 0, 0, 0.01)]))
    assert "no head was chosen" in seldom.layout.annotations[0].text


def test_smaller_sets_of_prompts_are_in_order() -> None:
    rows = [(n, pool, n / 20, 1.0, 1 - n / 20, 50) for n in (20, 5, 10) for pool in POOL_COLOUR]
    figure = evidence.prompts_needed(pd.DataFrame(rows, columns=evidence.SAMPLE_SIZE))
    overlap, empty = named_traces(figure, "refine pool")
    assert list(overlap.x) == [5, 10, 20]
    assert list(overlap.y) == [0.25, 0.5, 1.0]
    assert list(empty.y) == [0.75, 0.5, 0.0]
    assert (overlap.showlegend, empty.showlegend) == (True, False)


def test_models_differ_in_colour_and_sources_in_dash() -> None:
    figure = chains.chain_trajectories(make_chain())
    looks = {trace.name: (trace.line.color, trace.line.dash) for trace in figure.data if trace.name}
    assert looks["teacher, given chain"] == (INK, "solid")
    assert looks["teacher, generated chain"] == (INK, "dash")
    assert looks["student, given chain"][0] not in (INK, CONTROL)
    assert len(set(looks.values())) == 4
    assert len([trace for trace in figure.data if trace.fill]) == 8
    assert list(figure.layout.xaxis2.ticktext) == ["0<br>direct", "1<br>coarse", "2<br>fine"]


def test_steps_counted_in_two_ways_are_not_mixed() -> None:
    steps = make_chain()
    offset = steps.assign(align="offset", step=steps["step"] - 1)
    chain = pd.concat([steps.assign(align="step"), offset])
    figure = chains.chain_trajectories(chain, "offset")
    assert list(named_traces(figure, "student, given chain")[1].x) == [-1, 0, 1]
    assert figure.layout.xaxis2.ticktext[0] == "−1<br>direct"
    first = named_traces(chains.chain_trajectories(chain), "student, given chain")[0]
    assert list(first.x) == [0, 1, 2]
    assert "own coarse step" in chains.chain_trajectories(offset).layout.xaxis2.title.text
    with pytest.raises(InputError, match="align 'token' is not one of 'step', 'offset'"):
        chains.chain_trajectories(chain, "token")


def test_long_chains_have_plain_ticks() -> None:
    [row] = make_chain().iloc[:1].to_dict("records")
    long = pd.DataFrame([row | {"step": step} for step in range(40)])
    assert chains.chain_trajectories(long).layout.xaxis2.ticktext is None


def test_effects_are_where_their_head_and_step_are() -> None:
    figure = chains.chain_effects(make_effects())
    titles = [note.text for note in figure.layout.annotations]
    assert titles == ["Focus restored", "Confusion reduced", "Confusion boosted"]
    names = figure.layout.yaxis.ticktext
    assert [name.split(">")[1].split("<")[0] for name in names] == ["coarse pool", "3-0", "4-6"]
    assert COARSE in names[1]
    assert REFINE in names[2]
    restored, reduced, _ = figure.data
    np.testing.assert_allclose(restored.z[1], [0.8, 0.7, 0.6])
    np.testing.assert_allclose(reduced.z[2], [0.8, 0.7, 0.6])
    assert restored.text[1][0] == "0.80"
    assert restored.text[2][0] == "(0.00)"
    assert (figure.layout.coloraxis.cmin, figure.layout.coloraxis.cmax) == (-1, 1)


def test_cells_without_a_row_or_an_interval_claim_nothing() -> None:
    effects = make_effects().query("not (measure == 'coarse_restore' and step == 2)").copy()
    effects[["low", "high"]] = np.nan
    restored = chains.chain_effects(effects).data[0]
    assert np.isnan(restored.z[1][2])
    assert restored.text[1][2] == ""
    assert restored.hovertext[1][2] == "not measured"
    assert restored.text[1][0] == "(0.80)"


def test_stages_name_the_steps_and_positions_are_not_mixed() -> None:
    effects = make_effects()
    effects["stage"] = effects["step"].map({0: "direct", 1: "coarse", 2: "fine"})
    both = pd.concat(
        [effects.assign(positions="decision", effect=0.0), effects.assign(positions="span")]
    )
    figure = chains.chain_effects(both)
    assert list(figure.layout.xaxis.ticktext) == ["direct", "coarse", "fine"]
    assert figure.data[0].z[1][0] == pytest.approx(0.8)
    assert chains.chain_effects(both, "decision").data[0].z[1][0] == 0.0
    with pytest.raises(InputError, match="two rows of the same step"):
        chains.chain_effects(both.drop(columns="positions"))
    with pytest.raises(InputError, match="but no measure of"):
        chains.chain_effects(effects.assign(measure="loss"))


FIGURES = [
    (evidence.faithfulness_curves, make_curves),
    (evidence.curve_areas, make_areas),
    (evidence.selection_stability, lambda: make_stability([("coarse", 0, 0, 1.0)])),
    (
        evidence.prompts_needed,
        lambda: pd.DataFrame([(5, "coarse", 1, 1, 0, 9)], columns=evidence.SAMPLE_SIZE),
    ),
    (chains.chain_trajectories, make_chain),
    (chains.chain_effects, make_effects),
]


@pytest.mark.parametrize(("draw", "make"), FIGURES)
def test_any_table_is_left_as_it_was_an_empty_one_said_and_a_missing_column_named(
    draw, make
) -> None:
    table = make()
    draw(table).to_json()
    pd.testing.assert_frame_equal(table, make())
    assert draw(pd.DataFrame()).layout.annotations[0].text
    assert draw(make().iloc[:0]).layout.annotations[0].text
    for column in make().columns:
        with pytest.raises(InputError, match=f"column '{column}' is missing"):
            draw(make().drop(columns=column))
