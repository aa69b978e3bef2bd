"""The paper's figure 3: the first heads of a ranking patched together, both ways, both readouts."""

from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from workbench.phases import BOTH_WAYS, OF_READOUT
from workbench.plots.evidence import DASHES, OTHERS
from workbench.plots.panels import PROBABILITY, band, error_bars, finish
from workbench.plots.style import CONTROL, INK, drawn, nothing, require, where

COLUMNS = ["place", "intervention", "direction", "readout", "order", "k", "share"]
COLUMNS += ["value", "value_low", "value_high", "margin_explained", "n"]
RANDOM = "random"
SMALL = 0.05
"""Share of the way below which heads are drawn without intervals."""
PANEL, NAME = (370, 260), (42, 16)
"""Width and height of a panel and of a name in it, in pixels, about."""
SHOWN_TICKS = (0, 1, 3, 8, 16, 40, 100, 270, 1000, 5120)


@drawn
def cumulative_figure(
    curves: pd.DataFrame,
    reported: pd.DataFrame | None = None,
    *,
    intervention: str = "pattern",
    place: str = "span",
) -> go.Figure:
    """A row per readout, a column per direction, a line per ordering; bands: 95 % intervals.

    Columns: `COLUMNS`, as `cumulative_tables` makes them; Confusion is drawn, not 1 − Confusion.
    `reported` (readout, direction, k, value) are the paper's points, in grey diamonds: of another
    model, with another readout of the same name.

    Raises:
        InputError: a column is missing.
    """
    title = f"The first heads together, {intervention} patched"
    if curves.empty:
        return nothing(title, "no curve was measured")
    require(curves, COLUMNS)
    here = where(curves, intervention=intervention, place=place)
    if here.empty:
        return nothing(title, f"no {intervention} was patched at {place}")
    titles = [phase.readout_title for phase in OF_READOUT.values()]
    panels = [f"{title}, {direction}" for title in titles for direction in BOTH_WAYS]
    figure = make_subplots(
        rows=2, cols=2, subplot_titles=panels, vertical_spacing=0.13, horizontal_spacing=0.08
    )
    orders = [*dict.fromkeys(here["order"])]
    for row, (readout, phase) in enumerate(OF_READOUT.items(), start=1):
        for column, direction in enumerate(BOTH_WAYS, start=1):
            for number, order in enumerate(orders):
                rows = where(here, readout=readout, direction=direction, order=order)
                rows = _as_drawn(rows.sort_values("k"), phase.rises)
                if rows.empty:
                    continue
                look = _look(order, number)
                trace = go.Scatter(x=np.log1p(rows["k"]), y=rows["value"], mode="lines", name=order)
                trace.update(line=look, customdata=rows[["k", "share", "margin_explained", "n"]])
                hover = f"{order}, k = %{{customdata[0]:,}} (%{{customdata[1]:.1%}} of heads): "
                hover += "%{y:.3f}<br>explained in log-odds %{customdata[2]:.2f}, "
                trace.update(hovertemplate=hover + "%{customdata[3]} events<extra></extra>")
                shade = band(trace.x, rows, "value_", look["color"])
                figure.add_traces([shade, trace], rows=row, cols=column)
            if reported is not None:
                points = where(reported, readout=readout, direction=direction)
                trace = go.Scatter(x=np.log1p(points["k"]), y=points["value"], mode="markers")
                trace.update(marker={"color": CONTROL, "symbol": "diamond", "size": 9})
                trace.update(name="paper, as reported (of 5,120 heads)", customdata=points["k"])
                trace.update(hovertemplate="paper, k = %{customdata}: %{y}<extra></extra>")
                figure.add_trace(trace, row=row, col=column)
        figure.update_yaxes(title_text=phase.readout_title, row=row, col=1)
    subtitle = f"at {place}; means over held-out prompts; bands: 95 % interval over prompts"
    finish(figure, title, subtitle, height=760)
    sizes = [here["k"]] if reported is None else [here["k"], reported["k"]]
    largest = max(0, *(int(each.to_numpy().max()) for each in sizes))
    ticks = [k for k in SHOWN_TICKS if k <= largest]
    figure.update_xaxes(tickvals=np.log1p(ticks), ticktext=[f"{k:,}" for k in ticks])
    figure.update_xaxes(title_text="heads patched together", row=2)
    return figure.update_yaxes(range=PROBABILITY)


def cumulative_figures(
    curves: pd.DataFrame, reported: pd.DataFrame | None = None
) -> dict[str, go.Figure]:
    """A figure for each intervention and place, by name: "figure3_z", "figure3_z_late".

    The name of the first place is left out.
    """
    figures = {}
    for place in (places := [*dict.fromkeys(curves["place"])]):
        for intervention in dict.fromkeys(where(curves, place=place)["intervention"]):
            name = f"figure3_{intervention}" + (f"_{place}" if place != places[0] else "")
            figures[name] = cumulative_figure(
                curves, reported, intervention=str(intervention), place=str(place)
            )
    return figures


@drawn
def dissociation_figure(dissociation: pd.DataFrame) -> go.Figure:
    """What every head alone moves of Focus and of 1 − Confusion; a row of panels per place.

    Columns: place, intervention, layer, head, confirmed, both readouts with `_low` and `_high`.
    Heads whose kind is confirmed are named; heads that move something have intervals. All panels
    have the same axes. A place without a valid pair of one readout has no panel.

    Raises:
        InputError: a column is missing.
    """
    title = "Heads that move one readout, and leave the other"
    if dissociation.empty:
        return nothing(title, "no head was patched alone")
    ends = [f"{readout}{end}" for readout in OF_READOUT for end in ("", "_low", "_high")]
    require(dissociation, ["place", "intervention", "layer", "head", "confirmed", *ends])
    measured = dissociation.dropna(subset=list(OF_READOUT))
    if measured.empty:
        return nothing(title, "no place has valid pairs of both readouts")
    places, kinds = ([*dict.fromkeys(measured[name])] for name in ("place", "intervention"))
    widths = {
        name: max(np.ptp(measured[name].to_numpy(float)), SMALL) / pixels
        for name, pixels in zip(OF_READOUT, PANEL, strict=True)
    }
    height = 120 + 340 * len(places)
    figure = make_subplots(
        rows=len(places),
        cols=len(kinds),
        subplot_titles=[f"{kind} at {place}" for place in places for kind in kinds],
        horizontal_spacing=0.06,
        vertical_spacing=60 / height,
    )
    for number, place in enumerate(places, start=1):
        for column, kind in enumerate(kinds, start=1):
            rows = where(measured, place=place, intervention=kind)
            rows = rows.assign(name=[f"{a}-{b}" for a, b in rows[["layer", "head"]].to_numpy()])
            found = rows[["focus", "confusion"]].abs().max(axis=1) > SMALL
            for some, colour in ((rows.loc[~found], CONTROL), (rows.loc[found], INK)):
                marks = go.Scatter(x=some["focus"], y=some["confusion"], mode="markers")
                marks.update(customdata=some["name"], showlegend=False)
                marks.update(marker={"color": colour, "size": 6})
                hover = "%{customdata}: Focus %{x:.3f}, 1 − Confusion %{y:.3f}<extra></extra>"
                marks.update(hovertemplate=hover)
                if colour == INK:
                    x, y = (
                        error_bars(some[name], some[f"{name}_low"], some[f"{name}_high"])
                        for name in OF_READOUT
                    )
                    marks.update(error_x=x | {"thickness": 1}, error_y=y | {"thickness": 1})
                figure.add_trace(marks, row=number, col=column)
            named = rows.loc[rows["confirmed"].astype(bool)].sort_values("focus")
            x, y, top = (
                named[name].to_numpy(float) / widths[name.removesuffix("_high")]
                for name in ("focus", "confusion", "confusion_high")
            )
            names = zip(named.iterrows(), _heights(x, np.fmax(y, top)) - y, strict=True)
            for (_, row), above in names:
                name = go.layout.Annotation(x=row["focus"], y=row["confusion"], text=row["name"])
                name.update(ax=0, ay=-above, arrowhead=0, arrowwidth=0.6)
                figure.add_annotation(name, row=number, col=column)
    subtitle = "share of the way, log-odds, held-out half; bars: 95 %; named: confirmed of a kind"
    finish(figure, title, subtitle, height=height)
    figure.update_xaxes(matches="x").update_yaxes(matches="y")
    figure.update_xaxes(title_text="Focus", row=len(places))
    return figure.update_yaxes(title_text="1 − Confusion", col=1)


def _heights(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Where names stand, above y, so that none covers another; all in pixels."""
    taken: list[tuple[float, float]] = []
    for across, up in zip(x, y, strict=True):
        height = up + NAME[1]
        while any(abs(across - a) < NAME[0] and abs(height - b) < NAME[1] for a, b in taken):
            height += NAME[1] / 2
        taken.append((across, height))
    return np.array([height for _, height in taken])


def _as_drawn(rows: pd.DataFrame, rises: bool) -> pd.DataFrame:
    """The readout itself: the tables hold it so that high is good."""
    if rises:
        return rows
    ends = {"value": "value", "value_low": "value_high", "value_high": "value_low"}
    return rows.assign(**{name: 1 - rows[other] for name, other in ends.items()})


def _look(order: str, number: int) -> dict[str, Any]:
    if order == RANDOM:
        return {"color": CONTROL, "width": 2, "dash": "dot"}
    colours = (INK, *OTHERS)
    width = 3 if number == 0 else 1.8
    dash = DASHES[(number // len(colours)) % len(DASHES)]
    return {"color": colours[number % len(colours)], "width": width, "dash": dash}
