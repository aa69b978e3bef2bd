"""Scores of labels as others write them: pyxclib's text, SciPy's npz."""

import gzip

import numpy as np
import pytest
from scipy.sparse import csr_array, load_npz, save_npz
from sklearn.datasets import load_svmlight_file

from workbench.errors import InputError
from workbench.labels.sparse_scores import read_rows, write_rows

LABELS = [np.array(row, dtype=np.int32) for row in ([3, 0], [], [1, 4, 2])]
SCORES = [np.array(row, dtype=np.float32) for row in ([0.9, 0.25], [], [7, 0.1, 0.1])]


@pytest.mark.parametrize("name", ["a.txt", "a.txt.gz", "a.npz"])
def test_what_is_written_is_read_again(tmp_path, name):
    assert write_rows(tmp_path / name, LABELS, SCORES, 5) == 0
    labels, scores, n_labels = read_rows(tmp_path / name)
    assert n_labels == 5 and [row.tolist() for row in labels] == [[3, 0], [], [1, 2, 4]]
    np.testing.assert_array_equal(np.concatenate(scores), np.concatenate(SCORES))


def test_the_forms_are_those_of_others(tmp_path):
    write_rows(tmp_path / "a.txt", LABELS, SCORES, 5)
    lines = (tmp_path / "a.txt").read_text().splitlines()
    assert lines == ["3 5", "0:0.25 3:0.899999976", "", "1:7 2:0.100000001 4:0.100000001"]
    write_rows(tmp_path / "a.npz", LABELS, SCORES, 5)
    dense = load_npz(tmp_path / "a.npz").toarray()
    # svmlight's reader takes the rows when a target stands before each.
    (tmp_path / "svm.txt").write_text("".join(f"0 {line}\n" for line in lines[1:]))
    read, _ = load_svmlight_file(str(tmp_path / "svm.txt"), n_features=5, zero_based=True)
    np.testing.assert_allclose(read.toarray(), dense)


@pytest.mark.parametrize("name", ["a.txt", "a.npz"])
def test_scores_that_a_missing_pair_would_beat_are_raised(tmp_path, name):
    logs = [np.array([0, -3.5], dtype=np.float32), np.array([-40, -100], dtype=np.float32)]
    added = write_rows(tmp_path / name, [np.array([1, 0]), np.array([0, 2])], logs, 3)
    labels, scores, _ = read_rows(tmp_path / name)
    assert added == 101 and [row.tolist() for row in labels] == [[1, 0], [0, 2]]
    np.testing.assert_allclose(np.concatenate(scores), [101, 97.5, 61, 1])


def test_text_may_end_in_empty_lines_and_be_packed(tmp_path):
    (tmp_path / "a.txt.gz").write_bytes(gzip.compress(b"2 9\n8:1e-3 7:2\n\n\n\n"))
    labels, scores, n_labels = read_rows(tmp_path / "a.txt.gz")
    assert [row.tolist() for row in labels] == [[7, 8], []] and n_labels == 9
    assert scores[0].tolist() == pytest.approx([2, 1e-3])


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("0:1 1:2\n", "line 1: 'rows columns' is needed"),
        ("", "line 1: 'rows columns' is needed"),
        ("2 3\n0:1\n", "says 2 rows, but 1 follow"),
        ("1 3\n0:1\n1:1\n", "says 1 rows, but 2 follow"),
        ("1 3\n0:1 3:1\n", "line 2: label 3, but labels go from 0 to 2"),
        ("1 3\n0:1 -1:1\n", "line 2: label -1"),
        ("1 3\n0:1 0:2\n", "line 2: a label stands there twice"),
        ("1 3\n0:nan\n", "line 2: a score is not finite"),
        ("1 3\n0,1\n", "line 2: not 'label:score' pairs"),
        ("1 3\n0:1:2\n", "line 2: not 'label:score' pairs"),
    ],
)
def test_bad_text_is_refused_with_its_line(tmp_path, text, said):
    (tmp_path / "a.txt").write_text(text)
    with pytest.raises(InputError, match=said):
        read_rows(tmp_path / "a.txt")


def test_bad_matrices_are_refused(tmp_path):
    (tmp_path / "none.npz").write_text("no zip")
    np.savez(tmp_path / "other.npz", a=np.ones(3))
    twice = csr_array((np.ones(2), [1, 1], [0, 2]), shape=(1, 3))
    save_npz(tmp_path / "twice.npz", twice)
    save_npz(tmp_path / "nan.npz", csr_array(np.array([[0, np.nan]])))
    whole = bytearray((tmp_path / "twice.npz").read_bytes())
    whole[60:64] = b"\xff" * 4  # in the packed part of the first member
    (tmp_path / "packed.npz").write_bytes(whole)
    for name, said in (
        ("none", "no sparse matrix"),
        ("packed", "no sparse matrix"),
        ("other", "no sparse matrix"),
        ("twice", "row 0: a label stands there twice"),
        ("nan", "row 0: a score is not finite"),
        ("missing", "cannot be read"),
    ):
        with pytest.raises(InputError, match=said):
            read_rows(tmp_path / f"{name}.npz")
