import numpy as np
from scipy.sparse import csr_matrix

from workbench.labels.retrieving.pooling import pooled, without

# Two documents of two passages each; label 0 has the rows 0 and 1.
FOUND = csr_matrix(
    np.array([[3, 1, 0, 0], [0, 2, 4, 0], [0, 0, 0, 1], [0, 0, 0, 0]], dtype=np.float32)
)
DOCUMENT, LABEL = np.array([0, 0, 1, 1]), np.array([0, 0, 1, 2])


def test_the_best_passage_or_all_together_decide_and_wordings_never_add_up():
    best = pooled(FOUND, DOCUMENT, LABEL, (2, 3), 3, "max")
    assert best.tolist() == [[1, 0, -1], [2, -1, -1]]
    both = pooled(FOUND, DOCUMENT, LABEL, (2, 3), 1, "sum")
    assert both.tolist() == [[0], [2]]  # 3 + 2, not 3 + 1 + 2


def test_equal_scores_go_by_number():
    same = csr_matrix(np.ones((1, 3), dtype=np.float32))
    assert pooled(same, np.array([0]), np.array([2, 1, 0]), (1, 3), 2, "max").tolist() == [[0, 1]]


def test_left_out_labels_let_the_next_ones_move_up():
    tops = np.array([[3, 1, 2], [1, -1, -1]], dtype=np.int32)
    assert without(tops, [[3], []]).tolist() == [[1, 2, -1], [1, -1, -1]]
