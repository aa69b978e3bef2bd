"""How good sets of labels are: F1, and where lists are cut to become sets.

F1 is 2 tp / (2 tp + fp + fn): micro over all labels of all documents together, macro for each label
by itself and then averaged over the labels that occur, be it as right or as listed. Lists are cut
by a rule that does not know what is right of the documents that are measured (`Cut`).
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from jaxtyping import Int
from scipy.sparse import csr_array

from workbench.analysis.label_space.ranked import Rankings
from workbench.analysis.label_space.ranking import (
    Draws,
    Terms,
    Weights,
    ndcg_at,
    precision_at,
    ratio,
)
from workbench.errors import InputError

NUMBERS_AT_ONCE = 2**24
"""Entries of a dense array of draws: 128 MB in float64."""


@dataclass(frozen=True)
class Cut:
    """Which listed labels count as given: those of the first places, or of a score or more.

    Attributes:
        rule: what tables say about it, and how it was chosen.
        places: how many; all without.
        score: the least; any without.
    """

    rule: str
    places: int | None = None
    score: float | None = None

    def of(self, ranked: Rankings) -> Rankings:
        """The labels that are given."""
        if self.places is not None:
            ranked = ranked.first(self.places)
        if self.score is not None:
            ranked = ranked.given(ranked.score >= self.score)
        return ranked


WHOLE = Cut("whole lists")


def usual_number(train_counts: Int[np.ndarray, " label"], n_train: int) -> Cut:
    """As many places as training documents have labels in the mean, rounded; at least one."""
    mean = train_counts.sum() / n_train
    k = max(1, round(mean))
    return Cut(f"first {k} (training mean {mean:.2f})", places=k)


def best_score(ranked: Rankings, where: str) -> Cut:
    """The score with the highest micro F1 on other documents than those that are measured.

    Raises:
        InputError: no label that is listed there is right.
    """
    if not len(ranked.hits.label):
        raise InputError(f"{where}: no listed label is right, so no threshold can be chosen")
    order = np.argsort(-ranked.score, kind="stable")
    score, right = ranked.score[order], ranked.right[order]
    n = np.arange(1, len(score) + 1)
    f1 = 2 * np.cumsum(right) / (n + len(ranked.gold_label))
    f1[np.append(score[1:] == score[:-1], False)] = 0  # equal scores are given together
    best = float(score[f1.argmax()])
    return Cut(f"score >= {best:.6g} (micro F1 {f1.max():.3f} on {where})", score=best)


def micro_f1(ranked: Rankings) -> Terms:
    """F1 over all labels together."""
    right = np.bincount(ranked.document[ranked.right], minlength=ranked.n)
    listed = np.bincount(ranked.document, minlength=ranked.n)
    return Terms(2.0 * right, (listed + ranked.n_gold).astype(float))


def macro_f1(ranked: Rankings, weights: Weights) -> Draws:
    """Mean F1 of the labels, for each weighting of the documents.

    In a draw, labels count that occur in a document with a weight: one that was not drawn is
    neither right nor wrong.
    """
    label = np.concatenate([ranked.label, ranked.gold_label])
    if not len(label):
        return np.full(len(weights), np.nan)
    labels, row = np.unique(label, return_inverse=True)
    shape = (len(labels), ranked.n)
    document = np.concatenate([ranked.document, ranked.gold_document])
    occurs = csr_array((np.ones(len(row)), (row, document)), shape)
    right = np.flatnonzero(ranked.right)
    hits = csr_array((np.ones(len(right)), (row[right], document[right])), shape)
    step = max(1, NUMBERS_AT_ONCE // len(labels))
    means = []
    for start in range(0, len(weights), step):
        some = np.ascontiguousarray(weights[start : start + step].T)
        twice, whole = (np.asarray(x @ some) for x in (2 * hits, occurs))
        f1 = np.divide(twice, whole, out=np.zeros_like(whole), where=whole > 0)
        counted = (whole > 0).sum(axis=0)
        means.append(ratio(f1.sum(axis=0), counted.astype(float)))
    return np.concatenate(means)


def answer_scores(gold: Sequence[Collection[str]], listed: Sequence[Sequence[str]]) -> pd.DataFrame:
    """One row an answer: exact (the same set), p1, p3, ndcg3, and the counts tp, fp, fn."""
    ranked = Rankings.of_names(gold, listed)
    tp = np.bincount(ranked.document[ranked.right], minlength=ranked.n)
    fp = np.bincount(ranked.document, minlength=ranked.n) - tp
    fn = ranked.n_gold - tp
    return pd.DataFrame(
        {
            "exact": fp + fn == 0,
            "p1": precision_at(ranked, 1).each,
            "p3": precision_at(ranked, 3).each,
            "ndcg3": ndcg_at(ranked, 3).each,
            "tp": tp,
            "fp": fp,
            "fn": fn,
        }
    )
