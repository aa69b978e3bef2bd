import pandas as pd
import pytest

from workbench.errors import InputError
from workbench.labels.corpus import LabelledCorpus
from workbench.labels.frame import find_evidence, frame_corpus
from workbench.labels.space import Label, LabelSpace

LABELS = {"250.00": "diabetes", "786.2": "cough", "780.60": "fever", "R05": "chronic cough"}


def corpus(rows, labels=LABELS, **more):
    return frame_corpus(pd.DataFrame(rows), labels, **more)


def golds(made):
    return [[made.label_ids[label] for label in document.labels] for document in made.rows]


@pytest.mark.parametrize(
    "given",
    [
        ["786.2", "R05"],
        ("786.2", "R05"),
        "786.2; R05",
        "786.2|R05",
        "786.2, R05",
        "['786.2', 'R05']",
        '["786.2", "R05"]',
        "R05;786.2;R05",
    ],
)
def test_labels_of_a_document_are_a_list_or_a_string_of_them(given):
    (found,) = golds(corpus([{"text": "a note", "labels": given}]))
    assert sorted(found) == ["786.2", "R05"]


def test_numbers_of_a_column_with_gaps_are_the_labels_they_were():
    labels = pd.DataFrame({"id": [250.0, 4.0], "text": ["diabetes", "cough"]})
    made = corpus({"text": ["one", "two"], "labels": [4.0, None], "id": [7.0, 8.0]}, labels)
    assert golds(made) == [["4"], []] and [one.id for one in made.rows] == ["7", "8"]


def test_rows_of_one_document_are_its_mentions():
    text = "Fever since Monday, chronic cough."
    rows = [
        {"id": "n1", "text": text, "labels": "R05", "evidence": "chronic cough"},
        {"id": "n1", "text": text, "labels": "780.60", "evidence": "fever"},
        {"id": "n2", "text": "Nothing.", "labels": "786.2", "evidence": None},
    ]
    made = corpus(rows)
    first, second = made.rows
    assert [first.id, second.id] == ["n1", "n2"] and second.evidence is None
    found = [(made.label_ids[label], text[a:b]) for label, a, b in first.evidence]
    assert found == [("780.60", "Fever"), ("R05", "chronic cough")]
    assert isinstance(made, LabelledCorpus) and made.text_is_private
    without = corpus([{k: v for k, v in row.items() if k != "id"} for row in rows])
    assert [one.evidence for one in without.rows] == [one.evidence for one in made.rows]
    assert [one.id for one in without.rows] == ["0", "2"]


@pytest.mark.parametrize(
    ("evidence", "found"),
    [
        ("flu", "flu"),
        ("FLU", "flu"),
        ("nza", "nza"),
        ("influenza, then\u00a0flu", "influenza,  then flu"),
        ((0, 13), "x influenza,"),
        ("gout", None),
    ],
)
def test_evidence_is_found_as_whole_words_first(evidence, found):
    text = "x influenza,  then flu"
    span = find_evidence(text, evidence)
    assert (span and text[slice(*span)]) == found
    assert evidence not in ("flu", "FLU") or span == (19, 22)


def test_a_span_may_stand_in_one_column_or_two():
    rows = [
        {"text": "chronic cough", "labels": "R05", "evidence": "[0, 7]"},
        {"text": "a cough", "labels": "786.2", "start": "2", "end": "7.0"},
    ]
    assert [one.evidence for one in corpus(rows).rows] == [((3, 0, 7),), ((1, 2, 7),)]


def test_what_is_not_used_is_said_without_text():
    rows = [
        {"id": 1, "text": "chronic cough", "labels": "R05", "evidence": "chronic cough"},
        {"id": 1, "text": "chronic cough", "labels": "786.2", "evidence": "cough"},
        {"id": 2, "text": "secret words", "labels": "R05;X1", "evidence": ""},
        {"id": 3, "text": "secret words", "labels": "R05", "evidence": "hidden"},
    ]
    made = corpus(rows)
    said = "\n".join(made.left_out)
    assert "1 labels of documents are not in the label table ('X1')" in said
    assert "1 pieces of evidence are not in their document's text" in said
    assert "1 pieces of evidence overlap another" in said
    assert "1 documents have no evidence" in said
    assert made.rows[2].evidence == ()
    assert "secret" not in said + repr(made)


def test_clusters_come_from_the_column_a_mapping_or_the_texts():
    rows = [{"text": "x", "labels": "a"}]
    table = pd.DataFrame(
        {"id": list("abcd"), "text": ["w", "x", "y", "z"], "cluster": ["p", "p", "q", None]}
    )
    made = corpus(rows, table)
    assert made.clusters == ("p", "p", "q", None) and "1 labels have no cluster" in made.left_out[0]
    mapped = corpus(rows, table, clusters=dict.fromkeys("abcd", "r"))
    assert mapped.clusters == ("r",) * 4 and not mapped.left_out
    words = {f"{group}{n}": f"{group} no {n}" for group in ("fracture", "burn") for n in range(6)}
    learned = frame_corpus({"text": ["x"], "labels": ["burn0"]}, words)
    assert len(set(learned.clusters)) >= 3
    of = dict(zip(learned.label_ids, learned.clusters, strict=True))
    assert not {of[f"burn{n}"] for n in range(6)} & {of[f"fracture{n}"] for n in range(6)}


def test_a_label_space_brings_clusters_and_synonyms():
    labels = [Label(name, f"text {name}", ("node",), ("other",)) for name in "abcd"]
    made = corpus([{"text": "x", "labels": "a"}], LabelSpace("s", labels))
    assert made.cluster(0) == "node" and made.space["a"].synonyms == ("other",)
    table = {"id": ["a"], "text": ["b"], "synonyms": ["c; d|e"]}
    assert corpus([{"text": "x", "labels": "a"}], table).space["a"].synonyms == ("c", "d", "e")


def test_clusters_may_have_numbers_as_ids_and_labels_that_are_unknown():
    labels = {1: "diabetes", 2: "cough"}
    made = corpus([{"text": "x", "labels": 1}], labels, clusters={1: "a", 2.0: 7, 9: "b"})
    assert made.clusters == ("a", "7")
    assert made.left_out == ("1 labels of clusters are not in the label table ('9')",)


def test_half_a_character_is_refused():
    half = {"text": "cough \ud83d", "labels": "a"}
    with pytest.raises(InputError, match=r"documents: row 0 .from 0. has no text in whole"):
        frame_corpus([half], {"a": "cough"})
    with pytest.raises(InputError, match=r"labels: row 0 .from 0. has no text in whole"):
        frame_corpus([half], {"a": "cough \ud83d"})


def test_a_column_that_is_there_twice_is_refused():
    table = pd.DataFrame([["x", "a", "y"]], columns=["text", "labels", "text"])
    with pytest.raises(InputError, match="documents table has column 'text' twice"):
        corpus(table)


def test_columns_may_have_other_names():
    made = corpus(
        [{"note": "x", "text": "not this", "codes": "a"}],
        pd.DataFrame({"code": ["a", "b"], "title": ["A", "B"]}),
        columns={"text": "note", "labels": "codes"},
        label_columns={"id": "code", "text": "title"},
    )
    assert made.rows[0].text == "x" and golds(made) == [["a"]] and made.label_texts == ["A", "B"]


NOTE = {"text": "my secret", "labels": "786.2"}


@pytest.mark.parametrize(
    ("rows", "labels", "more", "message"),
    [
        ([], LABELS, {}, "documents table lacks column 'text', 'labels'"),
        ([{"text": "a"}], LABELS, {}, "documents table lacks column 'labels'"),
        ([{**NOTE, "text": " "}], LABELS, {}, r"documents: row 0 \(from 0\) has no text"),
        ([{**NOTE, "labels": "X"}], LABELS, {}, "none of their labels .'X'. is among the 4"),
        ([{**NOTE, "id": ""}], LABELS, {}, "row 0 .from 0. has no id"),
        (
            [{**NOTE, "id": 1}, {**NOTE, "id": 1, "text": "other"}],
            LABELS,
            {},
            "rows 0 and 1 .from 0. have one id and two texts",
        ),
        (
            [{**NOTE, "labels": "786.2;R05", "evidence": "secret"}],
            LABELS,
            {},
            "row 0 .from 0. has evidence for 2 labels; give each label a row",
        ),
        ([{**NOTE, "evidence": [0, 99]}], LABELS, {}, r"evidence \[0, 99\] is outside the text"),
        ([{**NOTE, "start": "x", "end": 3}], LABELS, {}, "neither words of the text nor two"),
        ([NOTE], {}, {}, "labels: the table has no rows|lacks column"),
        ([NOTE], {"a": " "}, {}, "labels: row 0 .from 0. has no text"),
        ([NOTE], {"a": "x", "b": None}, {}, "labels: row 1 .from 0. has no text"),
        ([{**NOTE, "labels": {"786.2": 1}}], LABELS, {}, "row 0 .from 0.: labels are no list"),
        ([NOTE], LABELS, {"clusters": {"X": "c"}}, "clusters: none of their labels .'X'. is among"),
        ([NOTE], {"id": ["a", "a"], "text": ["x", "y"]}, {}, "'a' occurs for the second time"),
        ([NOTE], [{"id": "a"}], {}, "labels table lacks column 'text'"),
        ([NOTE], LABELS, {"columns": {"note": "text"}}, "'note' is no column, one of text"),
        ([NOTE], LABELS, {"columns": {"text": "note"}}, "documents table lacks column 'note'"),
    ],
)
def test_tables_that_cannot_be_used_are_refused_in_one_line(rows, labels, more, message):
    with pytest.raises(InputError, match=message) as refused:
        corpus(rows, labels, **more)
    assert "\n" not in str(refused.value) and "secret" not in str(refused.value)
