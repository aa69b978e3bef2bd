import codecs
import gzip
from pathlib import Path

import pandas as pd
import pytest

from workbench.bench.synthetic import write_mimic4
from workbench.errors import InputError
from workbench.labels.corpus import LabelledCorpus
from workbench.labels.icd_codes import dotted
from workbench.labels.mimic4 import load_mimic4

NOTES = "note_id,subject_id,hadm_id,note_type,note_seq,charttime,storetime,text\n"
SECRET = "Mrs. Secret"
FILES = {
    "hosp/d_icd_diagnoses.csv": "icd_code,icd_version,long_title\n"
    "0030,9,Salmonella gastroenteritis\n"
    "E8801,9,Fall from curb\n"
    'E1165,10,"Type 2 diabetes, with hyperglycemia"\n'
    "E1169,10,Type 2 diabetes with other complication\n"
    "E8801,10,Alpha-1-antitrypsin deficiency\n"
    "B219,10,HIV\n"
    "Q9999,10,\n",
    "hosp/d_icd_procedures.csv": "icd_code,icd_version,long_title\n"
    "0331,9,Spinal tap\n"
    "0030,9,Implantation of chemotherapeutic agent\n"
    "B2111ZZ,10,Fluoroscopy\n",
    "hosp/diagnoses_icd.csv": "subject_id,hadm_id,seq_num,icd_code,icd_version\n"
    "1,20,2,E8801,10\n"
    "1,20,1,E1165,10\n"
    "1,21,1,Q9999,10\n"
    "1,21,2,B219,10\n"
    "1,21,3,B219,10\n"
    "2,22,1,E8801,9\n"
    "2,22,2,0030,9\n"
    "2,23,1,Z0000,10\n",
    "hosp/procedures_icd.csv": "subject_id,hadm_id,seq_num,chartdate,icd_code,icd_version\n"
    "1,20,1,2180-01-01,B2111ZZ,10\n"
    "2,22,1,2180-01-01,0030,9\n",
    "note/discharge.csv": NOTES
    + f'a,1,20,DS,1,x,y,"{SECRET}\nsaid ""well"", and left"\n'
    + "b,1,21,DS,1,x,y,second\n"
    + "c,2,22,DS,1,x,y,third\n"
    + "d,2,23,DS,1,x,y,no described code\n"
    + "e,2,24,DS,1,x,y,no code at all\n"
    + "f,1,20,DS,2,x,y,\n",
}


@pytest.fixture
def folder(tmp_path):
    """Four coded admissions, of which one is in ICD-9 and one has no described code."""
    for name, content in FILES.items():
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(content)
    return tmp_path


@pytest.fixture(autouse=True)
def taxonomy(space, monkeypatch):
    """ICD-10-CM without a cache in the user's home."""
    monkeypatch.setattr("workbench.labels.mimic4.load_icd10cm", lambda: space)


def change(folder: Path, name: str, old: str, new: str) -> None:
    path = folder / name
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))


def refused(folder: Path, **arguments: object) -> str:
    """The message; it has one line and nothing of a note."""
    with pytest.raises(InputError) as caught:
        corpus = load_mimic4(folder, **arguments)
        list(corpus.documents(corpus.splits[0]))
    message = str(caught.value)
    assert "\n" not in message
    assert "Secret" not in message
    return message.removeprefix(f"{folder}/")


def labels_of(corpus, split: str = "all") -> dict[str, list[str]]:
    """Dotted codes by note, without version and kind."""
    codes = [label_id.partition(":")[2] for label_id in corpus.label_ids]
    return {d.id: [codes[i] for i in d.labels] for d in corpus.documents(split)}


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


def test_codes_join_by_version_in_order_diagnoses_first(folder):
    corpus = load_mimic4(folder)
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


def test_icd9_codes_are_others_though_written_with_the_same_letters(folder):
    corpus = load_mimic4(folder, version=9)
    texts = dict(zip(corpus.label_ids, corpus.label_texts, strict=True))
    assert texts["icd9cm:E880.1"] == "Fall from curb"
    assert (texts["icd9cm:003.0"], texts["icd9pcs:00.30"]) == (
        "Salmonella gastroenteritis",
        "Implantation of chemotherapeutic agent",
    )
    assert labels_of(corpus) == {"c": ["E880.1", "003.0", "00.30"]}


def test_one_kind_of_codes_alone(folder):
    corpus = load_mimic4(folder, kinds=("procedure",))
    assert labels_of(corpus) == {"a": ["B2111ZZ"]}
    assert corpus.name == "mimic4-icd10-procedure"


def test_codes_without_a_description_are_labels_with_the_code_as_text(folder):
    corpus = load_mimic4(folder)
    assert corpus.undescribed == {"Q99.99": 1, "Z00.00": 1}
    assert corpus.label_texts[-2:] == ["Q99.99", "Z00.00"]
    assert corpus.cluster(len(corpus.label_ids) - 1) == "Z00"
    said = "2 of 7 rows of codes are of 2 codes without a description (Q99.99, Z00.00)"
    assert corpus.left_out == (f"warning: {said}; their text is the code",)
    with (folder / "hosp/diagnoses_icd.csv").open("a") as out:
        out.write("1,20,1,E1165,10\n" * 100)
    said = said.replace("of 7", "of 107")
    assert load_mimic4(folder).left_out == (f"{said}; their text is the code",)
    assert load_mimic4(folder, version=9).undescribed == {}


def rewrite(folder: Path, name: str, change) -> None:
    """Change the cells of a table as a script of someone else would."""
    path = folder / name
    table = pd.read_csv(path, dtype=str, keep_default_na=False)
    change(table)
    table.to_csv(path, index=False)


@pytest.mark.parametrize(
    "write",
    [str.lower, lambda code: f"  {code} ", lambda code: dotted(code, 10, "diagnosis")],
    ids=["small letters", "spaces", "dots"],
)
@pytest.mark.parametrize("name", ["d_icd_diagnoses", "diagnoses_icd", "d_icd_procedures"])
def test_codes_of_other_scripts_are_the_same_codes(folder, name, write):
    right = {version: labels_of(load_mimic4(folder, version=version)) for version in (9, 10)}
    rewrite(folder, f"hosp/{name}.csv", lambda t: t.update(t.icd_code.map(write)))
    for version, labels in right.items():
        corpus = load_mimic4(folder, version=version)
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


def test_a_code_that_lost_its_zero_is_never_another_one(folder):
    labels, corpus = procedures(folder, "0744", "744", "0331")
    assert labels == ["07.44", "74.4", "03.31"] and not corpus.undescribed + corpus.ambiguous
    labels, corpus = procedures(folder, "744", "331", "744")
    assert labels == []
    assert corpus.ambiguous == {"74.4": 2, "33.1": 1} and not corpus.undescribed
    assert corpus.left_out[0] == (
        "warning: 3 of 3 rows of codes are left out: 3 that lost a zero, or may have (74.4, 33.1)"
    )
    # None has kept its zero, so that 744 may have lost one; a single odd row says nothing.
    assert procedures(folder, "744", "44")[0] == []
    assert procedures(folder, *["0331"] * 200, "744", "331")[0] == ["03.31", "74.4"]


@pytest.mark.parametrize("code", ["3310.0", "4.", "4.0"])
def test_codes_that_were_numbers_with_a_fraction_are_refused(folder, code):
    assert procedures(folder, "07.44", "74.4", "74.0")[0] == ["07.44", "74.4", "74.0"]
    with pytest.raises(InputError, match=r"csv: line 3: a code of ICD-9 is written as a number"):
        procedures(folder, "0331", code)


def test_what_is_no_code_is_no_label_and_what_is_left_out_is_said(folder):
    change(folder, "hosp/diagnoses_icd.csv", "Q9999", f'"{SECRET}"')
    change(folder, "hosp/diagnoses_icd.csv", "Z0000", "Z0")
    corpus = load_mimic4(folder)
    list(corpus.documents())
    assert corpus.left_out == (
        "warning: 2 of 7 rows of codes are left out: 2 with something else than a code",
        "4 notes are left out: 3 without a code of ICD-10, 1 without text",
    )
    assert len(corpus.label_ids) == 5 and SECRET.upper() not in str(corpus.label_texts)


def test_tables_written_again_with_gaps_read_the_same(folder):
    right = labels_of(load_mimic4(folder))

    def as_floats(name: str, column: str, *gaps: int) -> None:
        def change(table):
            table[column] = table[column] + ".0"
            table.loc[list(gaps), column] = ""

        rewrite(folder, name, change)

    as_floats("hosp/diagnoses_icd.csv", "hadm_id", 2)
    as_floats("hosp/diagnoses_icd.csv", "icd_version", 7)
    as_floats("hosp/diagnoses_icd.csv", "seq_num")
    as_floats("hosp/d_icd_diagnoses.csv", "icd_version")
    as_floats("note/discharge.csv", "hadm_id", 4)
    splits = folder / "splits.csv"
    splits.write_text("hadm_id,split\n20.0,test\n21.0,test\n,train\n22,\n")
    corpus = load_mimic4(folder, splits=splits)
    assert labels_of(corpus, "test") == {"a": right["a"], "b": ["B21.9"]}
    assert labels_of(corpus, "train") == {}
    assert corpus.left_out == (
        "warning: 2 of 7 rows of codes are left out: 1 without an ICD version, "
        "1 without an admission",
        "4 notes are left out: 2 of admissions in no split, 1 without an admission, 1 without text",
    )


@pytest.mark.parametrize("name", sorted(FILES))
def test_byte_order_marks_and_line_ends_of_windows(folder, name):
    right = labels_of(load_mimic4(folder))
    path = folder / name
    path.write_bytes(codecs.BOM_UTF8 + path.read_bytes().replace(b"\n", b"\r\n"))
    assert labels_of(load_mimic4(folder)) == right
    path.write_bytes(path.read_bytes() + "1,2,é\r\n".encode("latin-1"))
    line = path.read_bytes().count(b"\n")
    assert refused(folder) == f"{name}: line {line}: not UTF-8; save the file as UTF-8"


def test_notes_come_whole_and_stay_private(folder):
    corpus = load_mimic4(folder)
    note = next(corpus.documents())
    assert note.text == f'{SECRET}\nsaid "well", and left'
    assert corpus.text_is_private
    assert SECRET not in repr(note)


def test_note_longer_than_the_csv_modules_own_limit(folder):
    change(folder, "note/discharge.csv", "second", "word " * 40_000)
    assert "b" in labels_of(load_mimic4(folder))


def test_addenda_join_the_note_of_their_admission(folder):
    """Type AD, numbered apart; before or behind their note among the rows of their patient."""
    with (folder / "note/discharge.csv").open("a") as out:
        out.write('3-AD-4,3,20,AD,4,x,y,"first\naddendum"\n')
    before = load_mimic4(folder)
    assert [d.id for d in before.documents()] == ["a", "b", "d"]
    assert "1 addenda without a note of their admission" in before.left_out[-1]
    change(folder, "note/discharge.csv", NOTES, NOTES + "1-AD-3,1,20,AD,3,x,y,the first\n")
    change(folder, "note/discharge.csv", "b,1,21,", "1-AD-4,1,20,AD,4,x,y,the second\nb,1,21,")
    corpus = load_mimic4(folder)
    texts = {d.id: d.text for d in corpus.documents()}
    assert list(texts) == ["a", "b", "d"]
    assert texts["a"].endswith("and left\n\nthe first\n\nthe second") and texts["b"] == "second"
    change(folder, "note/discharge.csv", "3-AD-4", "1-AD-4")
    assert "line 11: note_id occurs twice" in refused(folder)


def test_clusters_follow_the_taxonomy_where_it_knows_the_code(folder, space):
    corpus = load_mimic4(folder)
    assert corpus.space["icd10cm:E11.65"].ancestors == ("E11.6", "E11")
    assert corpus.space["icd10cm:E11.65"].synonyms == space["E11.65"].synonyms
    assert "B21.9" not in space
    assert corpus.cluster(corpus.label_ids.index("icd10cm:B21.9")) == "B21"
    assert corpus.cluster(corpus.label_ids.index("icd10pcs:B2111ZZ")) == "procedure B21"
    nine = load_mimic4(folder, version=9)
    assert [nine.cluster(i) for i in range(4)] == ["003", "E880", "procedure 033", "procedure 003"]


@pytest.mark.parametrize("key", ["hadm_id", "_id"])
@pytest.mark.parametrize("suffix", ["csv", "csv.gz", "feather", "parquet"])
def test_splits_from_a_file(folder, key, suffix):
    table = pd.DataFrame({key: [21, 20, 99], "split": ["test", "train", "val"]})
    path = folder / f"splits.{suffix}"
    if suffix.startswith("csv"):
        table.to_csv(path, index=False)
    else:
        getattr(table, f"to_{suffix}")(path)
    corpus = load_mimic4(folder, splits=path)
    assert load_mimic4(folder, splits="find").splits == corpus.splits
    found = {split: list(labels_of(corpus, split)) for split in corpus.splits}
    assert found == {"train": ["a"], "val": [], "test": ["b"]}


@pytest.mark.parametrize(
    ("kind", "content", "message"),
    [
        (
            "csv",
            "hadm_id,split\n1,dev\n2,x\n",
            "line 3: the split is none of train, val, test (or dev)",
        ),
        ("csv", "hadm_id,split\n20,train\n20,val\n", "line 3: hadm_id occurs for the second time"),
        ("csv", "_id,split\n20,train\nx1,val\n", "line 3: _id is not a whole number"),
        ("csv", "id,split\n20,train\n", "columns hadm_id (or _id) and split are needed"),
        ("csv", "", "cannot be read as csv"),
        ("feather", "not feather", "cannot be read as feather"),
        ("feather", None, "no such file"),
        ("json", "{}", "a csv, feather or parquet file of splits is needed"),
    ],
)
def test_refused_splits(folder, kind, content, message):
    path = folder / f"splits.{kind}"
    if content is not None:
        path.write_text(content)
    assert refused(folder, splits=path) == f"{path.name}: {message}"


def test_without_a_file_of_splits_there_is_one(folder):
    with pytest.raises(InputError, match=r"has no split 'train'; it has all$"):
        load_mimic4(folder).documents("train")


@pytest.mark.parametrize(
    ("name", "old", "new", "message"),
    [
        ("hosp/diagnoses_icd.csv", "1,21,1,Q9999,10", "1,x,1,Q9999,10", "line 4: hadm_id is not"),
        ("hosp/diagnoses_icd.csv", "Q9999,10", "Q9999,11", "line 4: icd_version is neither 9 nor"),
        ("hosp/diagnoses_icd.csv", "icd_code", "code", "columns hadm_id, seq_num, icd_code"),
        ("hosp/d_icd_diagnoses.csv", "E1169", "E1165", "line 5: a code of ICD-10 (E1165) is desc"),
        ("note/discharge.csv", "b,1,21", "a,1,21", "line 4: note_id occurs twice"),
        ("note/discharge.csv", "b,1,21", "b,1,2.5", "line 4: hadm_id is not a whole number"),
        ("hosp/d_icd_diagnoses.csv", "B219,10", "19,10", "line 7: a code of ICD-10 (19) has fewer"),
        ("hosp/d_icd_diagnoses.csv", "HIV", "HIV, late", "Expected 3 fields in line 7, saw 4"),
        ("hosp/diagnoses_icd.csv", "Z0000,10", "Z0000,10,x", "Expected 5 fields in line 9, saw 6"),
        ("hosp/d_icd_diagnoses.csv", "HIV", "x" * 10**5, "line 7: long_title has more than 10,000"),
        ("hosp/d_icd_procedures.csv", "B2111ZZ", "16070", "line 4: a code of ICD-10 (16070) has"),
        ("note/discharge.csv", "b,1,21,", "b,1,21,,", "line 4: 9 fields, but the header has 8"),
        ("note/discharge.csv", "third", '"third', "line 5: not csv; a quote is missing"),
        ("note/discharge.csv", "hadm_id", "hadm", "line 1: no column 'hadm_id'"),
    ],
)
def test_refused_lines(folder, name, old, new, message):
    change(folder, name, old, new)
    shown = refused(folder)
    assert shown.startswith(f"{name}: ")
    assert message in shown


def test_missing_files_and_wrong_choices(folder):
    with pytest.raises(InputError, match="ICD version 11 is neither 9 nor 10"):
        load_mimic4(folder, version=11)
    with pytest.raises(InputError, match="any of diagnosis, procedure are right"):
        load_mimic4(folder, kinds=())
    (folder / "note/discharge.csv").unlink()
    assert "no note/discharge.csv.gz" in refused(folder)


def test_notes_may_lie_in_a_folder_of_their_own(folder, tmp_path_factory):
    other = tmp_path_factory.mktemp("mimic-iv-note")
    (folder / "note").rename(other / "note")
    assert list(labels_of(load_mimic4(folder, notes=other))) == ["a", "b", "d"]


@pytest.mark.parametrize("name", ["hosp/diagnoses_icd.csv.gz", "note/discharge.csv.gz"])
def test_gzip_that_is_cut_off(tmp_path, space, monkeypatch, name):
    monkeypatch.setattr("workbench.bench.synthetic.load_icd10cm", lambda: space)
    write_mimic4(tmp_path, documents=300)
    path = tmp_path / name
    lines = gzip.decompress(path.read_bytes()).count(b"\n")
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    message = refused(tmp_path)
    assert "the gzip is broken or cut off here; fetch the file again" in message
    assert 1 < int(message.split("line ")[1].split(":")[0]) < lines


def test_rows_with_more_cells_than_their_header_are_not_taken_as_shifted(folder):
    change(
        folder,
        "hosp/d_icd_diagnoses.csv",
        "icd_code,icd_version,long_title",
        "icd_code,icd_version",
    )
    assert "more cells than the header has; a quote may be missing" in refused(folder)
