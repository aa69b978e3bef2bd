"""Figures along a chain of thought: Focus and Confusion after each step, and where heads act."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from workbench.errors import InputError
from workbench.measures import MEASURES
from workbench.phases import OF_READOUT
from workbench.plots.evidence import OTHERS
from workbench.plots.panels import PROBABILITY, band, finish, line, row_name
from workbench.plots.style import (
    INK,
    POOL_COLOUR,
    UNPATCHED,
    drawn,
    interval,
    named,
    nothing,
    require,
    shown_measures,
    where,
)

SOURCE_DASH = {"given": "solid", "generated": "dash"}

CHAIN = ["kind", "model", "source", "step", "label"]
CHAIN += [f"{readout}{end}" for readout in OF_READOUT for end in ("", "_low", "_high")] + ["n"]
CHAIN_EFFECTS = ["step", "layer", "head", "pool", "measure", "effect", "low", "high", "n"]

MOST_LABELS = 14


@drawn
def chain_trajectories(chain: pd.DataFrame, align: str = "") -> go.Figure:
    """Focus and Confusion along the chain of thought, with 95 % bands.

    Columns: `CHAIN`, and `align` where steps are counted in several ways; only rows of this one are
    drawn, by default that of the first row. One colour per model, in order of appearance (a teacher
    first, in black); full lines are given chains, dashed ones chains that the model wrote. Step
    labels are those of most lines.

    Raises:
        InputError: a column is missing, or no row is aligned so.
    """
    title = "Focus and Confusion along the chain of thought"
    if chain.empty:
        return nothing(title, "no chain was followed")
    require(chain, CHAIN)
    if "align" in chain:
        align = align or str(chain["align"].iloc[0])
    chain = _only(chain, "align", align)
    figure = make_subplots(rows=2, shared_xaxes=True, vertical_spacing=0.08)
    models = [*dict.fromkeys(chain["model"])]
    lines = chain.sort_values("step").groupby(["model", "source"], sort=False)
    for row, quantity in enumerate(OF_READOUT, start=1):
        for (model, source), rows in sorted(lines, key=lambda item: models.index(item[0][0])):  # type: ignore[index]
            colour = (INK, *OTHERS)[models.index(model) % (1 + len(OTHERS))]
            name = f"{model}, {source} chain"
            hover = f"{name}<br>step %{{x}}, %{{customdata[0]}}: %{{y:.3f}}"
            hover += "<br>%{customdata[1]} events"
            trace = line(rows, "step", quantity, name, colour, hover)
            trace.update(line_dash=SOURCE_DASH.get(source, "dot"), customdata=rows[["label", "n"]])
            shade = band(trace.x, rows, f"{quantity}_", colour)
            figure.add_traces([shade, trace], rows=row, cols=1)
        figure.update_yaxes(title_text=quantity.capitalize(), row=row)
    subtitle = "the answer as it stands after each step; 95 % band"
    finish(figure, title, subtitle, height=600, margin_t=72)  # no panel titles
    labels = chain.groupby("step")["label"].agg(lambda values: values.mode().iloc[0])
    steps = [int(str(step)) for step in labels.index]
    if len(steps) <= MOST_LABELS:
        text = [
            f"{'−' * (step < 0)}{abs(step)}<br>{label}"
            for step, label in zip(steps, labels, strict=True)
        ]
        figure.update_xaxes(tickvals=steps, ticktext=text, tickangle=0)
    axis = "step from the decision's own coarse step" if align == "offset" else "step"
    figure.update_xaxes(title_text=f"{chain['kind'].iloc[0]} {axis}", row=2)
    return figure.update_yaxes(range=PROBABILITY)


@drawn
def chain_effects(chain_effects: pd.DataFrame, positions: str = "span") -> go.Figure:
    """Causal effect of each head after each step of the chain: heads × steps, a panel per measure.

    Columns: `CHAIN_EFFECTS`; `stage`, the name of a step, and `positions`, of which only these are
    drawn, where the table has them. A row without layer and head is the pool as a whole. Values in
    brackets have an interval that includes 0. Full colour is an effect of 1. The boost is shown as
    a difference where the table has it.

    Raises:
        InputError: a column is missing, no measure is known, no row is of these positions, or a
            head has two rows of one step and measure.
    """
    title = "Which heads act at which step"
    if chain_effects.empty:
        return nothing(title, "no head was patched along a chain")
    require(chain_effects, CHAIN_EFFECTS)
    table = _only(chain_effects, "positions", positions)
    present = set(table["measure"])
    measures = shown_measures(present)
    if not measures:
        raise InputError(f"chain effects: {named(present)}, but no measure of {named(MEASURES)}")
    if table.duplicated(["pool", "layer", "head", "step", "measure"]).any():
        raise InputError("chain effects: a head has two rows of the same step and measure")
    table = table.sort_values(["pool", "layer", "head"], na_position="first")
    steps = table.drop_duplicates("step").set_index("step").sort_index()
    n_columns = min(2, len(measures))
    n_rows = -(-len(measures) // n_columns)
    figure = make_subplots(
        rows=n_rows,
        cols=n_columns,
        shared_yaxes=True,
        horizontal_spacing=0.04,
        vertical_spacing=0.16 if n_rows > 1 else 0,
        subplot_titles=[MEASURES[name].title for name in measures],
    )
    marks = {
        (
            pool,
            row_name(pool, layer, head),
        ): f'<span style="color:{POOL_COLOUR.get(pool, INK)}">{row_name(pool, layer, head)}</span>'
        for pool, layer, head in zip(table["pool"], table["layer"], table["head"], strict=True)
    }
    for index, measure in enumerate(measures):
        trace = _effects_heatmap(where(table, measure=measure), list(marks), list(steps.index))
        row, column = divmod(index, n_columns)
        figure.add_trace(trace, row=row + 1, col=column + 1)
    subtitle = "means over events; in brackets: the 95 % interval includes 0"
    finish(figure, title, subtitle, height=150 + n_rows * (70 + max(26 * len(marks), 80)))
    bar = {"title": {"text": "effect", "side": "right", "font": {"size": 12}}, "thickness": 14}
    scale = {"colorscale": "RdBu_r", "cmin": -1, "cmax": 1, "colorbar": bar}
    figure.update_layout(coloraxis=scale, margin_b=56, plot_bgcolor=UNPATCHED)
    figure.update_yaxes(tickvals=list(range(len(marks))), ticktext=list(marks.values()))
    figure.update_yaxes(autorange="reversed", showgrid=False)
    figure.update_xaxes(tickformat="d", showgrid=False)
    if len(steps) <= MOST_LABELS:
        stages = (steps if "stage" in steps else steps.assign(stage=steps.index))["stage"]
        figure.update_xaxes(tickvals=list(steps.index), ticktext=[str(stage) for stage in stages])
    return figure.update_xaxes(title_text="step", row=n_rows)


def _effects_heatmap(
    rows: pd.DataFrame, heads: Sequence[tuple[str, str]], steps: Sequence[int]
) -> go.Heatmap:
    """One measure; cells without a row are empty."""
    z = np.full((len(heads), len(steps)), np.nan)
    written = np.full(z.shape, "", dtype=object)
    hover = np.full(z.shape, "not measured", dtype=object)
    for row in rows.to_dict("records"):
        name = row_name(row["pool"], row["layer"], row["head"])
        cell = heads.index((row["pool"], name)), steps.index(row["step"])
        effect, low, high = (float(row[name]) for name in ("effect", "low", "high"))
        z[cell] = effect
        short = f"{round(effect, 2) + 0.0:.2f}".replace("-", "−")  # and no minus zero
        # An interval that was not measured excludes nothing.
        written[cell] = short if low > 0 or high < 0 else f"({short})"
        hover[cell] = f"{name}, step {row['step']}<br>"
        hover[cell] += f"{row['measure'].replace('_', ' ')}: {interval(row, 'effect')}"
        hover[cell] += f"<br>{int(row['n'])} events"
    trace = go.Heatmap(z=z, x=list(steps), y=list(range(len(heads))), coloraxis="coloraxis")
    trace.update(xgap=1, ygap=1, hovertext=hover, hovertemplate="%{hovertext}<extra></extra>")
    if len(steps) <= MOST_LABELS:
        trace.update(text=written, texttemplate="%{text}", textfont={"size": 11})
    return trace


def _only(table: pd.DataFrame, column: str, value: str) -> pd.DataFrame:
    """Rows with this value, or all of a table without the column."""
    if column not in table:
        return table
    rows = where(table, **{column: value})
    if rows.empty:
        raise InputError(f"table: {column} {value!r} is not one of {named(table[column])}")
    return rows
