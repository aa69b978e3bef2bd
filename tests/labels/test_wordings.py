import pytest

from workbench.labels.space import Label, LabelSpace
from workbench.labels.wordings import abbreviations, names, wordings


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("Essential (primary) hypertension", ["Essential hypertension"]),
        ("Asthma, unspecified", ["Asthma"]),
        ("Burn, unspecified", []),
        ("Unspecified injury of head, initial encounter", ["injury of head"]),
        ("Heart failure, not elsewhere classified", ["Heart failure"]),
        ("gcc: the compiler", ["gcc"]),
    ],
)
def test_shorter_names(text, found):
    assert [one for one in names([text], "gcc") if one != text] == found


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("Chronic obstructive pulmonary disease with (acute) exacerbation", {"COPD"}),
        ("Type 2 diabetes mellitus with hyperglycemia", {"T2DM"}),
        ("Chronic kidney disease, stage 3", {"CKD"}),
        ("Heart failure", set()),
    ],
)
def test_abbreviations_of_what_stands_first(text, found):
    assert abbreviations([text]) == found


def test_labels_of_a_taxonomy_are_worded_in_lay_words_too():
    class Corpus:
        name, splits, text_is_private, left_out = "some", ("all",), False, ()
        label_ids = ("L30.9", "M10")
        label_texts = ("Dermatitis, unspecified", "Gout")
        space = LabelSpace(
            "some",
            [
                Label("L30.9", "Dermatitis, unspecified", ("L30",), ("Eczema NOS",)),
                Label("M10", "Gout", ("M10",)),
            ],
        )

        def documents(self, split):
            return iter(())

        def cluster(self, label):
            return None

    rows = wordings(Corpus())
    assert rows == [("Dermatitis, unspecified", "Eczema NOS", "skin rash, unspecified"), ("Gout",)]
    assert "skin rash" in names(rows[0])
