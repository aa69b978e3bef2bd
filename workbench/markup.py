"""Pieces of HTML that everything shown in a notebook or a report is made of.

All text that is handed in is escaped. Colours are given with each piece, so that what is shown
needs no style sheet: notebooks keep none.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

ROLE_COLOUR = {
    "evidence": "#2e8b57",
    "gold": "#b58900",
    "near": "#d55e00",
    "far": "#3465a4",
    "other": "#8a9099",
}
"""Evidence and the roles of options; near and far as the counterfactuals of their phases."""


@dataclass(frozen=True)
class Piece:
    """A stretch of text: `colour` lies behind it with `strength` (0 to 1), `line` under it."""

    text: str
    colour: str = ""
    strength: float = 0.15
    line: str = ""
    title: str = ""
    """Shown while the pointer rests on it."""


@dataclass(frozen=True)
class Bar:
    """A cell with a bar for a share (0 to 1), and the number behind it."""

    share: float
    colour: str


def text(pieces: Iterable[Piece]) -> str:
    """Coloured text, its line breaks kept."""
    spans = "".join(map(_span, pieces))
    return f'<div style="white-space:pre-wrap;overflow-wrap:anywhere">{spans}</div>'


def _span(piece: Piece) -> str:
    style = []
    if piece.colour and piece.strength > 0:
        share = round(255 * min(piece.strength, 1.0))
        style.append(f"background:{piece.colour}{share:02x}")
    if piece.line:
        style.append(f"border-bottom:2px solid {piece.line}")
    title = f' title="{escape(piece.title)}"' if piece.title else ""
    if not style and not title:
        return escape(piece.text)
    return f'<span style="{";".join(style)}"{title}>{escape(piece.text)}</span>'


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Rows as a table, its columns those of the first; a cell may be a `Piece` or a `Bar`."""
    if not rows:
        return ""
    head = "".join(f'<th style="text-align:left">{escape(str(name))}</th>' for name in rows[0])
    body = "".join(
        "<tr>"
        + "".join(f'<td style="text-align:left">{_cell(x)}</td>' for x in row.values())
        + "</tr>"
        for row in rows
    )
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _cell(value: Any) -> str:
    if isinstance(value, Bar):
        width = round(120 * min(max(value.share, 0.0), 1.0))
        return (
            '<span style="white-space:nowrap"><span style="display:inline-block;'
            f'width:{width}px;height:0.7em;background:{value.colour}"></span> '
            f"{value.share:.3f}</span>"
        )
    return _span(value) if isinstance(value, Piece) else escape(str(value))
