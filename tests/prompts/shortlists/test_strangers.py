import random

import pytest

from workbench.labels.corpus import Document
from workbench.labels.frame import FrameCorpus
from workbench.labels.space import Label, LabelSpace
from workbench.prompts.sentences import cut
from workbench.prompts.shortlists.plan import ToldDocument
from workbench.prompts.shortlists.strangers import Strangers
from workbench.prompts.telling import Teller

TEXTS = ("unstable angina", "kidney stone", "acute otitis", "broken femur")
NOTES = (
    ("He had unstable angina. It was unstable angina again.", (0,)),
    ("She has acute otitis, on the left. Ear pain of acute otitis. Home.", (2,)),
    ("Known kidney stone. Unstable angina, kidney stone.", (1,)),
    ("Both kidney stone and unstable angina.", (0, 1)),
)


@pytest.fixture(scope="module")
def strangers(tokenizer) -> Strangers:
    space = LabelSpace("s", [Label(str(at), text, ("x",)) for at, text in enumerate(TEXTS)])
    teller = Teller(FrameCorpus("s", space, (), (None,) * 4), 0.2)
    read = [Document(f"d{at}", "", text, labels) for at, (text, labels) in enumerate(NOTES)]

    def told(number: int) -> ToldDocument:
        parts = cut(read[number].text)
        labels = read[number].labels
        found = teller.told_of_all(parts.sentences, labels)
        return ToldDocument(labels, (), read[number].text, parts, found)

    return Strangers(read, told, teller, tokenizer, 0)


def test_sentences_tell_the_option_and_not_gold(strangers):
    assert set(strangers.sentences(0, 0, 2)) == {
        "She has acute otitis, on the left.",
        "Ear pain of acute otitis.",
    }
    assert strangers.sentences(0, 0, 1) == ["Known kidney stone."]
    assert strangers.sentences(0, 0, 3) == []


def test_the_option_that_is_told_most_often_replaces_the_sentences(strangers):
    draw = random.Random(0)
    option, edit = strangers.edit(0, 0, 1, [1, 2], draw)
    assert option == 2 and set(edit) == {0, 1} and len({*edit.values()}) == 2
    option, edit = strangers.edit(0, 0, 1, [1, 3], draw)
    assert (option, edit) == (1, {1: "Known kidney stone.", 0: None})
    assert strangers.edit(0, 0, 1, [3], draw) is None
