"""Figures of the evidence: how much rests on the heads, and how sure their choice is.

Faithfulness curves and their areas, the stability of the selection, and the number of prompts that
it needs.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from workbench.errors import InputError
from workbench.phases import OF_READOUT, PHASES
from workbench.plots.panels import PROBABILITY, band, error_bars, finish, line, row_name
from workbench.plots.style import (
    CONTROL,
    INK,
    POOL_COLOUR,
    drawn,
    named,
    nothing,
    require,
    titles,
    where,
)

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
    "filter_head": "filter heads",
    "qr_head": "QRHead",
    "retrieval_head": "retrieval heads",
}
"""Readable names of orders; others are shown as they are."""

OTHERS = ("#2a8f5c", "#b3267e", "#a67c00", "#1492a6", "#7a4b2a", "#5a5fc0")
DASHES = ("solid", "dash", "dot", "dashdot", "longdash", "longdashdot")
"""Colours and dashes of what has no colour of its own; none of them is that of a pool."""

CURVES = ["order", "kind", "readout", "k", "share", "value", "low", "high", "faithfulness", "n"]
AREAS = ["order", "kind", "readout", "cpr", "cpr_low", "cpr_high", "cmd", "cmd_low", "cmd_high"]
STABILITY = ["pool", "layer", "head", "share", "n_resamples"]
SAMPLE_SIZE = ["n_prompts", "pool", "overlap", "size", "empty", "n_subsets"]

MOST_BARS, RARE = 40, 0.05


@drawn
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
        readable, colour = OF_READOUT[readout].good_title, OF_READOUT[readout].colour
        here = where(curves, readout=readout, kind=kind)
        for order, look in _order_lines([*dict.fromkeys(curves["order"])], colour).items():
            rows = where(here, order=order).sort_values("k")
            if rows.empty:
                continue
            name = ORDERS.get(order, order)
            trace = go.Scatter(x=np.log1p(rows["k"]), y=rows["value"], mode="lines", line=look)
            trace.update(name="random" if _is_random(order) else name)
            if order == "pool":
                figure.add_trace(band(trace.x, rows, "", colour), row=row, col=column)
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
    finish(figure, title, subtitle, height=150 + 290 * n_rows)
    ticks = _spread_ticks(sorted({int(k) for k in curves["k"]}))
    figure.update_xaxes(tickvals=np.log1p(ticks), ticktext=[f"{k:,}" for k in ticks], tickangle=0)
    figure.update_xaxes(title_text="k, number of heads", row=n_rows)
    return figure.update_yaxes(range=PROBABILITY)


@drawn
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
        own = {"pool": OF_READOUT[readout].colour, "random": CONTROL}
        colours = [own.get(order, INK) for order in here["order"]]
        for area, symbol, offset in (("cpr", "circle", -0.16), ("cmd", "diamond-open", 0.16)):
            ends = here[f"{area}_low"], here[f"{area}_high"]
            trace = go.Scatter(x=here[area], mode="markers", name=AREA_NAMES[area])
            trace.update(y=[orders.index(order) + offset for order in here["order"]])
            trace.update(marker={"size": 9, "symbol": symbol, "color": colours})
            trace.update(error_x=error_bars(here[area], *ends, color=CONTROL, width=4))
            trace.update(text=[ORDERS.get(order, order) for order in here["order"]])
            trace.update(customdata=here[[f"{area}_low", f"{area}_high"]])
            hover = f"%{{text}}: {area.upper()} %{{x:.3f}} "
            hover += "[%{customdata[0]:.3f}, %{customdata[1]:.3f}]<extra></extra>"
            figure.add_trace(trace.update(hovertemplate=hover), row=row, col=column)
        figure.update_xaxes(title_text=f"area; {KINDS[kind][1]}", row=row, col=column)
    subtitle = "over the share of heads; bars: 95 % interval, for random orders the range of draws"
    finish(figure, title, subtitle, height=140 + cells[-1][2] * (90 + 32 * len(orders)))
    names = [ORDERS.get(order, order) for order in orders]
    if "random" in orders:
        names[orders.index("random")] = f"random, mean of {draws['order'].nunique()}"
    figure.update_yaxes(tickvals=list(range(len(names))), ticktext=names)
    figure.update_yaxes(range=[len(orders) - 0.4, -0.6])
    return figure.update_xaxes(rangemode="tozero")


@drawn
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
        if rows.empty and pool not in PHASES:
            continue
        heads = [row_name(pool, *head) for head in zip(rows["layer"], rows["head"], strict=True)]
        # Numbers, not names, as places: a head can be chosen for either pool.
        places = list(range(len(names), len(names) + len(heads)))
        bars = go.Bar(x=places, y=rows["share"], marker_color=colour, name=f"{pool} pool")
        hover = f"%{{text}}, {pool} pool: %{{y:.0%}}<extra></extra>"
        figure.add_trace(bars.update(text=heads, textposition="none", hovertemplate=hover))
        names += heads
    figure.add_hline(y=0.5, line={"color": INK, "width": 1, "dash": "dot"})
    rare = np.count_nonzero(stability["share"] > 0) - len(often)
    subtitle = f"share of {stability['n_resamples'].iloc[0]:,} resamples of the selection half"
    subtitle += f"; {rare} rarer not shown" * bool(rare)
    figure.update_layout(**titles(title, subtitle), height=400, bargap=0.3)
    figure.update_xaxes(title_text="layer-head", tickvals=list(range(len(names))), ticktext=names)
    # A few bars stay as slim as many would be.
    figure.update_xaxes(range=[-0.7, max(len(names), 8) - 0.3])
    return figure.update_yaxes(range=[0, 1.04], title_text="share of resamples")


@drawn
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
            if pool not in PHASES and not any(rows["size"].tolist()):
                continue
            hover = "%{x} prompts: %{y:.2f}<br>%{customdata[0]:.1f} heads on average, "
            hover += "%{customdata[1]} subsets"
            trace = line(rows, "n_prompts", quantity, f"{pool} pool", colour, hover)
            trace.update(customdata=rows[["size", "n_subsets"]])
            figure.add_trace(trace, row=1, col=column)
    finish(figure, title, "means over random subsets of the selection half", height=400)
    figure.update_xaxes(title_text="prompts", rangemode="tozero", tickformat="d")
    figure.update_yaxes(title_text="mean Jaccard index", range=PROBABILITY)
    return figure.update_yaxes(title_text="share of subsets", col=2)


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
    readouts = [name for name in OF_READOUT if name in set(table["readout"])]
    kinds = [name for name in KINDS if name in set(table["kind"])]
    if not readouts or not kinds:
        known = f"known are {named(OF_READOUT)} and {named(KINDS)}"
        found = f"readouts {named(table['readout'])} and kinds {named(table['kind'])}"
        raise InputError(f"curves: the table has {found}; {known}")
    panels = [
        f"{OF_READOUT[name].good_title}, {KINDS[kind][0]}" for name in readouts for kind in kinds
    ]
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
