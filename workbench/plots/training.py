"""When the two phases form: what `training_study` measured at the checkpoints of one run."""

from typing import Any

import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from workbench.phases import PHASES
from workbench.plots.panels import PROBABILITY, band, finish, line, row_name
from workbench.plots.style import CONTROL, drawn, nothing, require, where

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


@drawn
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
        dotted = {"color": colour, "width": 1.5, "dash": "dot"}
        grey = {"color": CONTROL, "width": 1.5}
        drawn = [
            (1, f"{phase.readout}_clean", "model", own, solid),
            (2, moved, pool, own, solid),
            (2, moved, f"moment_{pool}", "best-scored heads of the moment", dashed),
            (3, score, pool, own, solid),
            (3, score, "other", "best other head", grey),
        ]
        for column, quantity, of, name, look in drawn:
            rows = where(table, quantity=quantity, pool=of)
            rows = rows if of == "other" else rows.loc[rows["layer"].isna()]
            figure.add_traces(_draw(rows, name, look, look is solid), rows=row, cols=column)
        for column, quantity in ((2, moved), (3, score)):
            extra = where(table, quantity=quantity, pool="extra")
            for (layer, head), rows in extra.groupby(["layer", "head"]):  # type: ignore[misc]
                traces = _draw(rows, f"head {row_name('', layer, head)}", dotted)
                figure.add_traces(traces, rows=row, cols=column)
    subtitle = "the trained model's pools at earlier checkpoints; bands: 95 % interval over prompts"
    finish(figure, title, subtitle, height=560)
    figure.update_xaxes(rangemode="tozero", nticks=5)
    figure.update_xaxes(title_text="training step", row=2)
    figure.update_yaxes(rangemode="tozero")
    figure.update_yaxes(range=PROBABILITY, col=1)
    return figure.update_yaxes(range=PROBABILITY, col=2)


def _draw(
    rows: pd.DataFrame, name: str, look: dict[str, Any], with_band: bool = False
) -> list[go.Scatter]:
    """A line over steps, above its interval band if wanted; a missing value leaves a gap."""
    rows = rows.sort_values("step")
    places = [
        name if pd.isna(layer) else f"head {row_name(name, layer, head)}"
        for layer, head in zip(rows["layer"], rows["head"], strict=True)
    ]
    hover = "%{text}<br>step %{x:,}: %{y:.3f}"
    trace = line(rows, "step", "value", name, look["color"], hover, text=places)
    trace.update(line=look, marker={"size": 4}, mode="lines+markers" if with_band else "lines")
    return [*([band(rows["step"], rows, "", look["color"])] if with_band else []), trace]
