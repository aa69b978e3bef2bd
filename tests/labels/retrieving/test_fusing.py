import numpy as np
import pytest

from workbench.labels.retrieving.fusing import fused, mean_recall, selected


def tops(*rows):
    return np.array(rows, dtype=np.int32)


def test_a_fused_score_is_the_sum_of_reciprocal_ranks():
    a, b = tops([0, 1, 2]), tops([2, 1, 3])
    # 0: 1/11; 1: 2/12; 2: 1/13 + 1/11; 3: 1/13
    assert fused([a, b], 4).tolist() == [[2, 1, 0, 3]]
    assert fused([a, a, b], 2).tolist() == [[1, 2]]  # 3/12, and 2/13 + 1/11
    assert fused([a, a, a, b], 1, constant=0.0).tolist() == [[0]]
    assert fused([a], 5).tolist() == [[0, 1, 2, -1, -1]]


def test_recall_is_a_mean_over_documents_with_a_right_label():
    assert mean_recall(tops([0, 1], [5, 6], [7, -1]), [[1, 9], [5], []], 2) == pytest.approx(0.75)


def test_ways_are_taken_while_they_raise_recall():
    rankings = {
        "half": tops([0, 9], [1, 9], [8, 9], [7, 9]),
        "other": tops([8, 9], [8, 9], [8, 2], [8, 7]),
        "none": tops([5, 6], [5, 6], [5, 6], [5, 6]),
    }
    gold = [[0], [1], [2], [3]]
    taken = selected(rankings, gold, [[], [], [8], []], 2)
    assert [name for name, _ in taken] == ["half", "other"]
    assert [recall for _, recall in taken] == pytest.approx([0.5, 0.75])
