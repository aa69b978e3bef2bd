"""How good lists of labels are against sets of right ones: measures of the order.

Relevance is binary and a label that is listed again does not count again. Of a document, with the
right labels R and the label at place i (from 1) l_i:

    P@k          right labels in the first k places / k, however few are listed or right
    recall@k     the same / |R|
    nDCG@k       Σ 1 / log2(i + 1) over right places i ≤ k / the largest there could be, which is
                 that of min(k, |R|) right places (Järvelin & Kekäläinen 2002)
    PSP@k        Σ 1 / p(l_i) over right places i ≤ k / the same of the k right labels of smallest
                 p, p being propensities (`frequency`; Jain, Prabhu & Varma 2016)
    PSnDCG@k     the same with every term / log2(i + 1), and both sums / nDCG@k's largest
    AP           Σ P@i over right places i / |R|: a right label that is not listed adds 0. Its mean
                 over documents is MAP
    R-precision  right labels in the first |R| places / |R|

P, recall, nDCG, AP and R-precision are means over documents. PSP and PSnDCG are, as in the tables
of the Extreme Classification Repository, the mean of the upper sum over the mean of the lower one,
not a mean of ratios. Each measure is therefore a numerator and a denominator per document
(`Terms`); documents without a right label count in P@k alone.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from workbench.analysis.label_space.frequency import PerLabel
from workbench.analysis.label_space.ranked import Rankings, places
from workbench.analysis.statistics import CONFIDENCE

Draws = Float[np.ndarray, " draw"]
Weights = Float[np.ndarray, "draw document"]
"""How much each document counts in each draw; rows sum to 1."""


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


def precision_at(ranked: Rankings, k: int) -> Terms:
    """Share of right labels among the first k places."""
    return Terms(_gain(ranked, k) / k, ranked.counted.astype(float))


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


def average_precision(ranked: Rankings) -> Terms:
    """Mean precision at the places of the right labels."""
    hits = ranked.hits
    precision = (places(hits.document) + 1) / (hits.place + 1)
    return _mean(_sums(hits.document, precision, ranked.n), ranked.n_gold)


def r_precision(ranked: Rankings) -> Terms:
    """Share of right labels among as many places as there are right labels."""
    hits = ranked.hits
    found = hits.place < ranked.n_gold[hits.document]
    return _mean(_sums(hits.document, found.astype(float), ranked.n), ranked.n_gold)


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
    hits = ranked.hits
    found = hits.place < k
    gains = np.ones(int(found.sum())) if worth is None else worth[hits.label[found]]
    if discounted:
        gains = gains / np.log2(hits.place[found] + 2)
    return _sums(hits.document[found], gains, ranked.n)


def _sums(document: np.ndarray, gains: np.ndarray, n: int) -> Float[np.ndarray, " document"]:
    # Of no gains at all, bincount makes integers.
    return np.bincount(document, gains, n).astype(float, copy=False)


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
