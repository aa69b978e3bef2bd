import pytest

from workbench.labels.frame import FrameCorpus
from workbench.labels.space import Label, LabelSpace
from workbench.prompts.telling import Teller

LABELS = [
    ("E11.65", "Type 2 diabetes mellitus with hyperglycemia", ()),
    ("N18.30", "Chronic kidney disease, stage 3 unspecified", ("renal insufficiency, stage 3",)),
    ("I10", "Essential (primary) hypertension", ("high blood pressure",)),
    ("B75", "Trichinellosis", ()),
]


@pytest.fixture(scope="module")
def teller() -> Teller:
    space = LabelSpace("s", [Label(name, text, ("x",), more) for name, text, more in LABELS])
    return Teller(FrameCorpus("s", space, (), (None,) * len(LABELS)), 0.2)


@pytest.mark.parametrize(
    ("sentence", "label"),
    [
        ("He has essential hypertension.", 2),
        ("Told of HIGH blood  pressure before.", 2),
        ("CKD, followed by nephrology", 1),
        ("T2DM, on insulin", 0),
        ("poorly controlled diab. type 2 with hyperglyc", 0),
        ("trchnllss in the past", 3),
    ],
)
def test_sentences_tell_by_wordings_abbreviations_and_characters(teller, sentence, label):
    sentences = ["Nothing to add.", sentence, "Sent home."]
    found = teller.told_of_all(sentences, [0, 1, 2, 3])
    assert [told.sentence for told in found[label]] == [1]
    assert not any(found[other] for other in range(4) if other != label)


def test_of_two_labels_a_sentence_tells_the_one_that_has_more_of_it(teller):
    sentence = "Chronic kidney disease of type 2, stage 3"
    assert not teller.told([sentence], 0, [1]) and teller.told([sentence], 1, [0])
    both = "Chronic kidney disease, stage 3, and hyperglycemia"
    assert teller.told([both], 0, [1]) and teller.told([both], 1, [0])


def test_words_are_found_across_signs_and_whole_only(teller):
    assert teller.says("essential\nhypertension", 2) and teller.says("(B75) trichinellosis.", 3)
    assert not teller.says("essential hypertensions", 2)
