"""F1 of sets of labels against scikit-learn, single answers, and where lists are cut."""

from math import log2

import numpy as np
import pytest
from sklearn.metrics import f1_score
from sklearn.preprocessing import MultiLabelBinarizer

from workbench.analysis.label_space.label_sets import (
    WHOLE,
    Cut,
    answer_scores,
    best_score,
    macro_f1,
    micro_f1,
    usual_number,
)
from workbench.analysis.label_space.ranked import Rankings
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


def test_lists_are_cut_by_place_and_by_score():
    ranked = Rankings.of([[0, 1], [2]], [[0, 3, 1], [4, 2]], scores=[[5, 2, 1], [3, 2]])
    kept = [Cut("", places=1).of(ranked), Cut("", score=2.0).of(ranked), WHOLE.of(ranked)]
    assert [one.label.tolist() for one in kept] == [[0, 4], [0, 3, 4, 2], [0, 3, 1, 4, 2]]
    assert micro_f1(kept[0]).value == pytest.approx(2 / (2 + 3))
    assert micro_f1(kept[1]).value == pytest.approx(4 / (4 + 3))


def test_as_many_places_as_training_documents_have_labels():
    assert usual_number(np.array([3, 4, 3]), 4).places == 2  # 2.5, rounded to even
    assert usual_number(np.array([1, 0]), 9) == Cut("first 1 (training mean 0.11)", places=1)


def test_the_best_threshold_is_found_among_all_scores():
    rng = np.random.default_rng(0)
    gold = [rng.choice(9, rng.integers(0, 4), replace=False).tolist() for _ in range(30)]
    listed = [rng.permutation(9).tolist() for _ in range(30)]
    scores = [np.sort(rng.integers(0, 12, 9) / 4)[::-1].tolist() for _ in range(30)]
    ranked = Rankings.of(gold, listed, scores=scores)
    every = {score: micro_f1(Cut("", score=score).of(ranked)).value for score in np.arange(12) / 4}
    cut = best_score(ranked, "30 documents of val")
    assert every[cut.score] == pytest.approx(max(every.values()))
    assert (
        cut.rule
        == f"score >= {cut.score:.6g} (micro F1 {max(every.values()):.3f} on 30 documents of val)"
    )
    with pytest.raises(InputError, match="val: no listed label is right"):
        best_score(Rankings.of([[0]], [[1]]), "val")
