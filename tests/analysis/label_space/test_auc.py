"""AUC of sparse lists against scikit-learn on dense matrices, ties and missing labels included."""

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from workbench.analysis.label_space.auc import label_aucs, macro_auc, micro_auc
from workbench.analysis.label_space.ranked import Rankings

N_LABELS = 15


def some(n, seed=0, longest=8):
    """Right, listed and ignored labels, scores with ties, and all of it in dense matrices."""
    rng = np.random.default_rng(seed)
    gold, listed, scores, ignored = [], [], [], []
    right, score = np.zeros((n, N_LABELS)), np.full((n, N_LABELS), -100.0)
    counts = np.ones((n, N_LABELS), bool)
    for row in range(n):
        gold.append(rng.choice(N_LABELS - 2, rng.integers(0, 6), replace=False).tolist())
        listed.append(rng.permutation(N_LABELS)[: rng.integers(0, longest)].tolist())
        scores.append(np.sort(rng.integers(-4, 5, len(listed[-1])))[::-1].tolist())
        ignored.append(rng.choice(N_LABELS, rng.integers(0, 3), replace=False).tolist())
        right[row, gold[row]] = 1
        score[row, listed[row]] = scores[row]
        counts[row, ignored[row]] = False
    ranked = Rankings.of(gold, listed, scores=scores, ignored=ignored, n_labels=N_LABELS)
    return ranked, right, score, counts


def dense_macro(right, score, counts):
    found = []
    for label in range(right.shape[1]):
        rows = counts[:, label]
        if len(set(right[rows, label])) == 2:
            found.append(roc_auc_score(right[rows, label], score[rows, label]))
    return found


@pytest.mark.parametrize("seed", range(5))
def test_it_is_that_of_the_dense_matrix(seed):
    ranked, right, score, counts = some(40, seed, longest=3 + 3 * seed)
    assert micro_auc(ranked).value == pytest.approx(roc_auc_score(right[counts], score[counts]))
    expected = dense_macro(right, score, counts)
    labels, areas = label_aucs(ranked)
    assert len(labels) == len(expected) and labels.max() < N_LABELS - 2  # the last are never right
    np.testing.assert_allclose(areas, expected)
    assert macro_auc(ranked) == pytest.approx(np.mean(expected))


def test_parts_are_those_of_the_matrix():
    ranked, right, score, counts = some(40)
    kept = np.arange(N_LABELS) % 2 == 0
    part = ranked.within(kept)
    inside = counts[:, kept]
    expected = roc_auc_score(right[:, kept][inside], score[:, kept][inside])
    assert micro_auc(part).value == pytest.approx(expected)
    rows = np.arange(40) % 3 == 0
    part = ranked.of_documents(rows)
    inside = counts[rows]
    expected = roc_auc_score(right[rows][inside], score[rows][inside])
    assert micro_auc(part).value == pytest.approx(expected)
    assert np.count_nonzero(micro_auc(part).denominator) == rows.sum()
    assert macro_auc(part) == pytest.approx(np.mean(dense_macro(right[rows], score[rows], inside)))


def test_resamples_are_near_those_of_the_whole_computation():
    ranked, right, score, counts = some(300)
    rng = np.random.default_rng(1)
    times = rng.multinomial(300, np.full(300, 1 / 300), 200)
    exact = []
    for drawn in times:
        rows = np.repeat(np.arange(300), drawn)
        exact.append(roc_auc_score(right[rows][counts[rows]], score[rows][counts[rows]]))
    linear = micro_auc(ranked).draws(times / 300)
    assert np.corrcoef(exact, linear)[0, 1] > 0.995
    assert linear.std() == pytest.approx(np.std(exact), rel=0.03)
    np.testing.assert_allclose(linear, exact, atol=0.003)


def test_a_share_of_listed_labels_decides_with_short_lists():
    # Three of four right labels stand first in lists of one; the fourth ties with all others.
    ranked = Rankings.of([[0], [1], [2], [3]], [[0], [1], [2], [9]], n_labels=1000)
    assert micro_auc(ranked).value == pytest.approx(3 / 4 + 1 / 8, abs=1e-3)


def test_without_right_or_wrong_labels_there_is_none():
    for gold in ([[], []], [[0, 1], [0, 1]]):
        ranked = Rankings.of(gold, [[0], [1]], n_labels=2)
        assert np.isnan(micro_auc(ranked).value) and np.isnan(macro_auc(ranked))
