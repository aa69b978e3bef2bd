"""Propensities and buckets of labels, on numbers worked by hand."""

from math import log, sqrt

import numpy as np
import pytest

from workbench.analysis.label_space.frequency import (
    AMAZON,
    OTHER,
    WIKIPEDIA,
    inverse_propensities,
    label_buckets,
    training_counts,
)
from workbench.errors import InputError
from workbench.labels.xmc import load_xmc


def test_propensities_by_hand():
    # A = 1/2, B = 1, N = 100: C = (ln 100 - 1) sqrt(2) = 3.60517 * 1.41421 = 5.09848.
    # N_l = 0: 1 + C / 1 = 6.09848; N_l = 3: 1 + C / 2 = 3.54924; N_l = 99: 1 + C / 10 = 1.50985.
    found = inverse_propensities([0, 3, 99], 100, (0.5, 1.0))
    np.testing.assert_allclose(found, [6.09848, 3.54924, 1.50985], atol=1e-5)
    # A label of one document has, whatever A and B are, 1 / p = ln N.
    for propensity in (WIKIPEDIA, AMAZON, OTHER):
        [one] = inverse_propensities([1], 1000, propensity)
        assert one == pytest.approx(log(1000))
    [common] = inverse_propensities([1000], 1000, WIKIPEDIA)
    assert common == pytest.approx(1 + (log(1000) - 1) * sqrt(1.4 / 1000.4))


def test_training_documents_are_counted(tmp_path):
    (tmp_path / "Y.txt").write_text("a\nb\nc\n")
    for stem, rows in (("trn", "2 3\n0:1 2:1\n0:1\n"), ("tst", "1 3\n1:1\n")):
        n = rows.count("\n") - 1
        (tmp_path / f"{stem}_X.txt").write_text("text\n" * n)
        (tmp_path / f"{stem}_X_Y.txt").write_text(rows)
    counts, n_train = training_counts(load_xmc(tmp_path))
    assert counts.tolist() == [2, 0, 1] and n_train == 2
    for name in ("trn_X.txt", "trn_X_Y.txt"):
        (tmp_path / name).unlink()
    counts, n_train = training_counts(load_xmc(tmp_path))
    assert counts.tolist() == [0, 0, 0] and n_train == 0


def test_buckets_have_their_ends():
    assert label_buckets([100, 99, 6, 5, 0]).tolist() == ["head", "torso", "torso", "tail", "tail"]
    assert label_buckets([3, 2, 1], head=3, tail=1).tolist() == ["head", "torso", "tail"]


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: label_buckets([1], head=5, tail=5), "head must be above tail"),
        (lambda: label_buckets([4, -1]), "label 1: its training count is below 0"),
        (lambda: inverse_propensities([1], 2), "n_train is 2"),
        (lambda: inverse_propensities([11], 10), "n_train is 10"),
        (lambda: inverse_propensities([1], 10, (0.5, 0.0)), "must be above 0"),
    ],
)
def test_bad_counts_are_refused(call, said):
    with pytest.raises(InputError, match=said):
        call()
