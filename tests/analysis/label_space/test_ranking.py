"""Ranking measures by hand, and against scikit-learn."""

from math import log2

import numpy as np
import pytest
from sklearn.metrics import f1_score, ndcg_score
from sklearn.preprocessing import MultiLabelBinarizer

from workbench.analysis.label_space.ranking import (
    Rankings,
    answer_scores,
    interval,
    macro_f1,
    micro_f1,
    ndcg_at,
    precision_at,
    psndcg_at,
    psp_at,
    recall_at,
)
from workbench.errors import InputError

GOLD = [["a", "b", "c"], ["a"], ["d", "e"], ["b", "f"]]
LISTED = [["c", "x", "a", "b"], ["a"], [], ["f", "d", "b"]]


def scores_of(gold, listed):
    [row] = answer_scores([gold], [listed]).to_dict("records")
    return row


def test_places_of_the_right_labels_decide():
    scores = scores_of(["a", "b", "c"], ["c", "x", "a", "b"])
    assert not scores["exact"] and (scores["p1"], scores["p3"]) == (1, pytest.approx(2 / 3))
    ideal = 1 + 1 / log2(3) + 1 / 2
    assert scores["ndcg3"] == pytest.approx((1 + 1 / 2) / ideal)
    assert (scores["tp"], scores["fp"], scores["fn"]) == (3, 1, 0)


def test_order_does_not_matter_to_the_set_and_repeats_count_once():
    scores = scores_of(["a", "b"], ["b", "b", "a"])
    assert scores["exact"] and scores["ndcg3"] == pytest.approx(1)
    assert scores["p3"] == pytest.approx(2 / 3)  # the divisor stays 3
    assert (scores["tp"], scores["fp"], scores["fn"]) == (2, 0, 0)


def test_nothing_listed_scores_nothing():
    assert list(scores_of(["a"], []).values()) == [False, 0, 0, 0, 0, 0, 1]
    scores = scores_of([], ["a"])
    assert scores["p1"] == 0 and np.isnan(scores["ndcg3"])


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


def test_ignored_labels_leave_their_places_to_the_next():
    ranked = Rankings.of([[0, 1], [1]], [[0, 1, 2], [0, 1]], ignored=[[0], []])
    assert precision_at(ranked, 1).each.tolist() == [1, 0]
    assert recall_at(ranked, 1).each.tolist() == [1, 0]
    assert micro_f1(ranked).each.tolist() == pytest.approx([2 / 3, 2 / 3])


@pytest.mark.parametrize(
    ("gold", "listed", "said"),
    [
        ([[0]], [[0], [1]], "2 rows of listed labels for 1 documents"),
        ([[0], [1]], [[0], [4]], "document 1: listed has label 4, but labels go from 0 to 3"),
        ([[0], [-1]], [[0], [1]], "document 1: gold has label -1"),
    ],
)
def test_bad_rows_are_refused(gold, listed, said):
    with pytest.raises(InputError, match=said):
        Rankings.of(gold, listed, n_labels=4)


@pytest.mark.parametrize("times", [(1, 1, 1, 1), (2, 0, 1, 1), (0, 0, 0, 4)])
def test_f1_of_a_resample_is_that_of_the_repeated_documents(times):
    rows = [n for n, count in enumerate(times) for _ in range(count)]
    gold, listed = ([table[n] for n in rows] for table in (GOLD, LISTED))
    binary = MultiLabelBinarizer().fit([*gold, *listed])
    both = [binary.transform(table) for table in (gold, listed)]
    weights = np.array([times]) / 4
    ranked = Rankings.of_names(GOLD, LISTED)
    expected = f1_score(*both, average="micro")
    assert micro_f1(ranked).draws(weights)[0] == pytest.approx(expected)
    expected = f1_score(*both, average="macro", zero_division=0)
    assert macro_f1(ranked, weights)[0] == pytest.approx(expected)


def test_f1_of_no_labels_is_nan():
    weights = np.ones((1, 2)) / 2
    ranked = Rankings.of_names([[], []], [[], []])
    assert np.isnan(macro_f1(ranked, weights)[0])
    assert np.isnan(micro_f1(ranked).draws(weights)[0]) and np.isnan(micro_f1(ranked).value)


def test_interval_leaves_out_resamples_without_a_value():
    assert interval(np.array([5.0, 1, np.nan, 1, np.nan])) == (5, 1, 1)
    value, *ends = interval(np.array([5.0, np.nan]))
    assert value == 5 and np.isnan(ends).all()
