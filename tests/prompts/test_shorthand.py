import random

import pytest

from workbench.labels.lay_words import LAY
from workbench.prompts.shorthand import ShorthandConfig, content_words, spelled_out, write_shorthand

WRITTEN_OUT = ShorthandConfig().scaled(0.0)
SET = ShorthandConfig(set_abbreviation=1.0, cut=0.0, drop_vowels=0.0, reorder=0.0)
CUT = ShorthandConfig(set_abbreviation=0.0, cut=1.0, drop_vowels=0.0, reorder=0.0)
VOWELS = ShorthandConfig(set_abbreviation=0.0, cut=0.0, drop_vowels=1.0, reorder=0.0)
REORDER = ShorthandConfig(set_abbreviation=0.0, cut=0.0, drop_vowels=0.0, reorder=1.0)


def forms(text: str, config: ShorthandConfig, confusable=()) -> set[str]:
    return {write_shorthand(text, random.Random(i), config, confusable) for i in range(200)}


def test_content_words_are_lower_case_without_fillers():
    text = "Type 2 diabetes mellitus with hyperglycemia, other part of the Crohn's w/o care"
    words = ["2", "diabetes", "mellitus", "with", "hyperglycemia", "other", "crohn's", "w/o"]
    assert content_words(text) == [*words, "care"]


def test_factor_scales_every_probability():
    scaled = ShorthandConfig(0.8, 0.4, 0.2, 0.6).scaled(0.5)
    assert scaled == ShorthandConfig(0.4, 0.2, 0.1, 0.3)


@pytest.mark.parametrize(
    ("text", "config", "expected"),
    [
        ("Fracture of the left femur, displaced", WRITTEN_OUT, {"fracture left femur displaced"}),
        ("Left fracture", SET, {"l fx", "l frac", "lt fx", "lt frac"}),
        ("hyperglycemia", CUT, {"hype", "hyper", "hyperg"}),
        ("osteonecrosis", VOWELS, {"ostncrss"}),  # but the first letter stays
        ("femur", CUT, {"femur"}),  # too short, and the next two with digits
        ("b12deficiency", CUT, {"b12deficiency"}),
        ("covid-19", CUT, {"covid-19"}),
        ("femur shaft, upper end", REORDER, {"femur shaft upper end", "upper end femur shaft"}),
    ],
)
def test_forms(text, config, expected):
    assert forms(text, config) == expected


@pytest.mark.parametrize(
    ("word", "config", "other", "expected"),
    [
        ("hyperglycemia", CUT, "hyperosmolarity", {"hyperg", "hyperglycemia"}),
        ("hyperglycemia", CUT, "hyperglycemic", {"hyperglycemia"}),
        ("malleolus", VOWELS, "malleolas", {"malleolus"}),
        ("osteonecrosis", VOWELS, "osteonecrosis", {"ostncrss"}),  # the word itself
    ],
)
def test_a_word_is_written_out_where_its_form_fits_another_labels_word(
    word, config, other, expected
):
    assert forms(word, config, [other]) == expected


def test_same_random_state_same_form():
    text = "Displaced fracture of the left radius, subsequent encounter with delayed healing"
    assert len({write_shorthand(text, random.Random(3)) for _ in range(5)}) == 1
    assert len(forms(text, ShorthandConfig())) > 50


@pytest.mark.parametrize("said", [*LAY.values(), "ſtone", "\u212aidney", "STROKE", "İ fx"])
def test_every_lay_word_is_spelled_out_in_any_case(said):
    for written in (said, said.upper(), said.lower()):
        assert spelled_out(written).startswith(f"{written} ")


def test_old_tb_is_tuberculosis():
    assert spelled_out("old TB, treated") == "old TB, treated tuberculosis"
