"""How good an answer is that lists labels in an order, against a set of right ones.

Relevance is binary and a label that is listed again does not count again. P@k is the share of right
labels among the first k places, k being the divisor however few labels are listed or right. nDCG@k
divides the discounted gain, Σ 1 / log2(place + 1) over the right labels in the first k places, by
the largest there could be (Järvelin & Kekäläinen 2002). F1 is 2 tp / (2 tp + fp + fn): micro over
all labels of all answers together, macro for each label by itself and then averaged over the labels
that occur, be it as right or as listed.
"""

from collections.abc import Collection, Sequence
from math import log2

import numpy as np
from jaxtyping import Float
from scipy.sparse import csr_array

Draws = Float[np.ndarray, " draw"]
Weights = Float[np.ndarray, "draw prompt"]
"""How much each prompt counts in each draw; rows sum to 1."""

DRAWS_AT_ONCE = 256


def precision_at(gold: Collection[str], listed: Sequence[str], k: int) -> float:
    """Share of right labels among the first k places."""
    return sum(label in gold for label in _once(listed)[:k]) / k


def ndcg_at(gold: Collection[str], listed: Sequence[str], k: int) -> float:
    """Discounted gain of the first k places over the largest possible; NaN with no right label."""
    best = sum(1 / log2(place + 1) for place in range(1, min(k, len(set(gold))) + 1))
    places = enumerate(_once(listed)[:k], start=1)
    gain = sum(1 / log2(place + 1) for place, label in places if label in gold)
    return gain / best if best else float("nan")


def answer_scores(gold: Collection[str], listed: Sequence[str]) -> dict[str, float | int | bool]:
    """exact (the same set), p1, p3, ndcg3, and the counts tp, fp, fn of one answer."""
    right, given = set(gold), set(listed)
    return {
        "exact": right == given,
        "p1": precision_at(right, listed, 1),
        "p3": precision_at(right, listed, 3),
        "ndcg3": ndcg_at(right, listed, 3),
        "tp": len(right & given),
        "fp": len(given - right),
        "fn": len(right - given),
    }


def micro_f1(
    tp: Float[np.ndarray, " prompt"],
    fp: Float[np.ndarray, " prompt"],
    fn: Float[np.ndarray, " prompt"],
    weights: Weights,
) -> Draws:
    """F1 over all labels together, for each weighting of the prompts."""
    right, false, missed = (weights @ counts for counts in (tp, fp, fn))
    whole = 2 * right + false + missed
    return np.divide(2 * right, whole, out=np.full_like(whole, np.nan), where=whole > 0)


def macro_f1(
    gold: Sequence[Collection[str]], listed: Sequence[Collection[str]], weights: Weights
) -> Draws:
    """Mean F1 of the labels, for each weighting of the prompts.

    In a draw, labels count that occur in a prompt with a weight: one that was not drawn is neither
    right nor wrong.
    """
    columns = {
        label: n for n, label in enumerate(sorted({x for row in [*gold, *listed] for x in row}))
    }
    if not columns:
        return np.full(len(weights), np.nan)
    right = _indicator(gold, columns)
    given = _indicator(listed, columns)
    hits, occurs = right * given, right + given
    means = []
    for start in range(0, len(weights), DRAWS_AT_ONCE):
        some = weights[start : start + DRAWS_AT_ONCE].T
        twice, whole = 2 * (hits @ some), occurs @ some
        f1 = np.divide(twice, whole, out=np.zeros_like(whole), where=whole > 0)
        means.append(f1.sum(axis=0) / (whole > 0).sum(axis=0))
    return np.concatenate(means)


def _indicator(rows: Sequence[Collection[str]], columns: dict[str, int]) -> csr_array:
    """Labels × prompts, 1 where a label is in a row."""
    places = [(columns[label], n) for n, row in enumerate(rows) for label in set(row)]
    label, prompt = zip(*places, strict=True) if places else ((), ())
    shape = (len(columns), len(rows))
    return csr_array((np.ones(len(places)), (np.array(label, int), np.array(prompt, int))), shape)


def _once(listed: Sequence[str]) -> list[str]:
    return list(dict.fromkeys(listed))
