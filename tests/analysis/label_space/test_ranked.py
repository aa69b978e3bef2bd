"""Rankings as flat arrays: what is taken out, refused, and left in a part."""

import numpy as np
import pytest

from workbench.analysis.label_space.label_sets import micro_f1
from workbench.analysis.label_space.ranked import Rankings, places
from workbench.analysis.label_space.ranking import precision_at, recall_at
from workbench.errors import InputError


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


def test_arrays_and_lists_are_the_same_and_scores_stay_with_their_labels():
    listed, scores = [[3, 1, 3, 0], [], [2]], [[9, 8, 7, 6], [], [5]]
    plain = Rankings.of([[1], [], [0]], listed, scores=scores, ignored=[[1], [], []])
    arrays = [np.array(row, dtype=np.int32) for row in listed]
    floats = [np.array(row, dtype=np.float32) for row in scores]
    of_arrays = Rankings.of([[1], [], [0]], arrays, scores=floats, ignored=[[1], [], []])
    for one in (plain, of_arrays):
        assert one.label.tolist() == [3, 0, 2] and one.score.tolist() == [9, 6, 5]
        assert one.place.tolist() == [0, 1, 0] and one.document.tolist() == [0, 0, 2]
        assert not one.right.any() and one.n_gold.tolist() == [0, 0, 1] and one.longest == 2
    ranks = Rankings.of([[1]], [[3, 1, 0]])
    np.testing.assert_allclose(ranks.score, [1, 1 / 2, 1 / 3])
    with pytest.raises(InputError, match="not as many scores"):
        Rankings.of([[1]], [[3, 1]], scores=[[1]])


def test_parts_keep_places_and_say_what_counts():
    ranked = Rankings.of([[0, 1], [2]], [[2, 0, 1], [1, 2]], n_labels=3, ignored=[[], [0]])
    labels = ranked.within(np.array([False, True, True]))
    assert labels.n_labels == 2 and labels.place.tolist() == [0, 2, 0, 1]
    assert labels.gold_label.tolist() == [1, 2] and not len(labels.ignored_label)
    documents = ranked.of_documents(np.array([False, True]))
    assert documents.n == 2 and documents.counted.tolist() == [False, True]
    assert documents.hits.label.tolist() == [2] and documents.ignored_label.tolist() == [0]
    assert precision_at(documents, 2).value == 1 / 2


def test_places_begin_anew_with_every_document():
    assert places(np.array([0, 0, 3, 5, 5, 5])).tolist() == [0, 1, 0, 0, 1, 2]
    assert places(np.array([], dtype=np.int64)).tolist() == []
