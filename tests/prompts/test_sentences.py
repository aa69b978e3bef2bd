import pytest

from workbench.prompts.sentences import cut, without

NOTE = """Chief Complaint:
short of breath

History of Present Illness: He is a 67 year old man with known diabetes and was seen by
Dr. Who for it. No fever today.
Past Medical History:
1. HTN
- CKD (stage 3); stable
"""


def test_lines_that_were_broken_are_one_and_marks_and_headings_stand_before_sentences():
    found = cut(NOTE)
    assert list(zip(found.gaps, found.sentences, strict=True)) == [
        (" ", "Chief Complaint:"),
        (" ", "short of breath"),
        (
            " History of Present Illness: ",
            "He is a 67 year old man with known diabetes and was seen by Dr. Who for it.",
        ),
        (" ", "No fever today."),
        (" ", "Past Medical History:"),
        (" 1. ", "HTN"),
        (" - ", "CKD (stage 3); stable"),
    ]
    for sentence, (start, end) in zip(found.sentences, found.spans, strict=True):
        assert " ".join(NOTE[start:end].split()) == sentence


@pytest.mark.parametrize(
    ("sentence", "left"),
    [
        ("HTN", "History:\n- CKD"),
        ("short of breath", "Complaint:\n\nHistory"),
        ("No fever today.", "for it.\nPast"),
    ],
)
def test_a_sentence_goes_with_its_mark_and_its_line(sentence, left):
    found = cut(NOTE)
    start, end = without(NOTE, found.spans[found.sentences.index(sentence)])
    assert left in NOTE[:start] + NOTE[end:]


def test_given_spans_are_sentences_of_their_own():
    text = "Seen with (ACUTE PAIN), no fever. Then home."
    start = text.index("ACUTE")
    found = cut(text, [(start, start + 10)])
    assert found.sentences == ("Seen with (", "ACUTE PAIN", "), no fever.", "Then home.")
    assert found.gaps == (" ", "", "", " ") and found.apart == (1,)


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
    assert cut(text).sentences == sentences
