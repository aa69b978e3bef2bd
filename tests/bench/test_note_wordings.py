import random

import pytest

from workbench.bench.note_wordings import Wordings
from workbench.labels.space import Label, LabelSpace
from workbench.labels.words import words

TEXTS = {
    "S52.301D": "Fracture of shaft of right radius, subsequent encounter for closed fracture",
    "A00.9": "Cholera, unspecified",
    "H93.11": "Tinnitus, right ear",
    "E84.0": "Cystic fibrosis with pulmonary manifestations",
    "C81.00": "Nodular lymphocyte predominant Hodgkin lymphoma, unspecified site",
    "G73.1": "Lambert-Eaton syndrome in neoplastic disease",
    "I42.8": "Other cardiomyopathies",
    "I51.89": "Other disorders of cardiovascular circulation",
}


@pytest.fixture(scope="module")
def wordings():
    labels = [
        Label(code, text, (code[:3],), ("Term used by nobody",)) for code, text in TEXTS.items()
    ]
    return Wordings(LabelSpace("some", labels))


def label(code):
    return Label(code, TEXTS[code], (code[:3],), ("This code is not for use",))


def told(wordings, code, n=40):
    return [one for seed in range(n) for one in wordings.of(label(code), random.Random(seed))]


@pytest.mark.parametrize(
    ("code", "way", "text"),
    [
        ("A00.9", "partial", "cholera"),
        ("H93.11", "turned", "right ear tinnitus"),
        ("H93.11", "lay", "ringing in the ears, right ear"),
        ("E84.0", "lay", "cystic fibrosis with lung manifestations"),
        ("E84.0", "clinical", "cystic fibrosis w/ pulmonary manifestations"),
        ("C81.00", "partial", "nodular lymphocyte predominant Hodgkin lymphoma"),
        ("S52.301D", "clinical", "follow-up of fx of shaft of R radius (closed fx)"),
        ("G73.1", "clinical", "Lambert-Eaton synd. in neoplastic dz"),
    ],
)
def test_labels_are_told_in_other_words(wordings, code, way, text):
    assert text in {one.text for one in told(wordings, code) if one.way == way}


def test_visits_are_told_whole_only_where_they_are_named(wordings):
    for one in told(wordings, "S52.301D"):
        said = words(one.text)
        visit = {"subsequent", "subs", "aftercare", "visit", "follow", "f"} & {*said}
        assert bool(visit) or not one.whole or one.way == "shorthand"


def test_the_official_words_are_told_as_such_and_not_always(wordings):
    ways = [wordings.of(label("H93.11"), random.Random(seed)) for seed in range(60)]
    official = [[one for one in found if one.way == "official"] for found in ways]
    assert 0 < sum(map(len, official)) < 30
    assert all(words(one.text) == words(TEXTS["H93.11"]) for found in official for one in found)
    rest = [one for found in ways for one in found if one.way != "official"]
    assert not any(words(one.text) == words(TEXTS["H93.11"]) for one in rest)


def test_notes_for_coders_are_no_wording(wordings):
    assert not any("code" in one.text for one in told(wordings, "A00.9"))


def test_shorthand_keeps_a_word_that_says_what_the_label_is_about(wordings):
    for code, about in {
        "I42.8": {"cardiomyopathies"},
        "I51.89": {"cardiovascular", "circulation"},
    }.items():
        short = [one for one in told(wordings, code) if one.way == "shorthand"]
        assert short and all(about & {*words(one.text)} for one in short)
