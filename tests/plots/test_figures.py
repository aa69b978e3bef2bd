"""What the figures with axes must show of tables with known effects."""

from pathlib import Path

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import pytest
from fixtures.synthetic_tables import (
    N_LAYERS,
    make_baseline,
    make_patching,
    make_pools,
    make_trajectory,
)

from workbench.errors import InputError
from workbench.plots import figures, style
from workbench.plots.page import write_figure


def test_bootstrap_draws_prompts_and_weights_events() -> None:
    constant = pd.DataFrame({"id": [*range(20), 3], "focus": [0.5] * 21})
    assert figures.bootstrap_over_prompts(constant, "focus") == (0.5, 0.5, 0.5)
    few = pd.DataFrame({"id": list("aaab"), "focus": [0.0, 0.0, 0.0, 1.0]})
    mean, low, high = figures.bootstrap_over_prompts(few, "focus")
    assert mean == 0.25 and np.isnan([low, high]).all()


def test_baseline_points_are_prompts_and_the_drawing_repeats() -> None:
    figure = figures.focus_confusion(make_baseline())
    clean_focus, clean_mean = figure.data[0], figure.data[1]
    assert len(clean_focus.y) == 16
    assert clean_focus.y[3] == 0.2
    assert clean_mean.y[0] == pytest.approx(np.mean(clean_focus.y))
    assert np.abs(np.asarray(clean_focus.x)).max() <= 0.25
    assert figure.to_json() == figures.focus_confusion(make_baseline()).to_json()


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
    assert len(first["random heads, each draw"].x) == 5 * 6


def test_pool_intervals_and_one_legend_entry_per_name() -> None:
    figure = figures.pool_effects(make_pools())
    pool = next(trace for trace in figure.data if trace.name == "coarse pool")
    assert np.allclose(pool.error_x.array, 0.05)
    assert np.allclose(pool.error_x.arrayminus, 0.05)
    shown = [trace.name for trace in figure.data if trace.showlegend]
    assert len(shown) == len(set(shown)) == 5


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


def test_bootstrap_equals_weighted_means_of_the_same_draws() -> None:
    baseline = make_baseline()
    events = pd.concat([baseline, baseline.iloc[:9].assign(event=1, focus=0.4)])
    prompts = events.groupby("id", sort=False)["focus"]
    totals, counts = prompts.sum().to_numpy(), prompts.count().to_numpy()
    draws = np.random.default_rng(7).integers(len(totals), size=(50, len(totals)))
    means = [totals[draw].sum() / counts[draw].sum() for draw in draws]
    mean, low, high = figures.bootstrap_over_prompts(events, "focus", resamples=50, seed=7)
    assert mean == pytest.approx(events["focus"].mean())
    assert min(means) <= low < mean < high <= max(means)


def test_loss_is_drawn_in_order_of_steps() -> None:
    history = pd.DataFrame({"step": [100, 0, 50], "loss": [0.1, 8.3, 0.5]})
    figure = figures.loss_curve(history)
    assert list(figure.data[0].x) == [0, 50, 100]
    assert list(figure.data[0].y) == [8.3, 0.5, 0.1]
    assert figure.layout.xaxis.type is figure.layout.yaxis.type is None


def test_logarithmic_loss_leaves_out_what_has_no_logarithm() -> None:
    history = pd.DataFrame({"step": [0, 50, 100, 150], "loss": [8.3, 0.5, 0.0, 0.1]})
    figure = figures.loss_curve(history, log=True)
    assert list(figure.data[0].x) == [50, 150]
    assert figure.layout.xaxis.type == figure.layout.yaxis.type == "log"


@pytest.mark.parametrize(
    ("draw", "table", "said"),
    [
        (figures.pool_effects, make_pools().iloc[:0], "no head qualified"),
        (figures.choose_verify, make_patching().query("half == 'verify'"), "two halves"),
        (figures.loss_curve, pd.DataFrame({"step": [], "loss": []}), "no loss was recorded"),
    ],
)
def test_what_cannot_be_drawn_is_said_in_words(draw, table, said) -> None:
    assert said in draw(table).layout.annotations[0].text


def test_missing_loss_is_named() -> None:
    with pytest.raises(InputError, match="column 'loss' is missing; it has 'step'"):
        figures.loss_curve(pd.DataFrame({"step": [1]}))


LINK = '<a href="https://example.org">'


def test_names_in_figures_are_text_and_no_links() -> None:
    table, pools = make_trajectory(), make_pools()
    table["kind"] = f"{LINK}layer</a>"
    pools["set"] = pools["set"].replace("norm", f"{LINK}norm")
    history = pd.DataFrame({"step": [1, 2], "loss": [2.0, 1.0], "kind": f"{LINK}x"})
    drawn = [figures.trajectory(table), figures.pool_effects(pools), figures.loss_curve(history)]
    for figure in drawn:
        assert "<a " not in str(figure.to_dict()) and "</a>" not in str(figure.to_dict())
    assert '&lt;a href="https://example.org">layer' in drawn[0].layout.title.text


def test_what_figures_say_themselves_stays(tmp_path: Path) -> None:
    said = style.drawn(lambda: go.Figure(layout_title_text="<b>a</b><br>p < 0.05"))()
    assert said.layout.title.text == "<b>a</b><br>p &lt; 0.05"
    plain = go.Figure(go.Scatter(x=np.arange(3), y=[1, 2, 3], hovertemplate="%{x}<extra></extra>"))
    assert style.drawn(lambda: plain)() is plain
    page = write_figure(tmp_path / "figure.html", said).read_text()
    assert "Content-Security-Policy" in page and "default-src 'none'" in page
