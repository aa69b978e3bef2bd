import pytest

from workbench.labels.wordings import abbreviations, names


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
