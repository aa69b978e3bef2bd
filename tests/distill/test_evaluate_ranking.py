"""Ranking measures by hand, and F1 against scikit-learn."""

from math import log2

import numpy as np
import pytest
from sklearn.metrics import f1_score
from sklearn.preprocessing import MultiLabelBinarizer

from workbench.distill.ranking import answer_scores, macro_f1, micro_f1, ndcg_at, precision_at

GOLD = [["a", "b", "c"], ["a"], ["d", "e"], ["b", "f"]]
LISTED = [["c", "x", "a", "b"], ["a"], [], ["f", "d", "b"]]


def test_places_of_the_right_labels_decide():
    scores = answer_scores(["a", "b", "c"], ["c", "x", "a", "b"])
    assert scores["exact"] is False and (scores["p1"], scores["p3"]) == (1, pytest.approx(2 / 3))
    ideal = 1 + 1 / log2(3) + 1 / 2
    assert scores["ndcg3"] == pytest.approx((1 + 1 / 2) / ideal)
    assert (scores["tp"], scores["fp"], scores["fn"]) == (3, 1, 0)


def test_order_does_not_matter_to_the_set_and_repeats_count_once():
    scores = answer_scores(["a", "b"], ["b", "b", "a"])
    assert scores["exact"] is True and scores["ndcg3"] == pytest.approx(1)
    assert scores["p3"] == pytest.approx(2 / 3)  # the divisor stays 3
    assert (scores["tp"], scores["fp"], scores["fn"]) == (2, 0, 0)


def test_nothing_listed_scores_nothing():
    scores = answer_scores(["a"], [])
    assert list(scores.values()) == [False, 0, 0, 0, 0, 0, 1]
    assert precision_at([], ["a"], 1) == 0 and np.isnan(ndcg_at([], ["a"], 3))


def counts():
    rows = [answer_scores(gold, listed) for gold, listed in zip(GOLD, LISTED, strict=True)]
    return [np.array([float(row[name]) for row in rows]) for name in ("tp", "fp", "fn")]


@pytest.mark.parametrize("times", [(1, 1, 1, 1), (2, 0, 1, 1), (0, 0, 0, 4)])
def test_f1_of_a_resample_is_that_of_the_repeated_prompts(times):
    rows = [n for n, count in enumerate(times) for _ in range(count)]
    gold, listed = ([table[n] for n in rows] for table in (GOLD, LISTED))
    binary = MultiLabelBinarizer().fit([*gold, *listed])
    both = [binary.transform(table) for table in (gold, listed)]
    weights = np.array([times]) / 4
    assert micro_f1(*counts(), weights)[0] == pytest.approx(f1_score(*both, average="micro"))
    expected = f1_score(*both, average="macro", zero_division=0)
    assert macro_f1(GOLD, LISTED, weights)[0] == pytest.approx(expected)


def test_f1_of_no_labels_is_nan():
    weights = np.ones((1, 2)) / 2
    assert np.isnan(macro_f1([[], []], [[], []], weights)[0])
    assert np.isnan(micro_f1(*np.zeros((3, 2)), weights)[0])
