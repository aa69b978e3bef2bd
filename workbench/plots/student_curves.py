"""Accuracy of students over training steps and over traces, an arm a line."""

import pandas as pd
import plotly.graph_objects as go
from plotly.colors import qualitative
from plotly.subplots import make_subplots

from workbench.plots.panels import band, finish, line
from workbench.plots.style import INK, drawn, nothing, require

COLUMNS = ["series", "layers", "steps", "traces", "value", "low", "high", "n_seeds"]
COLOURS = [*qualitative.Dark2, *qualitative.Set1, *qualitative.Pastel1]
TEACHER = "teacher"


@drawn
def student_curves(table: pd.DataFrame, *, over: str, teacher: float | None = None) -> go.Figure:
    """Share of prompts right with chains of their own, over `over` ("step" or "traces").

    A panel for every number of copied layers; bands are 95 % intervals over seeds and prompts,
    left out for a single seed. Dotted: the teacher.

    Args:
        table: columns series, layers, steps, traces, value, low, high, n_seeds, and `over`.
        over: what is on the horizontal axis.
        teacher: its share.

    Raises:
        InputError: a column is missing.
    """
    require(table, [*COLUMNS, over])
    words = {"step": "training steps", "traces": "traces"}[over]
    title = f"Students' own chains over {words}"
    if table.empty:
        return nothing(title, "no student is finished")
    sizes = sorted(set(table["layers"]))
    colours = {
        series: INK if series == "cot" else COLOURS[at % len(COLOURS)]
        for at, series in enumerate(sorted(set(table["series"])))
    }
    names = [f"{size} layers" for size in sizes]
    figure = make_subplots(cols=len(sizes), subplot_titles=names, shared_yaxes=True)
    for column, size in enumerate(sizes, start=1):
        for series, colour in colours.items():
            rows = table.loc[(table["layers"] == size) & (table["series"] == series)]
            rows = rows.sort_values(by=over)
            if rows.empty:
                continue
            if (rows["n_seeds"] > 1).to_numpy().any():
                figure.add_trace(band(rows[over], rows, "", colour), row=1, col=column)
            hover = f"{series}, {over} %{{x}}: %{{y:.3f}}"
            figure.add_trace(line(rows, over, "value", series, colour, hover), row=1, col=column)
        if teacher is not None:
            figure.add_hline(y=teacher, line={"dash": "dot", "width": 1}, row=1, col=column)  # type: ignore[arg-type]
    subtitle = "prompts with all decisions right, unseen labels; bands: 95 % over seeds and prompts"
    finish(figure, title, subtitle, height=520)
    figure.update_xaxes(title_text=words, rangemode="tozero")
    return figure.update_yaxes(range=[0, 1])
