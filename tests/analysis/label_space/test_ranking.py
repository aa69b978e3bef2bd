"""Ranking measures by hand, and against scikit-learn."""

from math import log2

import numpy as np
import pytest
from sklearn.metrics import label_ranking_average_precision_score, ndcg_score

from workbench.analysis.label_space.ranked import Rankings
from workbench.analysis.label_space.ranking import (
    average_precision,
    interval,
    ndcg_at,
    precision_at,
    psndcg_at,
    psp_at,
    r_precision,
    recall_at,
)


def test_no_right_label_leaves_a_document_out_of_recall_and_ndcg():
    ranked = Rankings.of([[], [0, 1]], [[3], [0, 3, 1]])
    assert precision_at(ranked, 1).value == 1 / 2
    assert recall_at(ranked, 1).value == 1 / 2
    assert recall_at(ranked, 3).value == 1
    assert ndcg_at(ranked, 3).value == pytest.approx((1 + 1 / 2) / (1 + 1 / log2(3)))
    np.testing.assert_equal(recall_at(ranked, 1).each, [np.nan, 1 / 2])


INVERSE = np.array([2.0, 4.0, 8.0, 16.0])
"""1 / p of labels 0 to 3."""


def scored(measure, ranked, k, inverse):
    return measure(ranked, ranked.best(inverse), k, inverse)


def test_propensity_scored_measures_by_hand():
    # The best three of document 0 are 3, 1, 0, of document 1 label 2 alone.
    ranked = Rankings.of([[0, 1, 3], [2]], [[0, 2, 3], [1, 2]])
    assert scored(psp_at, ranked, 1, INVERSE).value == pytest.approx((2 + 0) / (16 + 8))
    assert scored(psp_at, ranked, 2, INVERSE).value == pytest.approx((2 + 8) / (20 + 8))
    assert scored(psp_at, ranked, 3, INVERSE).value == pytest.approx((18 + 8) / (22 + 8))
    third = 1 / log2(3)
    largest = 1 + third
    above = 2 / largest + 8 * third
    below = (16 + 4 * third) / largest + 8
    assert scored(psndcg_at, ranked, 2, INVERSE).value == pytest.approx(above / below)


def test_lists_of_the_rarest_right_labels_are_best():
    gold = [[0, 2], [1, 2, 3]]
    best = Rankings.of(gold, [[2, 0], [3, 2, 1]])
    common = Rankings.of(gold, [[0, 2], [1, 2, 3]])
    for measure in (psp_at, psndcg_at):
        assert scored(measure, best, 2, INVERSE).value == pytest.approx(1)
        assert scored(measure, common, 1, INVERSE).value == pytest.approx((2 + 4) / (8 + 16))


def test_equal_propensities_give_the_plain_measures_of_full_lists():
    ranked = Rankings.of([[0, 1, 2], [1, 2, 3]], [[0, 3, 1], [3, 0, 2]])
    flat = np.full(4, 5.0)
    assert scored(psp_at, ranked, 3, flat).value == pytest.approx(precision_at(ranked, 3).value)
    assert scored(psndcg_at, ranked, 3, flat).value == pytest.approx(ndcg_at(ranked, 3).value)


@pytest.mark.parametrize("k", [1, 3, 8])
def test_random_rankings_agree_with_scikit_learn_and_with_sets(k):
    rng = np.random.default_rng(k)
    gold = [rng.choice(12, rng.integers(1, 6), replace=False).tolist() for _ in range(30)]
    listed = [rng.permutation(12).tolist() for _ in range(30)]
    ranked = Rankings.of(gold, listed)
    relevant, scores = np.zeros((30, 12)), np.zeros((30, 12))
    for row in range(30):
        relevant[row, gold[row]] = 1
        scores[row, listed[row]] = -np.arange(12)
    assert ndcg_at(ranked, k).value == pytest.approx(ndcg_score(relevant, scores, k=k))
    found = [len(set(g) & set(row[:k])) for g, row in zip(gold, listed, strict=True)]
    np.testing.assert_allclose(precision_at(ranked, k).each, np.array(found) / k)
    np.testing.assert_allclose(recall_at(ranked, k).each, np.array(found) / [*map(len, gold)])
    expected = label_ranking_average_precision_score(relevant, scores)
    assert average_precision(ranked).value == pytest.approx(expected)
    firsts = [len(set(g) & set(row[: len(g)])) for g, row in zip(gold, listed, strict=True)]
    np.testing.assert_allclose(r_precision(ranked).each, np.array(firsts) / [*map(len, gold)])


def test_average_and_r_precision_of_short_lists_by_hand():
    # Of three right labels the second and the fourth place hold two: (1/2 + 2/4) / 3.
    ranked = Rankings.of([[0, 1, 2], [3], [4], []], [[7, 0, 8, 1], [3], [], [5]])
    np.testing.assert_allclose(average_precision(ranked).each, [1 / 3, 1, 0, np.nan])
    np.testing.assert_allclose(r_precision(ranked).each, [1 / 3, 1, 0, np.nan])
    assert average_precision(ranked).value == pytest.approx(4 / 9)


def test_interval_leaves_out_resamples_without_a_value():
    assert interval(np.array([5.0, 1, np.nan, 1, np.nan])) == (5, 1, 1)
    value, *ends = interval(np.array([5.0, np.nan]))
    assert value == 5 and np.isnan(ends).all()
