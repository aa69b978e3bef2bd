import pytest

from workbench.prompts.support import SupportFinder


def test_overlap_is_the_share_of_the_best_wording_whatever_the_spelling():
    finder = SupportFinder([("Lake Galca",), ("Heart failure", "cardiac insufficiency")])
    sentences = ["On Lake Galca.", "Known cardiac insuff.", "Nothing.", "FX of the arm"]
    overlaps = finder.overlaps(sentences, [0, 1])
    assert overlaps.shape == (4, 2)
    assert overlaps[0, 0] == pytest.approx(1, abs=1e-4) and 0.3 < overlaps[1, 1] < 1
    assert overlaps[2].max() == 0 and overlaps[1, 0] == 0
    assert finder.overlap_beside(sentences[1], 1, [0]) == overlaps[1, 1]
    assert finder.overlap_beside(sentences[1], 1, [0, 1]) == 0
    assert finder.overlaps([], [0]).shape == (0, 1)


def test_set_abbreviations_are_spelled_out():
    finder = SupportFinder([("Fracture of arm",), ("Disease of arm",)])
    own, other = finder.overlaps(["fx arm"], [0, 1])[0]
    assert own > 0.8 > other


def test_lay_words_are_taken_for_those_of_labels():
    finder = SupportFinder([("Dermatitis of scalp",), ("Calculus of kidney",)])
    assert finder.overlaps(["a skin rash", "kidney stones"], [0, 1]).diagonal().min() > 0.4
