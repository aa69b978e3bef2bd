"""Figures of one run, each drawn from the run's tables alone (plotly).

In every heat map layers run upwards from 0, heads to the right from 0, and one diverging scale is
centred at 0: red means the effect has the sign of its name, blue the opposite sign, white nothing.
Blue marks the coarse pool and the far counterfactual, orange the refine pool and the near one,
purple a read-out head, grey a control.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from workbench.errors import InputError

COARSE, REFINE, READ_OUT = "#3465a4", "#d55e00", "#7b3fa0"
CONTROL, INK, UNPATCHED = "#8a9099", "#252a31", "#dde1e6"
POOL_COLOUR = {"coarse": COARSE, "refine": REFINE}
POOL_SYMBOL = {"coarse": "square-open", "refine": "circle-open"}
VARIANT_COLOUR = {"clean": INK, "far": COARSE, "near": REFINE}

SCORES = {
    "coarse": ("CoarseScore", "attention: relevant − far"),
    "refine": ("RefineScore", "log-odds, gold against near"),
    "refine_direct": ("RefineScore, direct part", "log-odds, gold against near"),
    "coarse_attribution": ("Coarse attribution", "log-odds, cluster against far"),
}
"""Title and unit of each score, in the order shown."""

MEASURES = {
    "coarse_restore": ("Focus restored", "far prompt, clean value", "share of lost Focus"),
    "coarse_disrupt": ("Focus disrupted", "clean prompt, far value", "share of clean Focus"),
    "refine_reduce": ("Confusion reduced", "near prompt, clean value", "share of near Confusion"),
    "refine_boost": (
        "Confusion boosted",
        "clean prompt, near value",
        "relative to clean Confusion",
    ),
    "refine_boost_abs": ("Confusion boosted, absolute", "clean prompt, near value", "Confusion"),
}
"""Title, what was patched, and unit of each causal measure, in the order shown."""

POSITIONS = {"decision": "at the decision token", "span": "over the whole suffix"}


def _template() -> go.layout.Template:
    """White, thin grid, one sans-serif face from the reader's own machine."""
    line = "#c9ced6"
    axis = {"gridcolor": "#eceff2", "linecolor": line, "tickcolor": line, "zeroline": False}
    axis |= {
        "ticks": "outside",
        "ticklen": 4,
        "title": {"standoff": 8, "font": {"size": 13}},
        "automargin": True,
    }
    subtitle_font = {"size": 12, "color": "#5b6470"}
    layout = go.Layout(
        font={"family": "Inter, Helvetica Neue, Helvetica, Arial, sans-serif", "size": 13},
        font_color=INK,
        title={"x": 0, "xanchor": "left", "y": 1, "yanchor": "top", "pad": {"t": 14, "l": 14}},
        title_font_size=16,
        title_subtitle_font=subtitle_font,
        margin={"l": 56, "r": 24, "t": 72, "b": 84},
        paper_bgcolor="white",
        plot_bgcolor="white",
        xaxis=axis,
        yaxis=axis,
        legend={"orientation": "h", "x": 0, "xref": "container", "y": 0, "yref": "container"},
        legend_yanchor="bottom",
        hoverlabel={"align": "left", "bgcolor": "white", "font": {"color": INK}},
    )
    return go.layout.Template(layout=layout)


TEMPLATE = _template()


def head_heatmap(
    table: pd.DataFrame,
    value: str,
    low: str | None = None,
    high: str | None = None,
    *,
    title: str,
    colorbar_title: str,
    pooled: Mapping[tuple[int, int], str] = {},
    limit: float | int | None = None,
    extra_hover: Sequence[str] = (),
    shape: tuple[int, int] | None = None,
    subtitle: str = "",
) -> go.Figure:
    """One value per head: layer upwards, head to the right, colours symmetric about 0.

    `value`, `low`, `high` and `extra_hover` name columns of `table`. Heads without a row are grey,
    and hovering over them says "not patched". `pooled` maps (layer, head) to the name of its pool,
    "coarse" or "refine", followed by " read-out" where that holds. `limit` is the value of full
    colour (default: the largest |value|); beyond it the colour stays and the colour bar says so.
    `shape` (layers, heads) is inferred where it is not given.

    Raises:
        InputError: a column is missing, a head has two rows, or a head lies outside `shape`.
    """
    _require(table, ["layer", "head", value, *filter(None, (low, high)), *extra_hover])
    n_layers, n_heads = shape or _shape(table, pooled)
    z = np.full((n_layers, n_heads), np.nan)
    hover = [
        [f"<b>layer {layer}, head {head}</b><br>not patched" for head in range(n_heads)]
        for layer in range(n_layers)
    ]
    seen: set[tuple[int, int]] = set()
    for row in table.to_dict("records"):
        cell = int(row["layer"]), int(row["head"])
        if cell in seen or cell[0] >= n_layers or cell[1] >= n_heads:
            problem = "has two rows" if cell in seen else f"is outside {n_layers} × {n_heads}"
            raise InputError(f"heat map of {value!r}: layer {cell[0]}, head {cell[1]} {problem}")
        seen.add(cell)
        z[cell] = row[value]
        pool = pooled.get(cell, "")
        hover[cell[0]][cell[1]] = _hover(row, (value, low, high), extra_hover, pool)
    figure = go.Figure(_heatmap(z, hover, limit, colorbar_title))
    height = _cell_height(n_layers)
    figure.add_traces(_pool_markers(pooled, min(height, 560 / n_heads)))
    figure.update_layout(
        **_titles(title, subtitle), height=int(n_layers * height + 72 + 84), plot_bgcolor=UNPATCHED
    )
    figure.update_xaxes(title_text="head", range=[-0.5, n_heads - 0.5], **_head_axis(n_heads))
    figure.update_yaxes(title_text="layer", range=[-0.5, n_layers - 0.5], **_head_axis(n_layers))
    return figure


def _shape(table: pd.DataFrame, pooled: Mapping[tuple[int, int], str]) -> tuple[int, int]:
    """Smallest (layers, heads) that holds every head of the table and of the pools."""
    layers = [*table["layer"], *(layer for layer, _ in pooled)]
    heads = [*table["head"], *(head for _, head in pooled)]
    return int(max(layers, default=0)) + 1, int(max(heads, default=0)) + 1


def _cell_height(n_layers: int) -> float:
    """Pixels per layer: roomy for small models, still told apart with 80 layers."""
    return float(np.clip(420 / n_layers, 9, 34))


def _head_axis(count: int) -> dict[str, Any]:
    """At most 16 integer ticks, so that labels never touch."""
    step = next((step for step in (1, 2, 4, 5, 8, 10, 16, 32) if count <= 16 * step), 64)
    return {"tick0": 0, "dtick": step, "showgrid": False, "constrain": "domain"}


def _hover(
    row: Mapping[Any, Any], columns: Sequence[str | None], extra: Sequence[str], pool: str
) -> str:
    """Lines about one head: where, value and interval, events, q, extras, pool."""
    value, low, high = columns
    lines = [f"<b>layer {int(row['layer'])}, head {int(row['head'])}</b>"]
    measured = f"{_words(value)}: {number(row[value])}"
    if low and high:
        measured += f" [{number(row[low])}, {number(row[high])}]"
    lines.append(measured if number(row[value]) != "–" else f"{_words(value)}: no event counted")
    if "n" in row:
        left_out = int(row.get("n_excluded", 0))
        lines.append(f"events: {int(row['n'])}" + f" ({left_out} did not count)" * bool(left_out))
    if f"{value}_q" in row:
        lines.append(f"q: {number(row[f'{value}_q'])}")
    lines += [f"{_words(name)}: {number(row[name])}" for name in extra]
    return "<br>".join([*lines, f"in the {pool_label(pool)}"] if pool else lines)


def _words(column: str | None) -> str:
    return (column or "").replace("_", " ")


def number(value: Any) -> str:
    """About three significant digits, with a true minus sign; text as it is; a dash for nothing."""
    if isinstance(value, str):
        return value
    if value is None or not np.isfinite(value):
        return "–"
    digits = f"{value:.2f}" if 0.1 <= abs(value) < 100 else f"{value:.3g}"
    return digits.replace("-", "−")


def _heatmap(
    z: np.ndarray, hover: list[list[str]], limit: float | int | None, colorbar_title: str
) -> go.Heatmap:
    finite = np.abs(z[np.isfinite(z)])
    largest = float(finite.max()) if finite.size else 0.0
    limit = limit or largest or 1.0
    ticks = [-limit, -limit / 2, 0, limit / 2, limit]
    labels = [number(tick) if tick else "0" for tick in ticks]
    if largest > limit * 1.0001:
        labels[0], labels[-1] = f"≤ {labels[0]}", f"≥ {labels[-1]}"
    return go.Heatmap(
        z=z,
        x=list(range(z.shape[1])),
        y=list(range(z.shape[0])),
        zmin=-limit,
        zmax=limit,
        colorscale="RdBu_r",
        xgap=1,
        ygap=1,
        hovertext=hover,
        hovertemplate="%{hovertext}<extra></extra>",
        hoverongaps=True,
        colorbar={
            "title": {"text": colorbar_title, "side": "right", "font": {"size": 12}},
            "thickness": 12,
            "outlinewidth": 0,
            "tickvals": ticks,
            # Trailing spaces keep the upright title off the labels.
            "ticktext": [label + "\N{NO-BREAK SPACE}" * 3 for label in labels],
        },
    )


def pool_label(name: str) -> str:
    """Readable name of a pool mark, such as "refine pool, read-out"."""
    pool, _, rest = name.partition(" ")
    return f"{pool} pool" + (", read-out" if "read-out" in rest else "")


def _pool_markers(pooled: Mapping[tuple[int, int], str], cell: float) -> list[go.Scatter]:
    """Outlines around pooled heads: the shape tells the pool, purple tells a read-out."""
    traces = []
    size = float(np.clip(0.6 * cell, 6, 20))
    for name in sorted(set(pooled.values())):
        heads = sorted(place for place, pool in pooled.items() if pool == name)
        pool = name.split(" ")[0]
        colour = READ_OUT if "read-out" in name else POOL_COLOUR.get(pool, INK)
        # A white line under the coloured one keeps the outline visible on cells of any colour.
        for line_colour, width in (("white", 5.0), (colour, 2.5)):
            traces.append(
                go.Scatter(
                    x=[head for _, head in heads],
                    y=[layer for layer, _ in heads],
                    mode="markers",
                    name=pool_label(name),
                    legendgroup=name,
                    showlegend=line_colour == colour,
                    hoverinfo="skip",
                    marker={
                        "symbol": POOL_SYMBOL.get(pool, "diamond-open"),
                        "size": size,
                        "color": line_colour,
                        "line": {"width": width if size > 9 else width - 1},
                    },
                )
            )
    return traces


def pooled_heads(headset: Mapping[str, Any]) -> dict[tuple[int, int], str]:
    """(layer, head) → pool name, with " read-out" added where it holds, from a head-set dict."""
    return {
        (int(head["layer"]), int(head["head"])): head.get("pool", "pooled")
        + (" read-out" if head.get("read_out") else "")
        for head in headset.get("heads", [])
    }


def score_heatmaps(
    scores: pd.DataFrame, pooled: Mapping[tuple[int, int], str]
) -> dict[str, go.Figure]:
    """One heat map per score that the table has, by score name; each has its own colour limit."""
    extras = {"coarse": ("coarse_route", "coarse_evidence", "coarse_decision")}
    figures = {}
    for name, (title, unit) in SCORES.items():
        if name not in scores:
            continue
        interval = [
            f"{name}_{end}" if f"{name}_{end}" in scores else None for end in ("low", "high")
        ]
        figures[name] = head_heatmap(
            scores,
            name,
            *interval,
            title=title,
            subtitle="observational: nominates heads, proves nothing",
            colorbar_title=unit,
            pooled=pooled,
            extra_hover=[column for column in extras.get(name, ()) if column in scores],
        )
    return figures


def patching_heatmaps(
    patching: pd.DataFrame,
    pooled: Mapping[tuple[int, int], str],
    *,
    half: str = "verify",
    shape: tuple[int, int] | None = None,
) -> dict[tuple[str, str], go.Figure]:
    """Heat map of each (measure, positions) in the table; full colour is 1 in all of them.

    Effects are shares, so one limit makes the same colour the same effect in every figure.

    Raises:
        InputError: the table has rows, but none of this half.
    """
    if patching.empty:
        return {}
    rows = _where(patching, half=half)
    if rows.empty:
        raise InputError(
            f"patching table: no rows of half {half!r}, only {_named(patching['half'])}"
        )
    rows = rows.drop_duplicates(["layer", "head", "positions", "measure"])
    shape = shape or _shape(rows, pooled)
    figures = {}
    for measure, (title, patched, unit) in MEASURES.items():
        for positions in POSITIONS:
            table = _one_measure(rows, measure, positions)
            if table.empty or measure == "refine_boost_abs":
                continue
            figures[measure, positions] = head_heatmap(
                table,
                measure,
                "low",
                "high",
                title=f"{title}, {POSITIONS[positions]}",
                subtitle=f"{measure}: {patched}; {half} half",
                colorbar_title=unit,
                pooled=pooled,
                limit=1.0,
                extra_hover=[name for name in ("refine_boost_abs", "group") if name in table],
                shape=shape,
            )
    return figures


def _one_measure(rows: pd.DataFrame, measure: str, positions: str) -> pd.DataFrame:
    """Rows of one measure, the effect under its name; the boost also carries its absolute."""
    place = _where(rows, positions=positions)
    table = _where(place, measure=measure).rename(columns={"effect": measure})
    if measure != "refine_boost":
        return table
    absolute = _where(place, measure="refine_boost_abs")
    absolute = absolute.rename(columns={"effect": "refine_boost_abs"})
    absolute = absolute.filter(["layer", "head", "refine_boost_abs"])
    return table.merge(absolute, on=["layer", "head"], how="left")


def focus_confusion(baseline: pd.DataFrame) -> go.Figure:
    """Focus and Confusion of the unpatched clean, far and near prompts.

    Large marks are means over events with 95 % percentile bootstrap intervals over prompts; small
    points are prompts. Focus is the probability on the *clean* gold's cluster in all three.
    """
    figure = make_subplots(cols=2, subplot_titles=["Focus", "Confusion"], horizontal_spacing=0.1)
    for column, quantity in enumerate(("focus", "confusion"), start=1):
        for x, (variant, colour) in enumerate(VARIANT_COLOUR.items()):
            events = _where(baseline, variant=variant)
            if not events.empty:
                figure.add_traces(
                    _points_and_mean(events, quantity, x, colour), cols=column, rows=1
                )
    subtitle = "small: one prompt each; large: mean, 95 % interval"
    _finish_panels(figure, "What the model does unpatched", subtitle, height=380)
    figure.update_layout(showlegend=False, margin_b=40)
    figure.update_xaxes(tickvals=[0, 1, 2], ticktext=list(VARIANT_COLOUR), range=[-0.5, 2.5])
    figure.update_yaxes(range=[-0.04, 1.04])
    return figure


def _points_and_mean(events: pd.DataFrame, quantity: str, x: int, colour: str) -> list[go.Scatter]:
    mean, low, high = bootstrap_over_prompts(events, quantity)
    totals = _prompt_totals(events, quantity)
    prompts = totals[:, 0] / totals[:, 1]
    # Golden-ratio steps spread the points evenly and the same way every time.
    jitter = (np.arange(len(prompts)) * 0.618034) % 1 * 0.5 - 0.25
    points = go.Scatter(
        x=x + jitter,
        y=prompts,
        mode="markers",
        marker={"size": 5, "color": colour, "opacity": 0.3},
        customdata=np.arange(1, len(prompts) + 1),
        hovertemplate="prompt no. %{customdata}: %{y:.3f}<extra></extra>",
    )
    average = go.Scatter(
        x=[x],
        y=[mean],
        mode="markers",
        marker={"size": 12, "color": colour, "line": {"width": 1.5, "color": "white"}},
        error_y=_error([mean], [low], [high], colour),
        hovertemplate=f"mean {number(mean)} [{number(low)}, {number(high)}]<extra></extra>",
    )
    return [points, average]


def bootstrap_over_prompts(
    events: pd.DataFrame, quantity: str, *, resamples: int = 2_000, seed: int = 0
) -> tuple[float, float, float]:
    """Mean over events with its 95 % percentile interval; whole prompts are drawn, not events."""
    prompts = _prompt_totals(events, quantity)
    draws = np.random.default_rng(seed).integers(len(prompts), size=(resamples, len(prompts)))
    totals = prompts[draws].sum(axis=1)
    low, high = np.percentile(totals[:, 0] / totals[:, 1], [2.5, 97.5])
    mean = prompts[:, 0].sum() / prompts[:, 1].sum()
    return float(mean), float(low), float(high)


def _prompt_totals(events: pd.DataFrame, quantity: str) -> np.ndarray:
    """Sum and number of events of every prompt, in order of appearance."""
    prompts = events.groupby("id", sort=False)
    return np.asarray(prompts.agg(total=(quantity, "sum"), count=(quantity, "count")), dtype=float)


def pool_effects(pools: pd.DataFrame) -> go.Figure:
    """Joint effect of each pool beside its controls, one row of panels per pool.

    Random control: the diamond is the mean over draws, the small points are the draws. The boost is
    shown as a difference where the table has it, so that one axis fits all measures.
    """
    names = [] if pools.empty else [name for name in POOL_COLOUR if name in set(pools["pool"])]
    if not names:
        return _nothing("Joint effect of the pools", "no pool to show: no head qualified")
    places = [place for place in POSITIONS if place in set(pools["positions"])]
    present = set(pools["measure"])
    hidden = "refine_boost" if "refine_boost_abs" in present else ""
    measures = [name for name in MEASURES if name in present and name != hidden][::-1]
    figure = make_subplots(
        rows=len(names),
        cols=len(places),
        shared_xaxes="all",  # type: ignore[arg-type]
        shared_yaxes=True,
        horizontal_spacing=0.05,
        vertical_spacing=0.12,
        subplot_titles=[f"{name}, {POSITIONS[place]}" for name in names for place in places],
    )
    for row, name in enumerate(names, start=1):
        for column, place in enumerate(places, start=1):
            here = _where(pools, pool=name, positions=place)
            traces = _pool_traces(here, name, measures)
            figure.add_traces(traces, rows=row, cols=column)
            figure.add_vline(x=0, line_width=1, line_color=CONTROL, row=row, col=column)  # type: ignore[arg-type]
    subtitle = "verify half; bars: 95 % interval"
    height = 130 + 200 * len(names)
    _finish_panels(figure, "Joint effect of the pools and their controls", subtitle, height)
    figure.update_yaxes(
        tickvals=list(range(len(measures))),
        ticktext=[name.replace("_", " ") for name in measures],
        range=[-0.5, len(measures) - 0.5],
    )
    return figure


def _pool_traces(here: pd.DataFrame, pool: str, measures: Sequence[str]) -> list[go.Scatter]:
    """Pool, random draws with their mean, and largest-norm heads, a little above one another."""
    centre = {measure: index for index, measure in enumerate(measures)}
    here = here.loc[here["measure"].isin(measures)]
    draws = _where(here, set="random")
    mean = draws.groupby("measure", sort=False, as_index=False).agg(effect=("effect", "mean"))
    small = {"size": 5, "color": CONTROL, "opacity": 0.45}
    diamond = {"size": 9, "color": CONTROL, "symbol": "diamond"}
    norm = {"size": 9, "color": CONTROL, "symbol": "square-open", "line": {"width": 2}}
    solid = {"size": 11, "color": POOL_COLOUR[pool]}
    parts = [
        (_where(here, set="pool"), f"{pool} pool", solid, 0.25, True),
        (draws, "random heads, each draw", small, 0.0, False),
        (mean, "random heads, mean", diamond, 0.0, False),
        (_where(here, set="norm"), "largest-norm heads", norm, -0.25, True),
    ]
    return [
        go.Scatter(
            x=part["effect"],
            y=[centre[measure] + offset for measure in part["measure"]],
            mode="markers",
            name=name,
            marker=marker,
            error_x=_error(part["effect"], part["low"], part["high"], marker["color"])
            if bars
            else None,
            customdata=part["measure"],
            hovertemplate=f"{name}<br>%{{customdata}}: %{{x:.3f}}<extra></extra>",
        )
        for part, name, marker, offset, bars in parts
        if not part.empty
    ]


def trajectory(table: pd.DataFrame) -> go.Figure:
    """Focus and Confusion read out after each step, a line with its interval band per variant."""
    figure = make_subplots(cols=2, subplot_titles=["Focus", "Confusion"], horizontal_spacing=0.1)
    for column, quantity in enumerate(("focus", "confusion"), start=1):
        for variant, colour in VARIANT_COLOUR.items():
            line = _where(table, variant=variant).sort_values("step")
            if not line.empty:
                figure.add_traces(
                    _line_and_band(line, quantity, variant, colour), cols=column, rows=1
                )
    kind = str(table["kind"].iloc[0]) if "kind" in table and len(table) else "step"
    subtitle = "the answer as it stands there; 95 % band"
    _finish_panels(figure, f"Focus and Confusion by {kind}", subtitle, height=400)
    figure.update_xaxes(title_text=kind, tickformat="d")
    figure.update_yaxes(range=[-0.04, 1.04])
    return figure


def _line_and_band(
    line: pd.DataFrame, quantity: str, variant: str, colour: str
) -> list[go.Scatter]:
    steps = line["step"].to_numpy()
    band = go.Scatter(
        x=np.concatenate([steps, steps[::-1]]),
        y=np.concatenate([line[f"{quantity}_high"], line[f"{quantity}_low"][::-1]]),
        mode="lines",
        fill="toself",
        fillcolor=colour,
        opacity=0.15,
        line={"width": 0},
        legendgroup=variant,
        showlegend=False,
        hoverinfo="skip",
    )
    mean = go.Scatter(
        x=steps,
        y=line[quantity],
        mode="lines+markers",
        line={"color": colour, "width": 2},
        marker={"size": 5},
        name=variant,
        legendgroup=variant,
        hovertemplate=f"{variant}, %{{x}}: %{{y:.3f}}<extra></extra>",
    )
    return [band, mean]


def choose_verify(patching: pd.DataFrame) -> go.Figure:
    """Effect in the verifying half against the choosing half, one point per nominated head.

    Points below the diagonal shrank: heads picked for a large effect in one half owe a part of it
    to chance. Where no head is marked as nominated, all patched heads are shown.
    """
    title = "Does the effect hold on other prompts?"
    if patching.empty:
        return _nothing(title, "no head was patched")
    heads = _where(patching, group="nominated").filter(["layer", "head"]).drop_duplicates()
    rows = patching.merge(heads, on=["layer", "head"]) if len(heads) else patching
    keys = ["layer", "head", "positions", "measure"]
    table = rows.drop_duplicates([*keys, "half"]).pivot(index=keys, columns="half", values="effect")
    if not {"choose", "verify"} <= set(table.columns):
        return _nothing(title, "effects of two halves were not measured")
    table = table.reset_index()
    measures = ("coarse_restore", "refine_reduce")
    figure = make_subplots(
        cols=2, subplot_titles=[MEASURES[name][0] for name in measures], horizontal_spacing=0.14
    )
    for column, (measure, colour) in enumerate(
        zip(measures, (COARSE, REFINE), strict=True), start=1
    ):
        here = _where(table, measure=measure)
        figure.add_traces(_halves(here, colour), cols=column, rows=1)
        ends = here[["choose", "verify"]].to_numpy(float)
        ends = ends[np.isfinite(ends)]
        edge = [min(0.0, *ends) - 0.06, max(0.2, *ends) + 0.06] if ends.size else [-0.06, 1.06]
        diagonal = go.Scatter(x=edge, y=edge, mode="lines", hoverinfo="skip", showlegend=False)
        diagonal.update(line={"color": CONTROL, "dash": "dot", "width": 1})
        figure.add_trace(diagonal, row=1, col=column)
        figure.update_xaxes(range=edge, title_text="choosing half", row=1, col=column)
        figure.update_yaxes(range=edge, row=1, col=column)
    subtitle = "one point per nominated head; dotted: equal in both halves"
    _finish_panels(figure, title, subtitle, height=420)
    figure.update_yaxes(title_text="verifying half", row=1, col=1)
    return figure


def _halves(here: pd.DataFrame, colour: str) -> list[go.Scatter]:
    """Filled points for the span, open ones for the decision token."""
    traces = []
    for positions, symbol in (("span", "circle"), ("decision", "circle-open")):
        rows = _where(here, positions=positions)
        places = zip(rows["layer"], rows["head"], strict=True)
        traces.append(
            go.Scatter(
                x=rows["choose"],
                y=rows["verify"],
                mode="markers",
                name=POSITIONS[positions],
                marker={"size": 9, "color": colour, "symbol": symbol, "line": {"width": 1.5}},
                text=[f"layer {layer}, head {head}" for layer, head in places],
                hovertemplate="%{text}<br>choosing %{x:.3f}, verifying %{y:.3f}<extra></extra>",
            )
        )
    return traces


def _finish_panels(figure: go.Figure, title: str, subtitle: str, height: int) -> None:
    """Common look of figures with panels, and one legend entry per name for all of them."""
    figure.update_layout(**_titles(title, subtitle), height=height, margin_t=100)
    figure.update_annotations(font_size=13)
    seen: set[str] = set()

    def update(trace: Any) -> None:
        if trace.name and trace.showlegend is not False:
            trace.update(showlegend=trace.name not in seen, legendgroup=trace.name)
            seen.add(trace.name)

    figure.for_each_trace(update)


def _nothing(title: str, reason: str) -> go.Figure:
    """A figure that says why it is empty."""
    figure = go.Figure()
    figure.update_layout(**_titles(title), height=200)
    figure.update_xaxes(visible=False)
    figure.update_yaxes(visible=False)
    figure.add_annotation(text=reason, x=0.5, y=0.5, xref="paper", yref="paper", showarrow=False)
    return figure


def _error(mean: Any, low: Any, high: Any, colour: str) -> dict[str, Any]:
    """Asymmetric error bar from the ends of an interval."""
    mean, low, high = (np.asarray(values, dtype=float) for values in (mean, low, high))
    return {
        "array": high - mean,
        "arrayminus": mean - low,
        "color": colour,
        "thickness": 2,
        "width": 5,
    }


def _titles(title: str, subtitle: str = "") -> dict[str, Any]:
    return {"template": TEMPLATE, "title": {"text": title, "subtitle": {"text": subtitle}}}


def _require(table: pd.DataFrame, columns: Sequence[str]) -> None:
    missing = [column for column in columns if column not in table]
    if missing:
        raise InputError(f"table: column {missing[0]!r} is missing; it has {_named(table.columns)}")


def _where(table: pd.DataFrame, **equal: str) -> pd.DataFrame:
    """Rows whose columns have these values."""
    keep = np.ones(len(table), dtype=bool)
    for column, value in equal.items():
        keep &= np.asarray(table[column] == value)
    return pd.DataFrame(table.loc[keep])


def _named(values: Any) -> str:
    return ", ".join(repr(value) for value in dict.fromkeys(values))
