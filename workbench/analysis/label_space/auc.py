"""Area under the ROC curve over all labels, also those that no list holds.

AUC is the share of pairs of a right and a wrong label in which the right one has the higher score,
equal scores counting half: micro over all right and wrong pairs of document and label together;
macro for each label by itself, over the documents, and then averaged over the labels that are right
for some document, and not for all (Mullenbach et al. 2018, and the tables of MIMIC since).

A label that a document's list does not hold has a lower score than all that any list holds, and all
such are equal. So with short lists AUC says little but how many right labels are listed: where a
share s of them is, it is about s + (1 − s) / 2. Of label spaces that no dense matrix holds only
what is listed is gone through.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from workbench.analysis.label_space.ranked import Rankings
from workbench.analysis.label_space.ranking import Terms, ratio


class _Order(NamedTuple):
    """Scores as whole numbers in the same order, as far as right and wrong labels are compared."""

    right: Int[np.ndarray, " hit"]
    wrong: Int[np.ndarray, " miss"]
    n: int
    """All are below."""


def micro_auc(ranked: Rankings) -> Terms:
    """AUC of all pairs of document and label, linearised.

    Its mean over the documents is the AUC. Weighted means of it are the AUC of documents so
    weighted, to the first order (the infinitesimal jackknife; Obuchowski 1997 for clusters).
    """
    order = _order(ranked)
    n, at = ranked.n, ranked.hits.document
    missed = ranked.document[~ranked.right]
    rights, wrongs = ranked.n_gold, _wrongs(ranked)
    n_right, n_wrong = int(rights.sum()), int(wrongs.sum())
    if not n_right or not n_wrong:
        return Terms(np.zeros(n), np.zeros(n))
    listed_right, listed_wrong = np.bincount(at, minlength=n), np.bincount(missed, minlength=n)
    below_all = n_wrong - len(missed)  # wrong labels that no list holds
    by_right, by_wrong = (np.bincount(x, minlength=order.n) for x in (order.right, order.wrong))
    # What each right label has below itself, and each wrong one above.
    below = np.cumsum(by_wrong) - by_wrong / 2 + below_all
    above = len(at) - np.cumsum(by_right) + by_right / 2
    won = np.bincount(at, below[order.right], n) + (rights - listed_right) * below_all / 2
    unlisted = len(at) + (n_right - len(at)) / 2
    lost = np.bincount(missed, above[order.wrong], n) + (wrongs - listed_wrong) * unlisted
    value = won.sum() / (n_right * n_wrong)
    counts = ranked.counted.astype(float)
    slope = (won / n_wrong - value * rights) / n_right + (lost / n_right - value * wrongs) / n_wrong
    return Terms(counts * (value + counts.sum() * slope), counts)


def macro_auc(ranked: Rankings) -> float:
    """Mean of the AUC of every label by itself; NaN where no label has one."""
    _, areas = label_aucs(ranked)
    return float(areas.mean()) if len(areas) else float("nan")


def label_aucs(ranked: Rankings) -> tuple[Int[np.ndarray, " label"], Float[np.ndarray, " label"]]:
    """The labels that have an AUC, and it."""
    order, hits = _order(ranked), ranked.hits
    label = ranked.label[~ranked.right].astype(np.int64)
    width = 1 + max(int(x.max(initial=0)) for x in (ranked.gold_label, ranked.ignored_label, label))
    rights = np.bincount(ranked.gold_label, minlength=width)
    ignored = np.bincount(ranked.ignored_label, minlength=width)
    wrongs = int(ranked.counted.sum()) - rights - ignored
    below_all = wrongs - np.bincount(label, minlength=width)
    found = np.bincount(hits.label, minlength=width)
    compared = found[label] > 0
    keys = np.sort(label[compared] * order.n + order.wrong[compared])
    begin = hits.label.astype(np.int64) * order.n
    key = begin + order.right
    before, less = np.searchsorted(keys, begin), np.searchsorted(keys, key)
    below = (less + np.searchsorted(keys, key, "right")) / 2 - before + below_all[hits.label]
    won = np.bincount(hits.label, below, width) + (rights - found) * below_all / 2
    occurs = np.flatnonzero((rights > 0) & (wrongs > 0))
    return occurs, ratio(won[occurs], (rights * wrongs)[occurs].astype(float))


def _wrongs(ranked: Rankings) -> Int[np.ndarray, " document"]:
    """Wrong labels of each document."""
    assert ranked.n_labels is not None
    ignored = np.bincount(ranked.ignored_document, minlength=ranked.n)
    return ranked.n_labels * ranked.counted.astype(np.int64) - ranked.n_gold - ignored


def _order(ranked: Rankings) -> _Order:
    """Scores of right labels are odd numbers; a wrong one has the same if equal, or one between."""
    scores, right = np.unique(ranked.hits.score, return_inverse=True)
    wrong = ranked.score[~ranked.right]
    at = np.searchsorted(scores, wrong)
    equal = np.zeros(len(wrong), bool)
    if len(scores):
        equal = scores[np.minimum(at, len(scores) - 1)] == wrong
    return _Order(2 * right + 1, 2 * at + equal, 2 * len(scores) + 1)
