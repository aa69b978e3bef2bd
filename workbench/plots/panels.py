"""What figures with axes share: lines with their band, error bars, one legend for all panels."""

from textwrap import wrap
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from workbench.phases import PHASES
from workbench.plots.style import titles

PROBABILITY = [-0.04, 1.04]
"""Range of an axis of probabilities."""
WIDEST_TITLE = 26
"""Characters of a line of a panel's title."""


def readout_panels() -> go.Figure:
    """Two panels side by side, one per readout in the order of `OF_READOUT`."""
    names = [phase.readout_title for phase in PHASES.values()]
    return make_subplots(cols=2, subplot_titles=names, horizontal_spacing=0.1)


def line(
    rows: pd.DataFrame, x: str, y: str, name: str, colour: str, hover: str, **look: Any
) -> go.Scatter:
    """A line with markers; `hover` gets the point's x, y, text and customdata from plotly."""
    trace = go.Scatter(x=rows[x], y=rows[y], mode="lines+markers", name=name)
    trace.update(line={"color": colour, "width": 2}, marker={"size": 6})
    return trace.update(hovertemplate=f"{hover}<extra></extra>", **look)


def points(x: Any, y: Any, hover: str, marker: dict[str, Any], **look: Any) -> go.Scatter:
    """Marks without a line; `hover` as for `line`."""
    trace = go.Scatter(x=x, y=y, mode="markers", marker=marker)
    return trace.update(hovertemplate=f"{hover}<extra></extra>", **look)


def band(x: Any, rows: pd.DataFrame, prefix: str, colour: str) -> go.Scatter:
    """Interval band from columns `prefix` + low and high; points without one are passed over."""
    low, high = (rows[f"{prefix}{end}"].to_numpy(float) for end in ("low", "high"))
    known = np.isfinite(low) & np.isfinite(high)
    x, low, high = np.asarray(x)[known], low[known], high[known]
    band = go.Scatter(x=np.concatenate([x, x[::-1]]), y=np.concatenate([high, low[::-1]]))
    band.update(mode="lines", line={"width": 0}, fill="toself", fillcolor=colour, opacity=0.13)
    return band.update(showlegend=False, hoverinfo="skip")


def error_bars(value: Any, low: Any, high: Any, **look: Any) -> dict[str, Any]:
    """Error bars from the ends of intervals."""
    value, low, high = (np.asarray(values, dtype=float) for values in (value, low, high))
    ends = {"type": "data", "symmetric": False, "array": high - value, "arrayminus": value - low}
    return ends | {"thickness": 2, "width": 5} | look


def finish(figure: go.Figure, title: str, subtitle: str, height: int, **layout: Any) -> go.Figure:
    """Common look of figures with panels, and one legend entry per name for all of them."""
    layout = {"margin_t": 100, "margin_b": 112} | layout
    figure.update_layout(**titles(title, subtitle), height=height, **layout)
    figure.for_each_annotation(_on_lines).update_annotations(font_size=13)
    seen: set[str] = set()

    def once(trace: Any) -> None:
        if trace.name and trace.showlegend is not False:
            trace.update(showlegend=trace.name not in seen, legendgroup=trace.name)
            seen.add(trace.name)

    return figure.for_each_trace(once)


def _on_lines(title: Any) -> None:
    """A panel's title on as many lines as keep it off its neighbour's, in a page of two columns."""
    if "<" not in title.text:
        title.update(text="<br>".join(wrap(title.text, WIDEST_TITLE)))


def row_name(pool: str, layer: Any, head: Any) -> str:
    """Name of a row: a head, or the whole pool where layer and head are missing."""
    return f"{pool} pool" if pd.isna(layer) else f"{int(layer)}-{int(head)}"
