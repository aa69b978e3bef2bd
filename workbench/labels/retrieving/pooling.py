"""Scores of rows for queries, pooled to the best labels of each document."""

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from jaxtyping import Float, Int, Shaped

Pool = Literal["max", "sum"]
"""Of a label's scores for the passages of a document: the best one, or all together."""
Tops = Int[np.ndarray, "document k"]
"""Labels of every document, best first; -1 where fewer were found."""


def best_rows(queries: Any, rows: Any, n: int, n_threads: int) -> Any:
    """The `n` largest products above 0 of each sparse query with the columns of `rows`.

    `queries` is `[query, feature]`, `rows` `[feature, row]`; the result is sparse, `[query, row]`.
    """
    from sparse_dot_topn import sp_matmul_topn

    return sp_matmul_topn(queries, rows, top_n=n, threshold=0.0, n_threads=n_threads)


def pooled(
    found: Any,
    document: Int[np.ndarray, " query"],
    label: Int[np.ndarray, " row"],
    shape: tuple[int, int],
    k: int,
    pool: Pool,
) -> Tops:
    """The `k` best labels of every document.

    A label's rows (its wordings) always count by the best of each query.

    Args:
        found: scores `[query, row]`, sparse.
        document: that each query is of.
        label: that each row is of.
        shape: how many documents and labels there are.
        k: labels wanted.
        pool: of a label's scores for the queries of a document.
    """
    query = np.repeat(np.arange(found.shape[0]), np.diff(found.indptr))
    labels = label[found.indices].astype(np.int64)
    key, score = _reduced(query * shape[1] + labels, found.data, np.maximum)
    query, labels = np.divmod(key, shape[1])
    reduce = np.maximum if pool == "max" else np.add
    key, score = _reduced(document[query] * shape[1] + labels, score, reduce)
    return ranked(*np.divmod(key, shape[1]), score, shape[0], k)


def ranked(
    document: Int[np.ndarray, " entry"],
    label: Int[np.ndarray, " entry"],
    score: Float[np.ndarray, " entry"],
    n: int,
    k: int,
) -> Tops:
    """The `k` labels of highest score of each of `n` documents; equal ones by number."""
    order = np.lexsort((label, -score, document))
    document, label = document[order], label[order]
    place = np.arange(len(document)) - np.searchsorted(document, document)
    kept = place < k
    tops = np.full((n, k), -1, dtype=np.int32)
    tops[document[kept], place[kept]] = label[kept]
    return tops


def without(tops: Tops, left_out: Sequence[Sequence[int]]) -> Tops:
    """The same lists without some labels of each document; what follows moves up."""
    made = np.full_like(tops, -1)
    for row, (top, out) in enumerate(zip(tops, left_out, strict=True)):
        kept = top[~np.isin(top, list(out))] if len(out) else top
        made[row, : len(kept)] = kept
    return made


def _reduced(
    key: Int[np.ndarray, " entry"], score: Shaped[np.ndarray, " entry"], reduce: Any
) -> tuple[np.ndarray, np.ndarray]:
    """Each key once, ascending, with its scores reduced."""
    if not len(key):
        return key, score
    order = np.argsort(key, kind="stable")
    key, score = key[order], score[order]
    starts = np.flatnonzero(np.diff(key, prepend=key[0] - 1))
    return key[starts], reduce.reduceat(score, starts)
