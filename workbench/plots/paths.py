"""The paths between heads as a Sankey diagram: who reads whom, by query, key or value."""

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
import plotly.graph_objects as go

from workbench.errors import InputError
from workbench.phases import MEASURES, PHASES
from workbench.plots.style import (
    CONTROL,
    POOL_COLOUR,
    READ_OUT,
    drawn,
    interval,
    named,
    nothing,
    require,
    titles,
    where,
)

ROUTE_NAMES = {"q": "query", "k": "key", "v": "value"}
ROUTE_COLOUR = {"q": "52,101,164", "k": "123,63,160", "v": "213,94,0"}
VISIBLE = 0.01
COLUMNS = ["src_layer", "src_head", "dst_layer", "dst_heads", "route"]
COLUMNS += ["measure", "positions", "effect", "low", "high"]

Head = tuple[int, int]
Node = tuple[Head, ...]
"""A head, or the query heads of one KV head."""
ANSWER: Node = ()


@drawn
def path_sankey(
    paths: pd.DataFrame,
    patching: pd.DataFrame,
    pools: Mapping[Head, str],
    measure: str = PHASES["coarse"].chief,
    positions: str = "span",
) -> go.Figure:
    """Paths whose interval excludes 0, and what each head on them does to the answer in all.

    A band's width is the size of the effect; a path into keys or values ends at all query heads
    that share them. `patching` gives the effect of whole heads, `pools` names
    the pooled heads as `pooled_heads` does.

    Raises:
        InputError: a column is missing, or the measure is unknown.
    """
    if measure not in MEASURES:
        raise InputError(f"measure {measure!r} is not one of {named(MEASURES)}")
    require(paths, COLUMNS)
    title = f"Paths between heads: {MEASURES[measure].title}"
    here = where(paths, measure=measure, positions=positions)
    certain = pd.DataFrame(here[(here["low"] > 0) | (here["high"] < 0)])
    # Bands thinner than this share of the widest could not be seen, let alone pointed at.
    certain = pd.DataFrame(
        certain[certain["effect"].abs() >= VISIBLE * certain["effect"].abs().max()]
    )
    if certain.empty:
        return nothing(title, "no path has an interval that excludes 0")
    links = [_path_link(row) for row in certain.to_dict("records")]
    ends = sorted({end for link in links for end in (link["from"], link["to"])})
    links += _answer_links(where(patching, measure=measure, positions=positions), ends)
    nodes: list[Node] = [*ends, ANSWER]
    figure = go.Figure(
        go.Sankey(
            arrangement="snap",
            node={
                "label": [_name(node) for node in nodes],
                "color": [_node_colour(node, pools) for node in nodes],
                "pad": 18,
                "thickness": 18,
                "line": {"width": 0},
                "hovertemplate": "%{label}<extra></extra>",
            },
            link={
                "source": [nodes.index(link["from"]) for link in links],
                "target": [nodes.index(link["to"]) for link in links],
                "value": [abs(link["effect"]) for link in links],
                "color": [link["colour"] for link in links],
                "customdata": [link["text"] for link in links],
                "hovertemplate": "%{customdata}<extra></extra>",
            },
        )
    )
    subtitle = "blue: by query, purple: by key, orange: by value, grey: the whole head"
    figure.update_layout(**titles(title, subtitle), height=420, margin_b=24, margin_t=90)
    return figure


def _path_link(row: Mapping[Any, Any]) -> dict[str, Any]:
    source: Node = ((int(row["src_layer"]), int(row["src_head"])),)
    heads = (name.split("-") for name in row["dst_heads"].split())
    target: Node = tuple((int(layer), int(head)) for layer, head in heads)
    faint = 0.5 if row["effect"] > 0 else 0.2
    return {
        "from": source,
        "to": target,
        "effect": row["effect"],
        "colour": f"rgba({ROUTE_COLOUR[row['route']]},{faint})",
        "text": f"{_name(source)} → {ROUTE_NAMES[row['route']]} of {_name(target)}: "
        f"{interval(row, 'effect')}",
    }


def _answer_links(whole: pd.DataFrame, ends: Sequence[Node]) -> list[dict[str, Any]]:
    """Grey bands to the answer from every head on a path, of the held-out half where there is."""
    if whole.empty:
        return []
    rows = whole.dropna(subset=["effect"]).sort_values("half", ascending=False)
    rows = rows.drop_duplicates(["layer", "head"]).to_dict("records")
    return [
        {
            "from": node,
            "to": ANSWER,
            "effect": row["effect"],
            "colour": "rgba(138,144,153,0.35)",
            "text": f"{row['layer']}-{row['head']}, whole head: {interval(row, 'effect')}",
        }
        for row in rows
        for node in ends
        if (row["layer"], row["head"]) in node
    ]


def _name(node: Node) -> str:
    return " ".join(f"{layer}-{head}" for layer, head in node) or "answer"


def _node_colour(node: Node, pools: Mapping[Head, str]) -> str:
    marks = [pools[head] for head in node if head in pools]
    pool, _, read_out = marks[0].partition(" ") if marks else ("", "", "")
    return READ_OUT if read_out else POOL_COLOUR.get(pool, CONTROL)
