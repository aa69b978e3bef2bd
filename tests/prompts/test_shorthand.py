import random

import pytest

from workbench.prompts.shorthand import ShorthandConfig, content_words, write_shorthand

WRITTEN_OUT = ShorthandConfig().scaled(0.0)
SET_ONLY = ShorthandConfig(set_abbreviation=1.0, cut=0.0, drop_vowels=0.0, reorder=0.0)
CUT_ONLY = ShorthandConfig(set_abbreviation=0.0, cut=1.0, drop_vowels=0.0, reorder=0.0)
VOWELS_ONLY = ShorthandConfig(set_abbreviation=0.0, cut=0.0, drop_vowels=1.0, reorder=0.0)


def forms(text: str, config: ShorthandConfig, confusable=(), n: int = 200) -> set[str]:
    return {write_shorthand(text, random.Random(i), config, confusable) for i in range(n)}


def test_content_words_are_lower_case_without_fillers():
    text = "Type 2 diabetes mellitus with hyperglycemia, other part of the Crohn's w/o care"
    words = ["2", "diabetes", "mellitus", "with", "hyperglycemia", "other", "crohn's", "w/o"]
    assert content_words(text) == [*words, "care"]


def test_factor_zero_writes_every_content_word_out():
    assert forms("Fracture of the left femur, displaced", WRITTEN_OUT) == {
        "fracture left femur displaced"
    }


def test_factor_scales_every_probability():
    scaled = ShorthandConfig(0.8, 0.4, 0.2, 0.6).scaled(0.5)
    assert scaled == ShorthandConfig(0.4, 0.2, 0.1, 0.3)


def test_set_abbreviations():
    assert forms("Left fracture", SET_ONLY) == {"l fx", "l frac", "lt fx", "lt frac"}


def test_long_words_are_cut_to_between_four_and_six_letters():
    assert forms("hyperglycemia", CUT_ONLY) == {"hype", "hyper", "hyperg"}


def test_vowels_are_dropped_but_not_the_first_letter():
    assert forms("osteonecrosis", VOWELS_ONLY) == {"ostncrss"}


@pytest.mark.parametrize("word", ["femur", "b12deficiency", "covid-19"])
def test_short_words_and_words_with_digits_stay_whole(word):
    assert forms(word, CUT_ONLY) == {word}


def test_clauses_change_places_and_stay_whole():
    config = ShorthandConfig(0.0, 0.0, 0.0, reorder=1.0)
    assert forms("femur shaft, upper end", config) == {
        "femur shaft upper end",
        "upper end femur shaft",
    }


def test_a_word_is_written_out_where_its_cut_fits_a_word_of_another_label():
    kept = {"hyperg", "hyperglycemia"}  # "hype" and "hyper" would fit
    assert forms("hyperglycemia", CUT_ONLY, ["hyperosmolarity"]) == kept
    assert forms("hyperglycemia", CUT_ONLY, ["hyperglycemic"]) == {"hyperglycemia"}


def test_a_word_without_vowels_that_fits_another_label_is_not_used():
    assert forms("malleolus", VOWELS_ONLY, ["malleolas"]) == {"malleolus"}


def test_a_words_own_occurrence_in_another_label_does_not_block_it():
    assert forms("osteonecrosis", VOWELS_ONLY, ["osteonecrosis"]) == {"ostncrss"}


def test_same_random_state_same_form():
    text = "Displaced fracture of the left radius, subsequent encounter with delayed healing"
    assert len({write_shorthand(text, random.Random(3)) for _ in range(5)}) == 1
    assert len(forms(text, ShorthandConfig())) > 50
