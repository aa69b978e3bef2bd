from workbench.labels.retrieving.passages import MOST_WORDS, clauses, passage_spans, passages

NOTE = """Chief complaint: cough

History of present illness: a man with fever and cough for three days, who was seen
in clinic. He denies chest pain; Lungs are clear.
DIAGNOSES:
1. Pneumonia of the left lower lobe, with an effusion that was seen on the second film
2. Hypertension
- gout
"""


def test_sentences_lists_and_headings_are_passages_and_broken_lines_are_joined():
    assert passages(NOTE) == [
        "Chief complaint: cough",
        "History of present illness: a man with fever and cough for three days, who was seen "
        "in clinic.",
        "Lungs are clear.",
        "DIAGNOSES:",
        "Pneumonia of the left lower lobe, with an effusion that was seen on the second film",
        "Hypertension",
        "gout",
    ]


def test_each_passage_comes_once_and_long_ones_are_cut():
    assert passages("Same.\nSame.\n---\n\n?") == ["Same."]
    assert passages("肺炎。高血圧。") == ["肺炎。", "高血圧。"]
    long = passages("word " * (2 * MOST_WORDS + 1))
    assert [len(part.split()) for part in long] == [MOST_WORDS, 1] or len(long) == 2
    assert passages("") == []


def test_what_is_denied_is_no_passage_unless_something_is_told_with_it():
    assert passages("No evidence of gout. There is gout. She denied gout but had a rash.") == [
        "There is gout.",
        "She denied gout but had a rash.",
    ]
    assert passages("Asthma without status. No infarct.") == [
        "Asthma without status.",
        "No infarct.",
    ]


def test_clauses_stand_behind_their_passages():
    assert clauses("Plan: rest, tea. Sleep (a lot), now -- rest.") == [
        "Plan: rest, tea.",
        "Plan",
        "rest",
        "tea.",
        "Sleep (a lot), now -- rest.",
        "Sleep",
        "a lot",
        "now",
        "rest.",
    ]
    assert clauses("one,two 3:4") == ["one,two 3:4"]


def test_spans_hold_what_passages_say():
    text = "Seen here.  Sent\n home\n\n- no fever\n- fever"
    assert [text[slice(*span)] for span in passage_spans(text)] == [
        "Seen here.",
        "Sent",
        "home",
        "no fever",
        "fever",
    ]
