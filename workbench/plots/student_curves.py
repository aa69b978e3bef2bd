"""Accuracy of students: over training steps and over traces, an arm a line; at the end, a row."""

import pandas as pd
import plotly.graph_objects as go
from plotly.colors import qualitative
from plotly.subplots import make_subplots

from workbench.plots.panels import band, error_bars, finish, line, points
from workbench.plots.style import INK, drawn, nothing, require

COLUMNS = ["series", "layers", "steps", "traces", "value", "low", "high", "n_seeds"]
COLOURS = [*qualitative.Dark2, *qualitative.Set1, *qualitative.Pastel1]
WIDEST = 8
"""Arms that lines can be told apart of."""


@drawn
def student_curves(table: pd.DataFrame, *, over: str, teacher: float | None = None) -> go.Figure:
    """Share of prompts right with chains of their own, over `over` ("step" or "traces").

    A panel for every number of copied layers; bands are 95 % intervals over seeds and prompts,
    left out for a single seed. Dotted: the teacher. Of many arms those with most seeds are drawn.

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
    table = _most_seeds(table, over)
    if table.empty:
        return nothing(title, f"no arm has more than one of its {words}")
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


@drawn
def student_arms(table: pd.DataFrame, *, teacher: float | None = None) -> go.Figure:
    """Share of prompts right with chains of their own, an arm a row, the best above.

    Bars are 95 % intervals over seeds and prompts, over prompts alone for a single seed. Dotted:
    the teacher.

    Args:
        table: columns series, value, low, high, n_seeds; a row an arm.
        teacher: its share.

    Raises:
        InputError: a column is missing.
    """
    require(table, ["series", "value", "low", "high", "n_seeds"])
    title = "Students' own chains, by arm"
    if table.empty:
        return nothing(title, "no student is finished")
    rows = table.sort_values(by="value")
    seeds = rows["n_seeds"].astype(int)
    names = rows["series"] + " (" + seeds.astype(str) + ")"
    colours = [INK if arm.startswith("cot") else COLOURS[0] for arm in rows["series"]]
    if "layers" in rows.columns and len(set(rows["layers"])) > 1:
        names += ", " + rows["layers"].astype(str) + " layers"
    figure = go.Figure()
    bars = error_bars(rows["value"], rows["low"], rows["high"], color=COLOURS[0], width=3)
    mark = {"size": 8, "color": colours}
    figure.add_trace(points(rows["value"], names, "%{y}: %{x:.3f}", mark, error_x=bars))
    if teacher is not None:
        figure.add_vline(x=teacher, line={"dash": "dot", "width": 1})
    subtitle = "prompts with all decisions right, unseen labels; in brackets how many seeds"
    finish(figure, title, subtitle, height=160 + 24 * len(rows), margin_b=60, margin_l=210)
    figure.update_yaxes(tickmode="linear")
    return figure.update_xaxes(range=[0, 1])


def _most_seeds(table: pd.DataFrame, over: str) -> pd.DataFrame:
    """Arms that make a line, if these are too many those with most seeds, of equals the first."""
    grouped = table.groupby("series")
    ranked = pd.DataFrame({"points": grouped[over].nunique(), "seeds": grouped["n_seeds"].max()})
    if len(ranked) <= WIDEST:
        return table
    lines = ranked.loc[ranked["points"] > 1].sort_values(by="seeds", ascending=False, kind="stable")
    return table.loc[table["series"].isin(lines.index[:WIDEST])]
