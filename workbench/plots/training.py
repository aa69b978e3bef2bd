"""When the two phases form: what `training_study` measured at the checkpoints of one run."""

from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from workbench.phases import PHASES
from workbench.plots.style import CONTROL, nothing, require, titles, where

COLUMNS = ["step", "quantity", "layer", "head", "pool", "value", "low", "high"]

PANELS = [
    title
    for phase in PHASES.values()
    for title in (
        f"{phase.readout_title}, clean prompt",
        f"{phase.readout_title} moved by patching",
        phase.score_title,
    )
]


def training_phases(table: pd.DataFrame) -> go.Figure:
    """Both phases over training steps: the coarse side above, the refine side below it.

    From left to right: Focus or Confusion of the unpatched model; how far patching the later pool
    moves it, as a difference over all events; the mean score of the pool's heads. Bands are 95 %
    intervals over prompts. Dotted: extra heads one by one. Dashed: the heads with the highest
    scores at that step, together. Grey: the best head outside the pools, whichever it is then.

    Raises:
        InputError: a column is missing.
    """
    require(table, COLUMNS)
    title = "When the phases form"
    if table.empty:
        return nothing(title, "no checkpoint was studied")
    figure = make_subplots(
        rows=2,
        cols=3,
        shared_xaxes=True,
        subplot_titles=PANELS,
        horizontal_spacing=0.07,
        vertical_spacing=0.12,
    )
    for row, (pool, phase) in enumerate(PHASES.items(), start=1):
        colour, moved, score = phase.colour, phase.moved, f"{pool}_score"
        own = f"{phase.readout_title}, {pool} pool"
        solid = {"color": colour, "width": 2}
        dashed = {"color": colour, "width": 1.5, "dash": "dash"}
        grey = {"color": CONTROL, "width": 1.5}
        drawn = [
            (1, f"{phase.readout}_clean", "model", own, solid),
            (2, moved, pool, own, solid),
            (2, moved, f"moment_{pool}", "best-scored heads of the moment", dashed),
            (3, score, pool, own, solid),
            (3, score, "other", "best other head", grey),
        ]
        for column, quantity, of, name, line in drawn:
            rows = where(table, quantity=quantity, pool=of)
            rows = rows if of == "other" else rows.loc[rows["layer"].isna()]
            _draw(figure, rows, name, line, row, column, band=line is solid)
        for column, quantity in ((2, moved), (3, score)):
            extra = where(table, quantity=quantity, pool="extra")
            names = [
                f"head {int(at)}-{int(k)}"
                for at, k in zip(extra["layer"], extra["head"], strict=True)
            ]
            for name, rows in extra.groupby(names):
                dotted = {"color": colour, "width": 1.5, "dash": "dot"}
                _draw(figure, rows, str(name), dotted, row, column)
    _finish(figure, title)
    return figure


def _draw(
    figure: go.Figure,
    rows: pd.DataFrame,
    name: str,
    line: dict[str, Any],
    row: int,
    column: int,
    *,
    band: bool = False,
) -> None:
    """A line over steps, above its interval band if wanted; a missing value leaves a gap."""
    rows = rows.sort_values("step")
    if band:
        known = rows.dropna(subset=["low", "high"])
        figure.add_scatter(
            x=np.concatenate([known["step"], known["step"][::-1]]),
            y=np.concatenate([known["high"], known["low"][::-1]]),
            mode="lines",
            fill="toself",
            fillcolor=line["color"],
            opacity=0.15,
            line={"width": 0},
            showlegend=False,
            hoverinfo="skip",
            row=row,
            col=column,
        )
    places = [
        name if pd.isna(layer) else f"head {int(layer)}-{int(head)}"
        for layer, head in zip(rows["layer"], rows["head"], strict=True)
    ]
    figure.add_scatter(
        x=rows["step"],
        y=rows["value"],
        mode="lines+markers" if band else "lines",
        line=line,
        marker={"size": 4},
        name=name,
        text=places,
        hovertemplate="%{text}<br>step %{x:,}: %{y:.3f}<extra></extra>",
        row=row,
        col=column,
    )


def _finish(figure: go.Figure, title: str) -> None:
    subtitle = "the trained model's pools at earlier checkpoints; bands: 95 % interval over prompts"
    figure.update_layout(**titles(title, subtitle), height=560, margin_t=104, margin_b=96)
    figure.update_annotations(font_size=13)
    figure.update_xaxes(rangemode="tozero", nticks=5)
    figure.update_xaxes(title_text="training step", row=2)
    figure.update_yaxes(rangemode="tozero")
    figure.update_yaxes(range=[-0.04, 1.04], col=1)
    figure.update_yaxes(range=[-0.04, 1.04], col=2)
    seen: set[str] = set()

    def once(trace: Any) -> None:
        if trace.showlegend is not False:
            trace.update(showlegend=trace.name not in seen, legendgroup=trace.name)
            seen.add(trace.name)

    figure.for_each_trace(once)
