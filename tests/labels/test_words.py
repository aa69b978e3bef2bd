import unicodedata

import pytest

from workbench.labels.words import Searchable, comparable, find_words, words

NFD = "NFD"


@pytest.mark.parametrize(
    "written",
    [
        unicodedata.normalize(NFD, "Ménière disease"),
        "MÉNIÈRE DISEASE",
        "Ｍénière\u3000disease",
        "Mé\u00adni\u200bère\u00a0dis\u2060ease\ufeff",
    ],
)
def test_texts_that_look_alike_are_alike(written):
    assert words(written) == ["ménière", "disease"]
    text = f"has {written}, (old)"
    assert text[slice(*find_words(text, "Ménière  disease"))].strip("\ufeff") == written.strip(
        "\ufeff"
    )


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("高山河流", ["高山", "山河", "河流"]),
        ("2型糖尿病", ["2", "型糖", "糖尿", "尿病"]),
        ("T細胞 ｶﾞﾝ", ["t", "細胞", "ガン"]),
        ("癌", ["癌"]),
        ("มะเร็ง", ["มะ", "ะเ", "เร", "ร็", "็ง"]),
        ("तीव्र ज्वर", ["तीव्र", "ज्वर"]),
        (unicodedata.normalize(NFD, "당뇨병이"), ["당뇨", "뇨병", "병이"]),
    ],
)
def test_words_of_other_scripts(text, found):
    assert words(text) == [unicodedata.normalize("NFKC", word) for word in found]


def test_single_characters_count_beside_their_pairs_where_asked():
    assert words("肺癌 x", single=True) == ["肺癌", "肺", "癌", "x"]


def test_places_are_those_of_the_text_as_it_is():
    decomposed = unicodedata.normalize(NFD, "les forêts brûlées d'été")
    start, end = find_words(decomposed, "Forêts brûlées")
    assert decomposed[start:end] == unicodedata.normalize(NFD, "forêts brûlées")
    assert find_words("常与高山河流一起", "高山河流") == (2, 6)
    korean = unicodedata.normalize(NFD, "심한 당뇨병이다")
    start, end = find_words(korean, "당뇨병")
    assert unicodedata.normalize("NFC", korean[start:end]) == "당뇨병"
    assert find_words("a lakeside", "lake") is None
    assert find_words("a lake", " ") is None


def test_all_places_of_a_text_are_found_in_order():
    text = "Heart failure; no HEART\u00a0failure, heart failures"
    found = list(Searchable(text).all("heart failure"))
    assert [text[slice(*place)] for place in found] == ["Heart failure", "HEART\u00a0failure"]
    assert list(Searchable(text).all(" ")) == []


def test_ascii_is_only_made_small():
    assert comparable("d/o, Type-2") == "d/o, type-2"
