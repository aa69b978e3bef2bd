"""The paths between heads as a graph: who reads whom, by query, key or value, layer by layer."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from workbench.errors import InputError
from workbench.measures import MEASURES
from workbench.phases import PHASES
from workbench.plots.style import (
    CONTROL,
    INK,
    POOL_COLOUR,
    READ_OUT,
    drawn,
    interval,
    named,
    nothing,
    number,
    require,
    titles,
    where,
)

ROUTE_NAMES = {"q": "query", "k": "key", "v": "value"}
ROUTE_COLOUR = {"q": "52,101,164", "k": "123,63,160", "v": "213,94,0"}
WHOLE = "138,144,153"
VISIBLE = 0.01
STRONGEST = 8
"""Paths that are drawn at first."""
TOLD = 0.1
"""Share of the strongest path's effect from which a path has a label."""
LABEL = (0.5, 0.25)
"""Width and height of a label, in columns and places of nodes, on a narrow page."""
COLUMNS = ["src_layer", "src_head", "dst_layer", "dst_heads", "route"]
COLUMNS += ["measure", "positions", "effect", "low", "high"]

Head = tuple[int, int]
Node = tuple[Head, ...]
"""A head, or the query heads of one KV head."""
ANSWER: Node = ()


@dataclass(frozen=True)
class _Edge:
    start: Node
    end: Node
    route: str
    """Empty for what a whole head does to the answer."""
    effect: float
    text: str


@drawn
def path_graph(
    paths: pd.DataFrame,
    patching: pd.DataFrame,
    pools: Mapping[Head, str],
    measure: str = PHASES["coarse"].chief,
    positions: str = "span",
) -> go.Figure:
    """Paths whose interval excludes 0, and what each head on them does to the answer in all.

    Layers run to the right. A line is as wide as the effect is large, dotted where it is negative,
    and says its route and effect. The strongest are drawn at first; a button brings the others.
    Pointing at a node lists its paths. A path into keys or values ends at all query heads that
    share them; a thin dotted line ties it to these heads. `patching` gives the effect of whole
    heads, `pools` names the pooled heads as `pooled_heads` does.

    Raises:
        InputError: a column is missing, or the measure is unknown.
    """
    if measure not in MEASURES:
        raise InputError(f"measure {measure!r} is not one of {named(MEASURES)}")
    require(paths, COLUMNS)
    title = f"Paths between heads: {MEASURES[measure].title}"
    here = where(paths, measure=measure, positions=positions)
    certain = pd.DataFrame(here[(here["low"] > 0) | (here["high"] < 0)])
    # Thinner than this share of the widest they could not be seen, let alone pointed at.
    certain = pd.DataFrame(
        certain[certain["effect"].abs() >= VISIBLE * certain["effect"].abs().max()]
    )
    if certain.empty:
        return nothing(title, "no path has an interval that excludes 0")
    edges = sorted(map(_path, certain.to_dict("records")), key=lambda edge: -abs(edge.effect))
    strongest = edges[:STRONGEST]
    shown = [strongest, edges] if len(edges) > len(strongest) else [edges]
    views = [[*view, *_to_answer(patching, measure, positions, view)] for view in shown]
    places = _places(views[-1])
    parts = [_traces(view, places, pools) for view in views]
    figure = go.Figure()
    for at, traces in enumerate(parts):
        figure.add_traces([trace.update(visible=at == 0) for trace in traces])
    told = [edge for edge in strongest if abs(edge.effect) >= TOLD * abs(strongest[0].effect)]
    subtitle = "blue: by query, purple: by key, orange: by value, grey: the whole head"
    figure.update_layout(
        **titles(title, subtitle),
        height=int(np.clip(224 + 64 * 2 * max(y for _, y in places.values()), 340, 900)),
        margin={"t": 96, "b": 56, "l": 24, "r": 24},
        showlegend=False,
        annotations=_labels(told, places),
        updatemenus=_buttons([f"strongest {len(strongest)}", f"all {len(edges)} paths"], parts),
    )
    layers = {x: node[0][0] for node, (x, _) in places.items() if node}
    figure.update_xaxes(
        tickvals=list(layers),
        ticktext=[f"layer {layer}" for layer in layers.values()],
        range=[-0.4, max(x for x, _ in places.values()) + 0.4],
        showgrid=False,
        showline=False,
        ticks="",
    )
    return figure.update_yaxes(visible=False)


def _buttons(names: Sequence[str], parts: Sequence[Sequence[go.Scatter]]) -> list[dict[str, Any]]:
    """One button a view, which shows its traces alone; none where there is one view."""
    if len(parts) < 2:
        return []
    seen = [[view == at for at, part in enumerate(parts) for _ in part] for view in range(2)]
    buttons = [
        {"label": name, "method": "restyle", "args": [{"visible": visible}]}
        for name, visible in zip(names, seen, strict=True)
    ]
    menu = {"type": "buttons", "direction": "right", "buttons": buttons, "font": {"size": 12}}
    return [menu | {"x": 1, "xanchor": "right", "y": 0, "yanchor": "top", "pad": {"t": 18}}]


def _path(row: Mapping[Any, Any]) -> _Edge:
    source: Node = ((int(row["src_layer"]), int(row["src_head"])),)
    heads = (name.split("-") for name in row["dst_heads"].split())
    target: Node = tuple((int(layer), int(head)) for layer, head in heads)
    text = f"{_name(source)} → {ROUTE_NAMES[row['route']]} of {_name(target)}"
    return _Edge(source, target, row["route"], row["effect"], f"{text}: {interval(row, 'effect')}")


def _to_answer(
    patching: pd.DataFrame, measure: str, positions: str, edges: Sequence[_Edge]
) -> list[_Edge]:
    """What every head on the edges does to the answer, of the held-out half where there is."""
    whole = where(patching, measure=measure, positions=positions)
    if whole.empty:
        return []
    ends = dict.fromkeys(end for edge in edges for end in (edge.start, edge.end))
    rows = whole.dropna(subset=["effect"]).sort_values("half", ascending=False)
    rows = rows.drop_duplicates(["layer", "head"]).to_dict("records")
    return [
        _Edge(
            node,
            ANSWER,
            "",
            row["effect"],
            f"{row['layer']}-{row['head']}, whole head: {interval(row, 'effect')}",
        )
        for row in rows
        for node in ends
        if (head := (row["layer"], row["head"])) in node
        and (node == (head,) or (head,) not in ends)
    ]


def _places(edges: Sequence[_Edge]) -> dict[Node, tuple[float, float]]:
    """Where each node stands: its layer's column, and there near the nodes that it is tied to."""
    nodes = dict.fromkeys(end for edge in edges for end in (edge.start, edge.end))
    layers = sorted({node[0][0] for node in nodes if node})
    columns = [sorted(node for node in nodes if node and node[0][0] == one) for one in layers]
    columns += [[ANSWER]] if ANSWER in nodes else []
    ties = [(edge.start, edge.end) for edge in edges]
    home = dict(_shared(list(nodes)))  # heads stand beside those that share their keys
    height = dict.fromkeys(nodes, 0.0)
    for _ in range(
        3
    ):  # each time nearer to the mean of the neighbours, as layered graphs are drawn
        for column in columns:
            pull: dict[Node, list[float]] = {}
            for node in column:
                near = [height[a if b == node else b] for a, b in ties if node in (a, b)]
                pull.setdefault(home.get(node, node), []).extend(near)
            column.sort(
                key=lambda node, pull=pull: (
                    *(float(np.mean(pull[home.get(node, node)])), home.get(node, node)),
                    node,
                )
            )
            for at, node in enumerate(column):
                height[node] = (len(column) - 1) / 2 - at
    return {node: (float(x), height[node]) for x, column in enumerate(columns) for node in column}


def _shared(nodes: Sequence[Node]) -> list[tuple[Node, Node]]:
    """A head alone, and the heads that share its key and value, where both stand in the graph."""
    return [
        (one, group)
        for one in nodes
        for group in nodes
        if len(one) == 1 and len(group) > 1 and one[0] in group
    ]


def _curve(edge: _Edge, places: Mapping[Node, tuple[float, float]]) -> tuple[Any, Any]:
    """An S from node to node, bowed where it would run through the columns between them."""
    (x0, y0), (x1, y1) = places[edge.start], places[edge.end]
    t = np.linspace(0, 1, 25)
    bow = 0.35 * max(x1 - x0 - 1, 0) * 4 * t * (1 - t)
    shift = {"q": 0.06, "k": 0.0, "v": -0.06}.get(edge.route, -0.12) * 4 * t * (1 - t)
    return x0 + (x1 - x0) * t, y0 + (y1 - y0) * (3 * t**2 - 2 * t**3) + bow + shift


def _traces(
    edges: Sequence[_Edge], places: Mapping[Node, tuple[float, float]], pools: Mapping[Head, str]
) -> list[go.Scatter]:
    widest = max(abs(edge.effect) for edge in edges)
    traces = []
    for edge in reversed(edges):  # the strongest last, on top
        x, y = _curve(edge, places)
        colour = ROUTE_COLOUR.get(edge.route, WHOLE)
        style = {
            "color": f"rgba({colour},{0.65 if edge.route else 0.35})",
            "width": 1.5 + 7 * abs(edge.effect) / widest,
            "dash": "solid" if edge.effect > 0 else "dot",
        }
        traces.append(go.Scatter(x=x, y=y, mode="lines", line=style, hoverinfo="text"))
        traces[-1].update(hovertext=edge.text, hovertemplate="%{hovertext}<extra></extra>")
    nodes = list(dict.fromkeys(end for edge in edges for end in (edge.start, edge.end)))
    for tie in _shared(nodes):
        x, y = zip(*(places[node] for node in tie), strict=True)
        style = {"color": INK, "width": 1, "dash": "dot"}
        traces.append(go.Scatter(x=x, y=y, mode="lines", line=style, hoverinfo="skip"))
    dots = go.Scatter(
        x=[places[node][0] for node in nodes],
        y=[places[node][1] for node in nodes],
        mode="markers+text",
        text=[_name(node) for node in nodes],
        textposition="bottom center",
        textfont={"size": 12},
        marker={
            "size": 18,
            "color": [_node_colour(node, pools) for node in nodes],
            "line": {"width": 2, "color": "white"},
        },
        hovertext=[_paths_of(node, edges) for node in nodes],
        hovertemplate="%{hovertext}<extra></extra>",
        customdata=[_name(node) if len(node) == 1 else "" for node in nodes],
    )
    return [*traces, dots]


def _paths_of(node: Node, edges: Sequence[_Edge]) -> str:
    lines = [edge.text for edge in edges if node in (edge.start, edge.end)]
    more = [f"and {len(lines) - 12} more"] if len(lines) > 12 else []
    return "<br>".join([f"<b>{_name(node)}</b>", *lines[:12], *more])


def _labels(
    edges: Sequence[_Edge], places: Mapping[Node, tuple[float, float]]
) -> list[dict[str, Any]]:
    """Route and effect on each line, where it is farthest from nodes' names and other labels."""
    width, height = LABEL
    taken = [(x, y - 0.25) for x, y in places.values()]
    look = {"showarrow": False, "bgcolor": "rgba(255,255,255,0.85)", "borderpad": 1}
    look |= {"font": {"size": 11, "color": INK}}
    labels = []
    for edge in edges:
        x, y = _curve(edge, places)
        middle = range(6, 19)  # where lines have left their node, and have parted
        gaps = [
            min(max(abs(x[at] - a) / width, abs(y[at] - b) / height) for a, b in taken)
            for at in middle
        ]
        # From one place on nothing overlaps: nearer to the middle of the line is then better.
        best = max(middle, key=lambda at, gaps=gaps: (min(gaps[at - 6], 1.2), -abs(at - 12)))
        taken.append((x[best], y[best]))
        text = f"{ROUTE_NAMES[edge.route]} {number(edge.effect)}"
        labels.append({"x": x[best], "y": y[best], "text": text} | look)
    return labels


def _name(node: Node) -> str:
    return " ".join(f"{layer}-{head}" for layer, head in node) or "answer"


def _node_colour(node: Node, pools: Mapping[Head, str]) -> str:
    marks = [pools[head] for head in node if head in pools]
    pool, _, read_out = marks[0].partition(" ") if marks else ("", "", "")
    return READ_OUT if read_out else POOL_COLOUR.get(pool, CONTROL)
