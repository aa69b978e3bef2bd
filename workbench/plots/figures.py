"""Figures with axes: the unpatched model, the pools, the steps, the two halves, a training run."""

import math
from collections.abc import Sequence

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots
from scipy.stats import bootstrap

from workbench.measures import MEASURES
from workbench.phases import MIN_PROMPTS, OF_READOUT, PHASES
from workbench.plots.panels import (
    PROBABILITY,
    band,
    error_bars,
    finish,
    line,
    points,
    readout_panels,
)
from workbench.plots.style import (
    CONTROL,
    INK,
    POOL_COLOUR,
    POSITIONS,
    VARIANT_COLOUR,
    drawn,
    nothing,
    number,
    require,
    shown_measures,
    titles,
    where,
)


@drawn
def focus_confusion(baseline: pd.DataFrame) -> go.Figure:
    """Focus and Confusion of the unpatched clean, far and near prompts.

    Large marks are means over events with 95 % bootstrap intervals over prompts; small
    points are prompts. Focus is the probability on the *clean* gold's cluster in all three.
    """
    figure = readout_panels()
    for column, quantity in enumerate(OF_READOUT, start=1):
        for x, (variant, colour) in enumerate(VARIANT_COLOUR.items()):
            events = where(baseline, variant=variant)
            if not events.empty:
                traces = _points_and_mean(events, quantity, x, colour)
                figure.add_traces(traces, cols=column, rows=1)
    subtitle = "small: one prompt each; large: mean, 95 % interval"
    finish(figure, "What the model does unpatched", subtitle, height=380, margin_b=40)
    figure.update_layout(showlegend=False)
    figure.update_xaxes(tickvals=[0, 1, 2], ticktext=list(VARIANT_COLOUR), range=[-0.5, 2.5])
    return figure.update_yaxes(range=PROBABILITY)


def _points_and_mean(events: pd.DataFrame, quantity: str, x: int, colour: str) -> list[go.Scatter]:
    mean, low, high = bootstrap_over_prompts(events, quantity)
    totals = _prompt_totals(events, quantity)
    prompts = totals[:, 0] / totals[:, 1]
    # Golden-ratio steps spread the points evenly and the same way every time.
    jitter = (np.arange(len(prompts)) * 0.618034) % 1 * 0.5 - 0.25
    small = {"size": 5, "color": colour, "opacity": 0.3}
    single = points(x + jitter, prompts, "prompt no. %{customdata}: %{y:.3f}", small)
    single.update(customdata=np.arange(1, len(prompts) + 1))
    large = {"size": 12, "color": colour, "line": {"width": 1.5, "color": "white"}}
    hover = f"mean {number(mean)} [{number(low)}, {number(high)}]"
    average = points([x], [mean], hover, large)
    return [single, average.update(error_y=error_bars([mean], [low], [high], color=colour))]


def bootstrap_over_prompts(
    events: pd.DataFrame, quantity: str, *, resamples: int = 2_000, seed: int = 0
) -> tuple[float, float, float]:
    """Mean over events with its 95 % interval (BCa); whole prompts are drawn, not events.

    A prompt weighs as much as it has events. Fewer than `MIN_PROMPTS` prompts have no interval;
    that of prompts which all say the same is their mean.
    """
    totals, counts = _prompt_totals(events, quantity).T
    estimate = float(totals.sum() / counts.sum())
    if len(totals) < MIN_PROMPTS:
        return estimate, math.nan, math.nan
    if np.ptp(totals / counts) == 0:
        return estimate, estimate, estimate
    interval = bootstrap(
        (totals, counts),
        lambda totals, counts, axis: totals.sum(axis=axis) / counts.sum(axis=axis),
        paired=True,
        vectorized=True,
        method="BCa",
        n_resamples=resamples,
        rng=np.random.default_rng(seed),
    ).confidence_interval
    return estimate, float(interval.low), float(interval.high)


def _prompt_totals(events: pd.DataFrame, quantity: str) -> np.ndarray:
    """Sum and number of events of every prompt, in order of appearance."""
    prompts = events.groupby("id", sort=False)
    return np.asarray(prompts.agg(total=(quantity, "sum"), count=(quantity, "count")), dtype=float)


@drawn
def pool_effects(pools: pd.DataFrame) -> go.Figure:
    """Joint effect of each pool beside its controls, one row of panels per pool.

    Random control: the diamond is the mean over draws, the small points are the draws. The boost is
    shown as a difference where the table has it, so that one axis fits all measures.
    """
    names = [] if pools.empty else [name for name in POOL_COLOUR if name in set(pools["pool"])]
    if not names:
        return nothing("Joint effect of the pools", "no pool to show: no head qualified")
    places = [place for place in POSITIONS if place in set(pools["positions"])]
    measures = shown_measures(set(pools["measure"]))[::-1]
    figure = make_subplots(
        rows=len(names),
        cols=len(places),
        shared_xaxes="all",  # type: ignore[arg-type]
        shared_yaxes=True,
        horizontal_spacing=0.05,
        vertical_spacing=0.24 / len(names),
        subplot_titles=[f"{name}, {POSITIONS[place]}" for name in names for place in places],
    )
    for row, name in enumerate(names, start=1):
        for column, place in enumerate(places, start=1):
            here = where(pools, pool=name, positions=place)
            traces = _pool_traces(here, name, measures)
            figure.add_traces(traces, rows=row, cols=column)
            figure.add_vline(x=0, line_width=1, line_color=CONTROL, row=row, col=column)  # type: ignore[arg-type]
    subtitle = "held-out half; bars: 95 % interval"
    height = 130 + 200 * len(names)
    finish(figure, "Joint effect of the pools and their controls", subtitle, height)
    figure.update_yaxes(
        tickvals=list(range(len(measures))),
        ticktext=[name.replace("_", " ") for name in measures],
        range=[-0.7, len(measures) - 0.3],
    )
    return figure


def _pool_traces(here: pd.DataFrame, pool: str, measures: Sequence[str]) -> list[go.Scatter]:
    """Pool, random draws with their mean, and largest-norm heads, a little above one another."""
    centre = {measure: index for index, measure in enumerate(measures)}
    here = here.loc[here["measure"].isin(measures)]
    draws = where(here, set="random")
    mean = draws.groupby("measure", sort=False, as_index=False).agg(effect=("effect", "mean"))
    small = {"size": 5, "color": CONTROL, "opacity": 0.45}
    diamond = {"size": 9, "color": CONTROL, "symbol": "diamond"}
    norm = {"size": 9, "color": CONTROL, "symbol": "square-open", "line": {"width": 2}}
    solid = {"size": 11, "color": POOL_COLOUR[pool]}
    parts = [
        (where(here, set="pool"), f"{pool} pool", solid, 0.25, True),
        (draws, "random heads, each draw", small, 0.0, False),
        (mean, "random heads, mean", diamond, 0.0, False),
        (where(here, set="norm"), "largest-norm heads", norm, -0.25, True),
    ]
    traces = []
    for part, name, marker, offset, bars in parts:
        if part.empty:
            continue
        heights = [centre[measure] + offset for measure in part["measure"]]
        hover = f"{name}<br>%{{customdata}}: %{{x:.3f}}"
        trace = points(part["effect"], heights, hover, marker, name=name)
        if bars:
            ends = part["effect"], part["low"], part["high"]
            trace.update(error_x=error_bars(*ends, color=marker["color"]))
        traces.append(trace.update(customdata=part["measure"]))
    return traces


@drawn
def trajectory(table: pd.DataFrame) -> go.Figure:
    """Focus and Confusion read out after each step, a line with its interval band per variant."""
    if table.empty:
        return nothing("Focus and Confusion by layer", "the logit lens does not fit this model")
    figure = readout_panels()
    for column, quantity in enumerate(OF_READOUT, start=1):
        for variant, colour in VARIANT_COLOUR.items():
            rows = where(table, variant=variant).sort_values("step")
            hover = f"{variant}, %{{x}}: %{{y:.3f}}"
            if not rows.empty:
                shade = band(rows["step"], rows, f"{quantity}_", colour)
                mean = line(rows, "step", quantity, variant, colour, hover)
                figure.add_traces([shade, mean], cols=column, rows=1)
    kind = str(table["kind"].iloc[0]) if "kind" in table and len(table) else "step"
    subtitle = "the answer as it stands there; 95 % band"
    finish(figure, f"Focus and Confusion by {kind}", subtitle, height=400)
    figure.update_xaxes(title_text=kind, tickformat="d")
    return figure.update_yaxes(range=PROBABILITY)


@drawn
def choose_verify(patching: pd.DataFrame) -> go.Figure:
    """Effect in the held-out half against the selection half, one point per nominated head.

    Points below the diagonal shrank: heads picked for a large effect in one half owe a part of it
    to chance. Where no head is marked as nominated, all patched heads are shown.
    """
    title = "Does the effect hold on other prompts?"
    if patching.empty:
        return nothing(title, "no head was patched")
    heads = where(patching, group="nominated").filter(["layer", "head"]).drop_duplicates()
    rows = patching.merge(heads, on=["layer", "head"]) if len(heads) else patching
    keys = ["layer", "head", "positions", "measure"]
    table = rows.drop_duplicates([*keys, "half"]).pivot(index=keys, columns="half", values="effect")
    if not {"choose", "verify"} <= set(table.columns):
        return nothing(title, "effects of two halves were not measured")
    table = table.reset_index()
    chiefs = [MEASURES[phase.chief].title for phase in PHASES.values()]
    figure = make_subplots(cols=2, subplot_titles=chiefs, horizontal_spacing=0.14)
    for column, phase in enumerate(PHASES.values(), start=1):
        here = where(table, measure=phase.chief)
        figure.add_traces(_halves(here, phase.colour), cols=column, rows=1)
        ends = here[["choose", "verify"]].to_numpy(float)
        ends = ends[np.isfinite(ends)]
        edge = [min(0.0, *ends) - 0.06, max(0.2, *ends) + 0.06] if ends.size else [-0.06, 1.06]
        diagonal = go.Scatter(x=edge, y=edge, mode="lines", hoverinfo="skip", showlegend=False)
        diagonal.update(line={"color": CONTROL, "dash": "dot", "width": 1})
        figure.add_trace(diagonal, row=1, col=column)
        figure.update_xaxes(range=edge, title_text="selection half", row=1, col=column)
        figure.update_yaxes(range=edge, row=1, col=column)
    subtitle = "one point per nominated head; dotted: equal in both halves"
    finish(figure, title, subtitle, height=420)
    return figure.update_yaxes(title_text="held-out half", row=1, col=1)


def _halves(here: pd.DataFrame, colour: str) -> list[go.Scatter]:
    """Filled points for the span, open ones for the decision token."""
    traces = []
    for positions, symbol in (("span", "circle"), ("decision", "circle-open")):
        rows = where(here, positions=positions)
        places = zip(rows["layer"], rows["head"], strict=True)
        text = [f"layer {layer}, head {head}" for layer, head in places]
        marker = {"size": 9, "color": colour, "symbol": symbol, "line": {"width": 1.5}}
        hover = "%{text}<br>selection %{x:.3f}, held out %{y:.3f}"
        trace = points(rows["choose"], rows["verify"], hover, marker, name=POSITIONS[positions])
        traces.append(trace.update(text=text))
    return traces


@drawn
def loss_curve(history: pd.DataFrame, *, log: bool = False) -> go.Figure:
    """Training loss over optimiser steps, from the columns `step` and `loss`, as one line.

    `log` makes both axes logarithmic; rows with a step or a loss of 0 have no place there and are
    left out.

    Raises:
        InputError: a column is missing.
    """
    require(history, ["step", "loss"])
    title = "Training loss"
    rows = history.sort_values("step")
    if log:
        rows = rows.loc[(rows["step"] > 0) & (rows["loss"] > 0)]
    if rows.empty:
        return nothing(title, "no loss was recorded")
    hover = "step %{x:,}: %{y:.4f}"
    figure = go.Figure(line(rows, "step", "loss", "", INK, hover, mode="lines"))
    figure.update_layout(**titles(title), height=380, margin_t=56, margin_b=64)
    figure.update_xaxes(title_text="step")
    figure.update_yaxes(title_text="loss", rangemode="tozero")
    if log:
        # Labels at powers of ten only: plotly would write 200 and 2,000 both as a bare "2".
        axis = {"type": "log", "dtick": 1, "minor": {"dtick": "D1", "ticks": "outside"}}
        figure.update_xaxes(axis).update_yaxes(axis, rangemode="normal")
    return figure
