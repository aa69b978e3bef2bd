import unicodedata

import pytest

from workbench.prompts.support import SupportFinder, made_up


def test_the_shortest_of_the_best_sentences_supports_a_label():
    finder = SupportFinder([("Lake Galca",), ("Heart failure", "cardiac insufficiency")])
    text = "By Dr. A. Who at Lake Galca and far beyond it. See lake\n galca.  On Lake Galca."
    sentences = finder.sentences(text + "\n___\nKnown cardiac insuff.")
    assert sentences == (
        "By Dr. A. Who at Lake Galca and far beyond it.",
        "See lake",
        "galca.",
        "On Lake Galca.",
        "Known cardiac insuff.",
    )
    supports = finder.supports(sentences, [0, 1], 0.3)
    assert supports[0].sentence == 3 and supports[0].overlap == pytest.approx(1, abs=1e-4)
    assert supports[1].sentence == 4 and 0.3 < supports[1].overlap < 1
    assert finder.supports(sentences[1:2], [1], 0.3) == {} == finder.supports([], [1], 0.3)


def test_made_up_sentences_quote_the_option():
    assert made_up("Often near Lake  (old).", "lake (old)", "Sea \\1") == "Often near Sea \\1."
    assert made_up("Near Lakes.", "Lake", "Big\nSea") == "Big Sea."


@pytest.mark.parametrize(
    ("text", "sentences"),
    [
        ("Il vit. Écoutez «Été». et puis", ("Il vit.", "Écoutez «Été». et puis")),
        (
            "他说：「很好。」今天来了！明天3.5公里。",
            ("他说：「很好。」", "今天来了！", "明天3.5公里。"),
        ),
        ("熱がある。咳もある｡痛い", ("熱がある。", "咳もある｡", "痛い")),
        ("ไข้สูง ไอมาก", ("ไข้สูง", "ไอมาก")),
        ("तीव्र ज्वर। खांसी।", ("तीव्र ज्वर।", "खांसी।")),
    ],
)
def test_sentences_end_as_their_script_has_it(text, sentences):
    assert SupportFinder([("x",)]).sentences(text) == sentences


def test_made_up_sentences_quote_in_any_form():
    decomposed = unicodedata.normalize("NFD", "Vu la forêt brûlée hier.")
    assert made_up(decomposed, "Forêt brûlée", "Mer") == "Vu la Mer hier."
    assert made_up("常与高山河流一起。", "高山河流", "沙漠") == "常与沙漠一起。"
