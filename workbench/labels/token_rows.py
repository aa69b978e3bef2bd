"""Rows of tokens in one flat array: their edges, their order, and what neighbours share."""

from typing import Any

import numpy as np
from jaxtyping import Integer


def token_dtype(n_tokens: int) -> type[np.uint16] | type[np.uint32]:
    """The smallest of the two that holds so many different numbers."""
    return np.uint16 if n_tokens <= 1 << 16 else np.uint32


def row_edges(lengths: Integer[np.ndarray, " row"]) -> Integer[np.ndarray, " edge"]:
    """Where rows begin and end in the flat array, from their lengths."""
    edges = np.zeros(len(lengths) + 1, dtype=np.int64)
    np.cumsum(lengths, out=edges[1:])
    return edges


def with_ends(tokens: Any, lengths: Any, end: int) -> tuple[Any, Any]:
    """The same labels with the end token after each, and their edges."""
    offsets = row_edges(lengths + 1)
    wider = np.empty(int(offsets[-1]), dtype=tokens.dtype)
    ends = np.zeros(len(wider), dtype=bool)
    ends[offsets[1:] - 1] = True
    wider[ends] = end
    wider[~ends] = tokens
    return wider, offsets


def sorted_rows(tokens: Any, offsets: Any) -> Any:
    """Rows in order of their tokens: a radix sort from the last place to the first.

    Rows that are too short for a place wait and come in before the others, in their own order, so
    one long label costs no more than its length.
    """
    lengths = np.diff(offsets)
    by_length = np.argsort(lengths, kind="stable").astype(np.int32)
    starts = lengths[by_length].searchsorted(np.arange(1, int(lengths.max()) + 2))
    rows = by_length[:0]
    for place in range(int(lengths.max()) - 1, -1, -1):
        rows = np.concatenate([by_length[starts[place] : starts[place + 1]], rows])
        rows = rows[np.argsort(tokens[offsets[rows] + place], kind="stable")]
    return rows


def gathered(tokens: Any, offsets: Any, rows: Any, block: int = 1 << 17) -> tuple[Any, Any]:
    """Labels in a new order, a block of rows at a time: their positions are wider than tokens."""
    lengths = np.diff(offsets)[rows]
    edges = row_edges(lengths)
    moved = np.empty_like(tokens)
    for at in range(0, len(rows), block):
        low, high = edges[at], edges[min(at + block, len(rows))]
        part = slice(at, at + block)
        shift = np.repeat(offsets[rows[part]] - edges[:-1][part], lengths[part])
        moved[low:high] = tokens[np.arange(low, high) + shift]
    return moved, edges


def shared_lengths(tokens: Any, offsets: Any, end: int) -> tuple[Any, Any]:
    """How many tokens each row shares with the row before, and the rows that repeat it whole."""
    longest = int(np.diff(offsets).max())
    shared = np.zeros(len(offsets) - 1, dtype=token_dtype(longest + 1))
    rows = np.arange(1, len(shared))
    repeats = [rows[:0]]
    place = 0
    while len(rows):
        here = tokens[offsets[rows] + place]
        same = here == tokens[offsets[rows - 1] + place]
        rows, here = rows[same], here[same]
        shared[rows] += 1
        repeats.append(rows[here == end])
        rows = rows[here != end]
        place += 1
    return shared, np.sort(np.concatenate(repeats))
