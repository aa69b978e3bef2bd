"""Figures of the evidence: how much rests on the heads, how sure their choice is, where they act.

Faithfulness curves and their areas, the stability of the selection, the number of prompts it needs,
and Focus, Confusion and the effects of heads along a chain of thought.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from workbench.errors import InputError
from workbench.plots.style import (
    COARSE,
    CONTROL,
    INK,
    MEASURES,
    POOL_COLOUR,
    REFINE,
    UNPATCHED,
    named,
    nothing,
    number,
    require,
    titles,
    where,
)

READOUTS = {"focus": ("Focus", COARSE), "confusion": ("1 − Confusion", REFINE)}
"""Title of each readout of the curves, and the colour of the pool's order in it."""

KINDS = {
    "necessity": ("first k heads ablated", "lower is better"),
    "sufficiency": ("all but the first k ablated", "better: high CPR, low CMD"),
}
"""Kind of curve → what was ablated, and which end of its areas is better."""

AREA_NAMES = {"cpr": "CPR, area under the curve", "cmd": "CMD, distance from the ideal curve"}
ORDERS = {
    "effect": "causal effect",
    "score": "CoarseScore, RefineScore",
    "output_norm": "output norm",
    "query": "query transport",
}
"""Readable names of orders; others are shown as they are."""

OTHERS = ("#2a8f5c", "#b3267e", "#a67c00", "#1492a6", "#7a4b2a", "#5a5fc0")
DASHES = ("solid", "dash", "dot", "dashdot", "longdash", "longdashdot")
"""Colours and dashes of what has no colour of its own; none of them is that of a pool."""
SOURCE_DASH = {"given": "solid", "generated": "dash"}

CURVES = ["order", "kind", "readout", "k", "share", "value", "low", "high", "faithfulness", "n"]
AREAS = ["order", "kind", "readout", "cpr", "cpr_low", "cpr_high", "cmd", "cmd_low", "cmd_high"]
STABILITY = ["pool", "layer", "head", "share", "n_resamples"]
SAMPLE_SIZE = ["n_prompts", "pool", "overlap", "size", "empty", "n_subsets"]
CHAIN = ["kind", "model", "source", "step", "label", "focus", "focus_low", "focus_high"]
CHAIN += ["confusion", "confusion_low", "confusion_high", "n"]
CHAIN_EFFECTS = ["step", "layer", "head", "pool", "measure", "effect", "low", "high", "n"]

PROBABILITY = [-0.04, 1.04]
MOST_BARS, MOST_LABELS, RARE = 40, 14, 0.05


def faithfulness_curves(curves: pd.DataFrame) -> go.Figure:
    """Focus and 1 − Confusion with the first k heads of an order ablated, and with all but them.

    Columns: `CURVES`. One row of panels per readout, one column per kind. The order "pool" is thick
    and has its 95 % band; orders named "random …" are grey. k is spaced as log(1 + k).

    Raises:
        InputError: a column is missing, or no readout or no kind is known.
    """
    title = "How much rests on the first heads of an order"
    if curves.empty:
        return nothing(title, "no curve was measured")
    require(curves, CURVES)
    figure, cells = _curve_panels(curves, vertical_spacing=0.13)
    for readout, kind, row, column in cells:
        readable, colour = READOUTS[readout]
        here = where(curves, readout=readout, kind=kind)
        for order, line in _order_lines([*dict.fromkeys(curves["order"])], colour).items():
            rows = where(here, order=order).sort_values("k")
            if rows.empty:
                continue
            name = ORDERS.get(order, order)
            trace = go.Scatter(x=np.log1p(rows["k"]), y=rows["value"], mode="lines", line=line)
            trace.update(name="random" if _is_random(order) else name)
            if order == "pool":
                figure.add_trace(_band(trace.x, rows, "", colour), row=row, col=column)
                trace.update(mode="lines+markers", name=f"pool, {readable}", legendrank=1)
            hover = (
                f"{name}, k = %{{customdata[0]:,}} (%{{customdata[1]:.1%}} of heads): %{{y:.3f}}"
            )
            hover += "<br>faithfulness %{customdata[2]:.3f}, %{customdata[3]} events<extra></extra>"
            trace.update(customdata=rows[["k", "share", "faithfulness", "n"]], hovertemplate=hover)
            figure.add_trace(trace, row=row, col=column)
        figure.update_yaxes(title_text=readable, row=row, col=1)
    n_rows = cells[-1][2]
    subtitle = "heads ablated by their value on the counterfactual; band: 95 % interval"
    _finish(figure, title, subtitle, height=150 + 290 * n_rows)
    ticks = _spread_ticks(sorted({int(k) for k in curves["k"]}))
    figure.update_xaxes(tickvals=np.log1p(ticks), ticktext=[f"{k:,}" for k in ticks], tickangle=0)
    figure.update_xaxes(title_text="k, number of heads", row=n_rows)
    return figure.update_yaxes(range=PROBABILITY)


def curve_areas(areas: pd.DataFrame) -> go.Figure:
    """Areas of the faithfulness curves: CPR and CMD with 95 % intervals, one line per order.

    Columns: `AREAS`. All orders named "random …" are one line: their mean, and a bar over the range
    of the draws.

    Raises:
        InputError: a column is missing, or no readout or no kind is known.
    """
    title = "Areas of the faithfulness curves"
    if areas.empty:
        return nothing(title, "no area was measured")
    require(areas, AREAS)
    draws = areas.loc[[_is_random(order) for order in areas["order"]]]
    table = pd.concat([areas.drop(draws.index), _mean_of_draws(draws)], ignore_index=True)
    # The pool on top; the order of appearance otherwise, which ends with the random draws.
    orders = sorted(table["order"].drop_duplicates(), key=lambda order: order != "pool")
    figure, cells = _curve_panels(areas, vertical_spacing=0.16, shared_yaxes=True)
    for readout, kind, row, column in cells:
        here = where(table, readout=readout, kind=kind)
        own = {"pool": READOUTS[readout][1], "random": CONTROL}
        colours = [own.get(order, INK) for order in here["order"]]
        for area, symbol, offset in (("cpr", "circle", -0.16), ("cmd", "diamond-open", 0.16)):
            low, high = here[area] - here[f"{area}_low"], here[f"{area}_high"] - here[area]
            trace = go.Scatter(x=here[area], mode="markers", name=AREA_NAMES[area])
            trace.update(y=[orders.index(order) + offset for order in here["order"]])
            trace.update(marker={"size": 9, "symbol": symbol, "color": colours})
            trace.update(error_x={"array": high, "arrayminus": low, "color": CONTROL, "width": 4})
            trace.update(text=[ORDERS.get(order, order) for order in here["order"]])
            trace.update(customdata=here[[f"{area}_low", f"{area}_high"]])
            hover = f"%{{text}}: {area.upper()} %{{x:.3f}} "
            hover += "[%{customdata[0]:.3f}, %{customdata[1]:.3f}]<extra></extra>"
            figure.add_trace(trace.update(hovertemplate=hover), row=row, col=column)
        figure.update_xaxes(title_text=f"area; {KINDS[kind][1]}", row=row, col=column)
    subtitle = "over the share of heads; bars: 95 % interval, for random orders the range of draws"
    _finish(figure, title, subtitle, height=140 + cells[-1][2] * (90 + 32 * len(orders)))
    names = [ORDERS.get(order, order) for order in orders]
    if "random" in orders:
        names[orders.index("random")] = f"random, mean of {draws['order'].nunique()}"
    figure.update_yaxes(tickvals=list(range(len(names))), ticktext=names)
    figure.update_yaxes(range=[len(orders) - 0.4, -0.6])
    return figure.update_xaxes(rangemode="tozero")


def selection_stability(stability: pd.DataFrame) -> go.Figure:
    """Share of resamples in which each head is chosen, one bar per head and pool.

    Columns: `STABILITY`. Heads chosen in less than 5 % of the resamples are left out, and beyond 40
    bars the rarest; the subtitle counts them. Dotted: one half.

    Raises:
        InputError: a column is missing.
    """
    title = "Would other prompts choose the same heads?"
    if stability.empty:
        return nothing(title, "no selection was resampled")
    require(stability, STABILITY)
    often = stability.loc[stability["share"] >= RARE].nlargest(MOST_BARS, "share")
    if often.empty:
        return nothing(title, "no head was chosen in 5 % of the resamples")
    figure = go.Figure()
    names: list[str] = []
    for pool, colour in POOL_COLOUR.items():
        rows = where(often, pool=pool).sort_values("share", ascending=False, kind="stable")
        heads = [_name(pool, *head) for head in zip(rows["layer"], rows["head"], strict=True)]
        # Numbers, not names, as places: a head can be chosen for either pool.
        places = list(range(len(names), len(names) + len(heads)))
        bars = go.Bar(x=places, y=rows["share"], marker_color=colour, name=f"{pool} pool")
        hover = f"%{{text}}, {pool} pool: %{{y:.0%}}<extra></extra>"
        figure.add_trace(bars.update(text=heads, textposition="none", hovertemplate=hover))
        names += heads
    figure.add_hline(y=0.5, line={"color": INK, "width": 1, "dash": "dot"})
    rare = np.count_nonzero(stability["share"] > 0) - len(often)
    subtitle = f"share of {stability['n_resamples'].iloc[0]:,} resamples of the choosing prompts"
    subtitle += f"; {rare} rarer not shown" * bool(rare)
    figure.update_layout(**titles(title, subtitle), height=400, bargap=0.3)
    figure.update_xaxes(title_text="layer-head", tickvals=list(range(len(names))), ticktext=names)
    # A few bars stay as slim as many would be.
    figure.update_xaxes(range=[-0.7, max(len(names), 8) - 0.3])
    return figure.update_yaxes(range=[0, 1.04], title_text="share of resamples")


def prompts_needed(sample_size: pd.DataFrame) -> go.Figure:
    """What smaller sets of prompts would have chosen: overlap with the whole, and empty pools.

    Columns: `SAMPLE_SIZE`; `overlap` is the mean Jaccard index with the pool of all prompts, and
    `empty` the share of subsets with an empty pool.

    Raises:
        InputError: a column is missing.
    """
    title = "How many prompts the choice needs"
    if sample_size.empty:
        return nothing(title, "no smaller set of prompts was tried")
    require(sample_size, SAMPLE_SIZE)
    panels = {
        "overlap": "Overlap with the pool of all prompts",
        "empty": "Subsets that choose none",
    }
    figure = make_subplots(cols=2, subplot_titles=list(panels.values()), horizontal_spacing=0.1)
    for column, quantity in enumerate(panels, start=1):
        for pool, colour in POOL_COLOUR.items():
            rows = where(sample_size, pool=pool).sort_values("n_prompts")
            trace = go.Scatter(x=rows["n_prompts"], y=rows[quantity], mode="lines+markers")
            trace.update(line={"color": colour, "width": 2}, marker={"size": 7})
            hover = "%{x} prompts: %{y:.2f}<br>%{customdata[0]:.1f} heads on average, "
            hover += "%{customdata[1]} subsets<extra></extra>"
            trace.update(customdata=rows[["size", "n_subsets"]], hovertemplate=hover)
            figure.add_trace(trace.update(name=f"{pool} pool"), row=1, col=column)
    _finish(figure, title, "means over random subsets of the choosing prompts", height=400)
    figure.update_xaxes(title_text="prompts", rangemode="tozero", tickformat="d")
    figure.update_yaxes(title_text="mean Jaccard index", range=PROBABILITY)
    return figure.update_yaxes(title_text="share of subsets", col=2)


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
    for row, quantity in enumerate(("focus", "confusion"), start=1):
        for (model, source), line in sorted(lines, key=lambda item: models.index(item[0][0])):  # type: ignore[index]
            colour = (INK, *OTHERS)[models.index(model) % (1 + len(OTHERS))]
            trace = go.Scatter(x=line["step"], y=line[quantity], mode="lines+markers")
            dash = SOURCE_DASH.get(source, "dot")
            trace.update(line={"color": colour, "width": 2, "dash": dash}, marker={"size": 6})
            name = f"{model}, {source} chain"
            hover = f"{name}<br>step %{{x}}, %{{customdata[0]}}: %{{y:.3f}}"
            hover += "<br>%{customdata[1]} events<extra></extra>"
            trace.update(name=name, customdata=line[["label", "n"]], hovertemplate=hover)
            band = _band(trace.x, line, f"{quantity}_", colour)
            figure.add_traces([band, trace], rows=row, cols=1)
        figure.update_yaxes(title_text=quantity.capitalize(), row=row)
    _finish(figure, title, "the answer as it stands after each step; 95 % band", height=600)
    figure.update_layout(margin_t=72)  # no panel titles
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
    hidden = "refine_boost" if "refine_boost_abs" in present else ""
    measures = [name for name in MEASURES if name in present and name != hidden]
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
        subplot_titles=[MEASURES[name][0] for name in measures],
    )
    marks = {
        (pool, _name(pool, layer, head)): f'<span style="color:{POOL_COLOUR.get(pool, INK)}">'
        f"{_name(pool, layer, head)}</span>"
        for pool, layer, head in zip(table["pool"], table["layer"], table["head"], strict=True)
    }
    for index, measure in enumerate(measures):
        trace = _effects_heatmap(where(table, measure=measure), list(marks), list(steps.index))
        row, column = divmod(index, n_columns)
        figure.add_trace(trace, row=row + 1, col=column + 1)
    subtitle = "means over events; in brackets: the 95 % interval includes 0"
    _finish(figure, title, subtitle, height=150 + n_rows * (70 + max(26 * len(marks), 80)))
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
        name = _name(row["pool"], row["layer"], row["head"])
        cell = heads.index((row["pool"], name)), steps.index(row["step"])
        effect, low, high = (float(row[name]) for name in ("effect", "low", "high"))
        z[cell] = effect
        short = f"{round(effect, 2) + 0.0:.2f}".replace("-", "−")  # and no minus zero
        # An interval that was not measured excludes nothing.
        written[cell] = short if low > 0 or high < 0 else f"({short})"
        hover[cell] = f"{name}, step {row['step']}<br>"
        hover[cell] += f"{row['measure'].replace('_', ' ')}: {number(effect)} "
        hover[cell] += f"[{number(low)}, {number(high)}]<br>{int(row['n'])} events"
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


def _name(pool: str, layer: Any, head: Any) -> str:
    return f"{pool} pool" if pd.isna(layer) else f"{int(layer)}-{int(head)}"


def _is_random(order: str) -> bool:
    return order.startswith("random")


def _mean_of_draws(draws: pd.DataFrame) -> pd.DataFrame:
    """Areas of the random orders as one order, its ends the lowest and highest draw."""
    ends = {
        f"{area}{end}": (area, how)
        for area in AREA_NAMES
        for end, how in (("", "mean"), ("_low", "min"), ("_high", "max"))
    }
    means = draws.groupby(["kind", "readout"], sort=False, as_index=False).agg(**ends)  # type: ignore[call-overload]
    return means.assign(order="random")


def _order_lines(names: Sequence[str], colour: str) -> dict[str, dict[str, Any]]:
    """Line of each order, in drawing order: random orders below, the pool on top."""
    lines: dict[str, dict[str, Any]] = {}
    lines |= {name: {"color": CONTROL, "width": 1} for name in names if _is_random(name)}
    others = [name for name in names if name not in lines and name != "pool"]
    for index, name in enumerate(others):
        dash = DASHES[index % len(DASHES)]
        lines[name] = {"color": OTHERS[index % len(OTHERS)], "width": 1.7, "dash": dash}
    return lines | {"pool": {"color": colour, "width": 3.5}}


def _curve_panels(
    table: pd.DataFrame, **spacing: Any
) -> tuple[go.Figure, list[tuple[str, str, int, int]]]:
    """Panels of the readouts and kinds that a table has: (readout, kind, row, column)."""
    readouts = [name for name in READOUTS if name in set(table["readout"])]
    kinds = [name for name in KINDS if name in set(table["kind"])]
    if not readouts or not kinds:
        known = f"known are {named(READOUTS)} and {named(KINDS)}"
        found = f"readouts {named(table['readout'])} and kinds {named(table['kind'])}"
        raise InputError(f"curves: the table has {found}; {known}")
    panels = [f"{READOUTS[name][0]}, {KINDS[kind][0]}" for name in readouts for kind in kinds]
    size = {"rows": len(readouts), "cols": len(kinds), "horizontal_spacing": 0.08}
    figure = make_subplots(**size, subplot_titles=panels, **spacing)
    cells = [
        (readout, kind, row, column)
        for row, readout in enumerate(readouts, start=1)
        for column, kind in enumerate(kinds, start=1)
    ]
    return figure, cells


def _spread_ticks(every: Sequence[int]) -> list[int]:
    """Sizes to label on a log(1 + k) axis: the ends, and what has room between them."""
    places = np.log1p(every)
    room, kept = places[-1] / 13, [0]
    for index in range(1, len(every) - 1):
        if min(places[index] - places[kept[-1]], places[-1] - places[index]) >= room:
            kept.append(index)
    return [every[index] for index in dict.fromkeys([*kept, len(every) - 1])]


def _band(x: Any, rows: pd.DataFrame, prefix: str, colour: str) -> go.Scatter:
    """Interval band; points without an interval are passed over."""
    low, high = (rows[f"{prefix}{end}"].to_numpy(float) for end in ("low", "high"))
    known = np.isfinite(low) & np.isfinite(high)
    x, low, high = np.asarray(x)[known], low[known], high[known]
    band = go.Scatter(x=np.concatenate([x, x[::-1]]), y=np.concatenate([high, low[::-1]]))
    band.update(mode="lines", line={"width": 0}, fill="toself", fillcolor=colour, opacity=0.13)
    return band.update(showlegend=False, hoverinfo="skip")


def _finish(figure: go.Figure, title: str, subtitle: str, height: int) -> None:
    """Common look of figures with panels, and one legend entry per name for all of them."""
    figure.update_layout(**titles(title, subtitle), height=height, margin_t=100, margin_b=112)
    figure.update_annotations(font_size=13)
    seen: set[str] = set()

    def once(trace: Any) -> None:
        if trace.name and trace.showlegend is not False:
            trace.update(showlegend=trace.name not in seen, legendgroup=trace.name)
            seen.add(trace.name)

    figure.for_each_trace(once)
