"""Heat maps over layers and heads: the scores, and the causal effects of patching.

Layers run upwards from 0, heads to the right from 0, and one diverging scale is centred at 0: red
means the effect has the sign of its name, blue the opposite sign, white nothing. Heads without a
value are grey; outlines mark the heads of a pool.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from workbench.errors import InputError
from workbench.measures import MEASURES
from workbench.plots.style import (
    INK,
    POSITIONS,
    READ_OUT,
    UNPATCHED,
    ScoreWords,
    drawn,
    named,
    number,
    require,
    score_names,
    score_words,
    shown_measures,
    titles,
    where,
)
from workbench.roles import POOL_WORDS


@drawn
def head_heatmap(
    table: pd.DataFrame,
    value: str,
    low: str | None = None,
    high: str | None = None,
    *,
    title: str = "",
    colorbar_title: str = "",
    pooled: Mapping[tuple[int, int], str] = {},
    limit: float | int | None = None,
    extra_hover: Sequence[str] = (),
    shape: tuple[int, int] | None = None,
    subtitle: str = "",
) -> go.Figure:
    """One value per head: layer upwards, head to the right, colours symmetric about 0.

    `value`, `low`, `high` and `extra_hover` name columns of `table`. Heads without a row are grey,
    and hovering over them says "not patched". `pooled` maps (layer, head) to the name of its pool,
    followed by " read-out" where that holds. `limit` is the value of full
    colour (default: the largest |value|); beyond it the colour stays and the colour bar says so.
    `shape` (layers, heads) is inferred where it is not given, and so is the title of a measure.

    Raises:
        InputError: a column is missing, a head has two rows, or a head lies outside `shape`.
    """
    require(table, ["layer", "head", value, *filter(None, (low, high)), *extra_hover])
    known = MEASURES.get(value)
    title = title or (known.title if known else score_words(value)[0])
    colorbar_title = colorbar_title or (known.unit if known else "")
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
    # Pixels per layer: roomy for small models, still told apart with 80 layers.
    height = float(np.clip(420 / n_layers, 9, 34))
    figure.add_traces(_pool_markers(pooled, min(height, 560 / n_heads)))
    figure.update_layout(
        **titles(title, subtitle), height=int(n_layers * height + 72 + 84), plot_bgcolor=UNPATCHED
    )
    figure.update_xaxes(title_text="head", range=[-0.5, n_heads - 0.5], **_head_axis(n_heads))
    figure.update_yaxes(title_text="layer", range=[-0.5, n_layers - 0.5], **_head_axis(n_layers))
    return figure


@drawn
def score_heatmaps(
    scores: pd.DataFrame, pooled: Mapping[tuple[int, int], str], words: ScoreWords | None = None
) -> dict[str, go.Figure]:
    """One heat map per score that the table has, by score name; each has its own colour limit.

    `words` gives title and unit of scores; those of the two phases are known.
    """
    figures, names = {}, score_names(scores.columns)
    for name in names:
        title, unit = score_words(name, words)
        others = [other for other in names if other.startswith(f"{name}_")]
        ends = tuple(f"{name}_{end}" for end in ("low", "high", "p", "q"))
        figures[name] = head_heatmap(
            scores,
            name,
            f"{name}_low",
            f"{name}_high",
            title=title,
            subtitle="observational: nominates heads, proves nothing",
            colorbar_title=unit,
            pooled=pooled,
            extra_hover=[
                column
                for column in scores
                if column.startswith(f"{name}_") and not column.startswith((*ends, *others))
            ],
        )
    return figures


@drawn
def patching_heatmaps(
    patching: pd.DataFrame,
    pooled: Mapping[tuple[int, int], str],
    *,
    half: str = "verify",
    shape: tuple[int, int] | None = None,
) -> dict[tuple[str, str], go.Figure]:
    """Heat map of each (measure, positions) in the table; full colour is 1 in all of them.

    Effects are shares or differences of probabilities, so one limit makes the same colour the same
    effect in every figure. A boost is drawn as a difference; pointing at a head tells the factor.

    Raises:
        InputError: the table has rows, but none of this half.
    """
    if patching.empty:
        return {}
    rows = where(patching, half=half)
    if rows.empty:
        raise InputError(
            f"patching table: no rows of half {half!r}, only {named(patching['half'])}"
        )
    rows = rows.drop_duplicates(["layer", "head", "positions", "measure"])
    shape = shape or _shape(rows, pooled)
    figures = {}
    which = {"choose": "selection half", "verify": "held-out half"}.get(half, half)
    shown = set(shown_measures(set(rows["measure"])))
    for name, measure in MEASURES.items():
        if not (measure.margin or name in shown):
            continue
        for positions in POSITIONS:
            table = _one_measure(rows, name, positions)
            if table.empty:
                continue
            figures[name, positions] = head_heatmap(
                table,
                name,
                "low",
                "high",
                title=f"{measure.title}, {POSITIONS[positions]}",
                subtitle=f"{name}: {measure.patched}; {which}",
                colorbar_title=measure.unit,
                pooled=pooled,
                limit=1.0,
                extra_hover=[one for one in (*_divided(name), "group") if one in table],
                shape=shape,
            )
    return figures


def _one_measure(rows: pd.DataFrame, measure: str, positions: str) -> pd.DataFrame:
    """Rows of one measure, the effect under its name; beside it the same as a factor, if any."""
    place = where(rows, positions=positions)
    table = where(place, measure=measure).rename(columns={"effect": measure})
    for name in _divided(measure):
        factor = where(place, measure=name).rename(columns={"effect": name})
        table = table.merge(
            factor.filter(["layer", "head", name]), on=["layer", "head"], how="left"
        )
    return table


def _divided(measure: str) -> list[str]:
    """The measure that divides this one by a value that may be near 0, which only a hover tells."""
    return [name for name, one in MEASURES.items() if one.absolute == measure]


def pooled_heads(headset: Mapping[str, Any] | Any) -> dict[tuple[int, int], str]:
    """(layer, head) → pool name, with " read-out" added where it holds.

    `headset` is a head set, or its file as a dict.
    """
    found = headset if isinstance(headset, Mapping) else headset.model_dump()
    return {
        (head["layer"], head["head"]): head["pool"] + " read-out" * head["read_out"]
        for head in found.get("heads", [])
    }


def pool_label(name: str) -> str:
    """Readable name of a pool mark, such as "refine pool, read-out"."""
    pool, _, rest = name.partition(" ")
    return f"{pool} pool" + (", read-out" if "read-out" in rest else "")


def _shape(table: pd.DataFrame, pooled: Mapping[tuple[int, int], str]) -> tuple[int, int]:
    """Smallest (layers, heads) that holds every head of the table and of the pools."""
    layers = [*table["layer"], *(layer for layer, _ in pooled)]
    heads = [*table["head"], *(head for _, head in pooled)]
    return int(max(layers, default=0)) + 1, int(max(heads, default=0)) + 1


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
    lines.append(measured if number(row[value]) != "–" else f"{_words(value)}: no valid pair")
    if "n" in row:
        left_out = int(row.get("n_excluded", 0))
        lines.append(f"events: {int(row['n'])}" + f" ({left_out} did not count)" * bool(left_out))
    if f"{value}_q" in row:
        lines.append(f"q: {number(row[f'{value}_q'])}")
    lines += [f"{_words(name)}: {number(row[name])}" for name in extra]
    return "<br>".join([*lines, f"in the {pool_label(pool)}"] if pool else lines)


def _words(column: str | None) -> str:
    return (column or "").replace("_", " ")


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


def _pool_markers(pooled: Mapping[tuple[int, int], str], cell: float) -> list[go.Scatter]:
    """Outlines around pooled heads: the shape tells the pool, purple tells a read-out."""
    traces = []
    size = float(np.clip(0.6 * cell, 6, 20))
    for name in sorted(set(pooled.values())):
        heads = sorted(place for place, pool in pooled.items() if pool == name)
        pool = name.split(" ")[0]
        words = POOL_WORDS.get(pool)
        colour = READ_OUT if "read-out" in name else words.colour if words else INK
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
                        "symbol": words.symbol if words else "pentagon-open",
                        "size": size,
                        "color": line_colour,
                        "line": {"width": width if size > 9 else width - 1},
                    },
                )
            )
    return traces
