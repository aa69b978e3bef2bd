"""How good lists of labels are against sets of right ones; all measures of a ranking are here.

Relevance is binary and a label that is listed again does not count again. Of a document, with the
right labels R and the label at place i (from 1) l_i:

    P@k       right labels in the first k places / k, however few are listed or right
    recall@k  the same / |R|
    nDCG@k    Σ 1 / log2(i + 1) over right places i ≤ k / the largest there could be, which is that
              of min(k, |R|) right places (Järvelin & Kekäläinen 2002)
    PSP@k     Σ 1 / p(l_i) over right places i ≤ k / the same of the k right labels of smallest p,
              p being propensities (`frequency`; Jain, Prabhu & Varma 2016)
    PSnDCG@k  the same with every term / log2(i + 1), and both sums / nDCG@k's largest

P, recall and nDCG are means over documents. PSP and PSnDCG are, as in the tables of the Extreme
Classification Repository, the mean of the upper sum over the mean of the lower one, not a mean of
ratios. Each measure is therefore a numerator and a denominator per document (`Terms`); documents
without a right label count in P@k alone. F1 is 2 tp / (2 tp + fp + fn) of the whole lists: micro
over all labels of all documents together, macro for each label by itself and then averaged over the
labels that occur, be it as right or as listed.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import NamedTuple

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float, Int
from scipy.sparse import csr_array

from workbench.analysis.label_space.frequency import PerLabel
from workbench.analysis.statistics import CONFIDENCE
from workbench.errors import InputError

Draws = Float[np.ndarray, " draw"]
Weights = Float[np.ndarray, "draw document"]
"""How much each document counts in each draw; rows sum to 1."""


NUMBERS_AT_ONCE = 2**24
"""Entries of a dense array of draws: 128 MB in float64."""


class Terms(NamedTuple):
    """A measure as numerator and denominator of every document."""

    numerator: Float[np.ndarray, " document"]
    denominator: Float[np.ndarray, " document"]

    @property
    def each(self) -> Float[np.ndarray, " document"]:
        """The measure of each document alone; NaN where it does not count."""
        return ratio(self.numerator, self.denominator)

    @property
    def value(self) -> float:
        """Mean numerator over mean denominator; NaN where no document counts."""
        return float(ratio(*(x.sum(keepdims=True) for x in self))[0])

    def draws(self, weights: Weights) -> Draws:
        """The same for each weighting of the documents."""
        return ratio(weights @ self.numerator, weights @ self.denominator)


@dataclass(frozen=True)
class Rankings:
    """Right and listed labels of many documents, as flat arrays in order of the documents.

    Attributes:
        n: documents.
        gold_document: document of each right label.
        gold_label: its number.
        document: document of each listed label.
        label: its number.
        place: its place in the document's list, from 0.
        right: whether it is right.
    """

    n: int
    gold_document: Int[np.ndarray, " gold"]
    gold_label: Int[np.ndarray, " gold"]
    document: Int[np.ndarray, " listed"]
    label: Int[np.ndarray, " listed"]
    place: Int[np.ndarray, " listed"]
    right: Bool[np.ndarray, " listed"]

    @classmethod
    def of(
        cls,
        gold: Sequence[Collection[int]],
        listed: Sequence[Sequence[int]],
        *,
        ignored: Sequence[Collection[int]] | None = None,
        n_labels: int | None = None,
    ) -> "Rankings":
        """From label numbers of each document, listed best first.

        Labels in `ignored` are taken out of a document's right and listed labels before places are
        counted.

        Raises:
            InputError: as many right as listed or ignored rows are not given, or a label is no
                number from 0 to `n_labels` - 1.
        """
        rows = {"gold": gold, "listed": listed, "ignored": ignored or [()] * len(gold)}
        flat = {name: _flat(name, of, len(gold), n_labels) for name, of in rows.items()}
        width = 1 + max((int(label.max()) for _, label in flat.values() if len(label)), default=0)
        keys = {name: document * width + label for name, (document, label) in flat.items()}
        right = np.setdiff1d(keys["gold"], keys["ignored"])
        _, first = np.unique(keys["listed"], return_index=True)
        key = keys["listed"][np.sort(first)]
        key = key[~np.isin(key, keys["ignored"])]
        document, label = np.divmod(key, width)
        is_right = np.isin(key, right, assume_unique=True)
        places = _places(document)
        return cls(len(gold), *np.divmod(right, width), document, label, places, is_right)

    @classmethod
    def of_names(
        cls, gold: Sequence[Collection[str]], listed: Sequence[Sequence[str]]
    ) -> "Rankings":
        """From labels by name, numbered in order of first appearance."""
        number: dict[str, int] = {}

        def numbered(rows: Sequence[Collection[str]]) -> list[list[int]]:
            return [[number.setdefault(name, len(number)) for name in row] for row in rows]

        return cls.of(numbered(gold), numbered(listed))

    def within(self, kept: Bool[np.ndarray, " label"]) -> "Rankings":
        """Of some labels only; the listed ones keep their places among all."""
        gold, listed = kept[self.gold_label], kept[self.label]
        return Rankings(
            self.n,
            self.gold_document[gold],
            self.gold_label[gold],
            self.document[listed],
            self.label[listed],
            self.place[listed],
            self.right[listed],
        )

    def best(self, worth: PerLabel) -> "Rankings":
        """The right labels as the list, those of most worth first."""
        order = np.lexsort((-worth[self.gold_label], self.gold_document))
        document, label = self.gold_document[order], self.gold_label[order]
        everywhere = np.ones(len(order), bool)
        return replace(
            self, document=document, label=label, place=_places(document), right=everywhere
        )

    @property
    def n_gold(self) -> Int[np.ndarray, " document"]:
        """Right labels of each document."""
        return np.bincount(self.gold_document, minlength=self.n)


def precision_at(ranked: Rankings, k: int) -> Terms:
    """Share of right labels among the first k places."""
    return Terms(_gain(ranked, k) / k, np.ones(ranked.n))


def recall_at(ranked: Rankings, k: int) -> Terms:
    """Share of the right labels that are among the first k places."""
    return _mean(_gain(ranked, k), ranked.n_gold)


def ndcg_at(ranked: Rankings, k: int) -> Terms:
    """Discounted gain of the first k places over the largest possible."""
    return _mean(_gain(ranked, k, discounted=True), _largest(ranked, k))


def psp_at(ranked: Rankings, best: Rankings, k: int, inverse: PerLabel) -> Terms:
    """Inverse propensities of the right labels in the first k places, and of the best list.

    `best` is `ranked.best(inverse)`.
    """
    return Terms(_gain(ranked, k, inverse), _gain(best, k, inverse))


def psndcg_at(ranked: Rankings, best: Rankings, k: int, inverse: PerLabel) -> Terms:
    """The same with discounted gains, both over nDCG's largest possible gain."""
    largest = _largest(ranked, k)
    gains = (_gain(one, k, inverse, discounted=True) for one in (ranked, best))
    return Terms(*(np.divide(x, largest, out=np.zeros(ranked.n), where=largest > 0) for x in gains))


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


def interval(draws: Draws) -> tuple[float, float, float]:
    """Value and ends of the 95 % percentile interval; resamples without a value are left out.

    The first draw is the value, of all documents once.
    """
    rest = draws[1:][~np.isnan(draws[1:])]
    if not len(rest):
        return float(draws[0]), np.nan, np.nan
    low, high = np.quantile(rest, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return float(draws[0]), float(low), float(high)


def _gain(
    ranked: Rankings, k: int, worth: PerLabel | None = None, *, discounted: bool = False
) -> Float[np.ndarray, " document"]:
    """Σ of what the right labels in the first k places are worth, 1 by default."""
    found = ranked.right & (ranked.place < k)
    gains = np.ones(int(found.sum())) if worth is None else worth[ranked.label[found]]
    if discounted:
        gains = gains / np.log2(ranked.place[found] + 2)
    # Of no gains at all, bincount makes integers.
    return np.bincount(ranked.document[found], gains, ranked.n).astype(float, copy=False)


def _largest(ranked: Rankings, k: int) -> Float[np.ndarray, " document"]:
    """Discounted gain of min(k, right labels) places."""
    sums = np.concatenate([[0], np.cumsum(1 / np.log2(np.arange(k) + 2))])
    return sums[np.minimum(ranked.n_gold, k)]


def _mean(numerator: np.ndarray, denominator: np.ndarray) -> Terms:
    """Terms of a mean of ratios over the documents with a denominator."""
    counts = denominator > 0
    ratio = np.divide(numerator, denominator, out=np.zeros(len(counts)), where=counts)
    return Terms(ratio, counts.astype(float))


def ratio(above: np.ndarray, below: np.ndarray) -> np.ndarray:
    """Above / below, of any one shape; NaN where below is 0."""
    return np.divide(above, below, out=np.full(below.shape, np.nan), where=below != 0)


def _places(document: np.ndarray) -> np.ndarray:
    """Places from 0 in each run of the same document; documents ascend."""
    return np.arange(len(document)) - np.searchsorted(document, document)


def _flat(
    name: str, rows: Sequence[Collection[int]], n: int, n_labels: int | None
) -> tuple[np.ndarray, np.ndarray]:
    """Document and label of every entry."""
    if len(rows) != n:
        raise InputError(f"{len(rows)} rows of {name} labels for {n} documents; one each is needed")
    lengths = np.fromiter(map(len, rows), np.int64, n)
    document = np.repeat(np.arange(n), lengths)
    label = np.fromiter(chain.from_iterable(rows), np.int64, int(lengths.sum()))
    wrong = label < 0 if n_labels is None else (label < 0) | (label >= n_labels)
    if wrong.any():
        at = int(wrong.argmax())
        rule = "from 0" if n_labels is None else f"from 0 to {n_labels - 1}"
        raise InputError(
            f"document {document[at]}: {name} has label {label[at]}, but labels go {rule}"
        )
    return document, label
