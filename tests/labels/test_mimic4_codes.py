"""Codes of MIMIC-IV: which are the same, which are labels, and which are left out."""

from pathlib import Path

import pytest
from fixtures.mimic4 import SECRET, change, labels_of, rewrite

from workbench.errors import InputError
from workbench.labels.corpus import LabelledCorpus
from workbench.labels.icd_codes import dotted
from workbench.labels.mimic4 import load_mimic4


@pytest.mark.parametrize(
    ("code", "version", "kind", "written"),
    [
        ("E1165", 10, "diagnosis", "E11.65"),
        ("I10", 10, "diagnosis", "I10"),
        ("S52501A", 10, "diagnosis", "S52.501A"),
        ("0030", 9, "diagnosis", "003.0"),
        ("V5867", 9, "diagnosis", "V58.67"),
        ("E8801", 9, "diagnosis", "E880.1"),
        ("E8801", 10, "diagnosis", "E88.01"),
        ("0030", 9, "procedure", "00.30"),
        ("B2111ZZ", 10, "procedure", "B2111ZZ"),
    ],
)
def test_dots(code, version, kind, written):
    assert dotted(code, version, kind) == written


def test_codes_join_by_version_in_order_diagnoses_first(mimic4):
    corpus = load_mimic4(mimic4)
    assert isinstance(corpus, LabelledCorpus)
    described = ["icd10cm:E11.65", "icd10cm:E11.69", "icd10cm:E88.01", "icd10cm:B21.9"]
    undescribed = ["icd10cm:Q99.99", "icd10cm:Z00.00"]
    assert corpus.label_ids == [*described, "icd10pcs:B2111ZZ", *undescribed]
    assert corpus.label_texts[0] == "Type 2 diabetes, with hyperglycemia"
    assert corpus.kinds == ["diagnosis"] * 4 + ["procedure"] + ["diagnosis"] * 2
    assert labels_of(corpus) == {
        "a": ["E11.65", "E88.01", "B2111ZZ"],
        "b": ["Q99.99", "B21.9"],
        "d": ["Z00.00"],
    }


def test_icd9_codes_are_others_though_written_with_the_same_letters(mimic4):
    corpus = load_mimic4(mimic4, version=9)
    texts = dict(zip(corpus.label_ids, corpus.label_texts, strict=True))
    assert texts["icd9cm:E880.1"] == "Fall from curb"
    assert (texts["icd9cm:003.0"], texts["icd9pcs:00.30"]) == (
        "Salmonella gastroenteritis",
        "Implantation of chemotherapeutic agent",
    )
    assert labels_of(corpus) == {"c": ["E880.1", "003.0", "00.30"]}


def test_one_kind_of_codes_alone(mimic4):
    corpus = load_mimic4(mimic4, kinds=("procedure",))
    assert labels_of(corpus) == {"a": ["B2111ZZ"]}
    assert corpus.name == "mimic4-icd10-procedure"


def test_codes_without_a_description_are_labels_with_the_code_as_text(mimic4):
    corpus = load_mimic4(mimic4)
    assert corpus.undescribed == {"Q99.99": 1, "Z00.00": 1}
    assert corpus.label_texts[-2:] == ["Q99.99", "Z00.00"]
    assert corpus.cluster(len(corpus.label_ids) - 1) == "Z00"
    said = "2 of 7 rows of codes are of 2 codes without a description (Q99.99, Z00.00)"
    assert corpus.left_out == (f"warning: {said}; their text is the code",)
    with (mimic4 / "hosp/diagnoses_icd.csv").open("a") as out:
        out.write("1,20,1,E1165,10\n" * 100)
    said = said.replace("of 7", "of 107")
    assert load_mimic4(mimic4).left_out == (f"{said}; their text is the code",)
    assert load_mimic4(mimic4, version=9).undescribed == {}


@pytest.mark.parametrize(
    "write",
    [str.lower, lambda code: f"  {code} ", lambda code: dotted(code, 10, "diagnosis")],
    ids=["small letters", "spaces", "dots"],
)
@pytest.mark.parametrize("name", ["d_icd_diagnoses", "diagnoses_icd", "d_icd_procedures"])
def test_codes_of_other_scripts_are_the_same_codes(mimic4, name, write):
    right = {version: labels_of(load_mimic4(mimic4, version=version)) for version in (9, 10)}
    rewrite(mimic4, f"hosp/{name}.csv", lambda t: t.update(t.icd_code.map(write)))
    for version, labels in right.items():
        corpus = load_mimic4(mimic4, version=version)
        assert labels_of(corpus) == labels
        assert set(corpus.undescribed) == ({"Q99.99", "Z00.00"} if version == 10 else set())
        assert len(corpus.label_ids) == len(set(corpus.label_ids))


PROCEDURES = "icd_code,icd_version,long_title\n0744,9,Lymph\n744,9,Section\n0331,9,Spinal tap\n"
HEADER = "subject_id,hadm_id,seq_num,icd_code,icd_version\n"


def procedures(folder: Path, *codes: str):
    """The codes of one admission, out of three that are described."""
    (folder / "hosp/d_icd_procedures.csv").write_text(PROCEDURES)
    rows = [f"2,22,{n},{code},9\n" for n, code in enumerate(codes)]
    (folder / "hosp/procedures_icd.csv").write_text(HEADER + "".join(rows))
    corpus = load_mimic4(folder, version=9, kinds=("procedure",))
    return labels_of(corpus).get("c", []), corpus


def test_a_code_that_lost_its_zero_is_never_another_one(mimic4):
    labels, corpus = procedures(mimic4, "0744", "744", "0331")
    assert labels == ["07.44", "74.4", "03.31"] and not corpus.undescribed + corpus.ambiguous
    labels, corpus = procedures(mimic4, "744", "331", "744")
    assert labels == []
    assert corpus.ambiguous == {"74.4": 2, "33.1": 1} and not corpus.undescribed
    assert corpus.left_out[0] == (
        "warning: 3 of 3 rows of codes are left out: 3 that lost a zero, or may have (74.4, 33.1)"
    )
    # None has kept its zero, so that 744 may have lost one; a single odd row says nothing.
    assert procedures(mimic4, "744", "44")[0] == []
    assert procedures(mimic4, *["0331"] * 200, "744", "331")[0] == ["03.31", "74.4"]


@pytest.mark.parametrize("code", ["3310.0", "4.", "4.0"])
def test_codes_that_were_numbers_with_a_fraction_are_refused(mimic4, code):
    assert procedures(mimic4, "07.44", "74.4", "74.0")[0] == ["07.44", "74.4", "74.0"]
    with pytest.raises(InputError, match=r"csv: line 3: a code of ICD-9 is written as a number"):
        procedures(mimic4, "0331", code)


def test_what_is_no_code_is_no_label_and_what_is_left_out_is_said(mimic4):
    change(mimic4, "hosp/diagnoses_icd.csv", "Q9999", f'"{SECRET}"')
    change(mimic4, "hosp/diagnoses_icd.csv", "Z0000", "Z0")
    corpus = load_mimic4(mimic4)
    list(corpus.documents())
    assert corpus.left_out == (
        "warning: 2 of 7 rows of codes are left out: 2 with something else than a code",
        "4 notes are left out: 3 without a code of ICD-10, 1 without text",
    )
    assert len(corpus.label_ids) == 5 and SECRET.upper() not in str(corpus.label_texts)


def test_clusters_follow_the_taxonomy_where_it_knows_the_code(mimic4, space):
    corpus = load_mimic4(mimic4)
    assert corpus.space["icd10cm:E11.65"].ancestors == ("E11.6", "E11")
    assert corpus.space["icd10cm:E11.65"].synonyms == space["E11.65"].synonyms
    assert "B21.9" not in space
    assert corpus.cluster(corpus.label_ids.index("icd10cm:B21.9")) == "B21"
    assert corpus.cluster(corpus.label_ids.index("icd10pcs:B2111ZZ")) == "procedure B21"
    nine = load_mimic4(mimic4, version=9)
    assert [nine.cluster(i) for i in range(4)] == ["003", "E880", "procedure 033", "procedure 003"]
