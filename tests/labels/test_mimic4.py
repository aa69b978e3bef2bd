"""Tables, notes and splits of MIMIC-IV as they are read, and what is refused."""

import codecs
import gzip

import pandas as pd
import pytest
from fixtures.mimic4 import FILES, NOTES, SECRET, change, labels_of, refused, rewrite

from workbench.bench.synthetic import write_mimic4
from workbench.errors import InputError
from workbench.labels.mimic4 import load_mimic4


def test_tables_written_again_with_gaps_read_the_same(mimic4):
    right = labels_of(load_mimic4(mimic4))

    def as_floats(name: str, column: str, *gaps: int) -> None:
        def change(table):
            table[column] = table[column] + ".0"
            table.loc[list(gaps), column] = ""

        rewrite(mimic4, name, change)

    as_floats("hosp/diagnoses_icd.csv", "hadm_id", 2)
    as_floats("hosp/diagnoses_icd.csv", "icd_version", 7)
    as_floats("hosp/diagnoses_icd.csv", "seq_num")
    as_floats("hosp/d_icd_diagnoses.csv", "icd_version")
    as_floats("note/discharge.csv", "hadm_id", 4)
    splits = mimic4 / "splits.csv"
    splits.write_text("hadm_id,split\n20.0,test\n21.0,test\n,train\n22,\n")
    corpus = load_mimic4(mimic4, splits=splits)
    assert labels_of(corpus, "test") == {"a": right["a"], "b": ["B21.9"]}
    assert labels_of(corpus, "train") == {}
    assert corpus.left_out == (
        "warning: 2 of 7 rows of codes are left out: 1 without an ICD version, "
        "1 without an admission",
        "4 notes are left out: 2 of admissions in no split, 1 without an admission, 1 without text",
    )


@pytest.mark.parametrize("name", sorted(FILES))
def test_byte_order_marks_and_line_ends_of_windows(mimic4, name):
    right = labels_of(load_mimic4(mimic4))
    path = mimic4 / name
    path.write_bytes(codecs.BOM_UTF8 + path.read_bytes().replace(b"\n", b"\r\n"))
    assert labels_of(load_mimic4(mimic4)) == right
    path.write_bytes(path.read_bytes() + "1,2,é\r\n".encode("latin-1"))
    line = path.read_bytes().count(b"\n")
    assert refused(mimic4) == f"{name}: line {line}: not UTF-8; save the file as UTF-8"


def test_notes_come_whole_and_stay_private(mimic4):
    corpus = load_mimic4(mimic4)
    note = next(corpus.documents())
    assert note.text == f'{SECRET}\nsaid "well", and left'
    assert corpus.text_is_private
    assert SECRET not in repr(note)


def test_note_longer_than_the_csv_modules_own_limit(mimic4):
    change(mimic4, "note/discharge.csv", "second", "word " * 40_000)
    assert "b" in labels_of(load_mimic4(mimic4))


def test_addenda_join_the_note_of_their_admission(mimic4):
    """Type AD, numbered apart; before or behind their note among the rows of their patient."""
    with (mimic4 / "note/discharge.csv").open("a") as out:
        out.write('3-AD-4,3,20,AD,4,x,y,"first\naddendum"\n')
    before = load_mimic4(mimic4)
    assert [d.id for d in before.documents()] == ["a", "b", "d"]
    assert "1 addenda without a note of their admission" in before.left_out[-1]
    change(mimic4, "note/discharge.csv", NOTES, NOTES + "1-AD-3,1,20,AD,3,x,y,the first\n")
    change(mimic4, "note/discharge.csv", "b,1,21,", "1-AD-4,1,20,AD,4,x,y,the second\nb,1,21,")
    corpus = load_mimic4(mimic4)
    texts = {d.id: d.text for d in corpus.documents()}
    assert list(texts) == ["a", "b", "d"]
    assert texts["a"].endswith("and left\n\nthe first\n\nthe second") and texts["b"] == "second"
    change(mimic4, "note/discharge.csv", "3-AD-4", "1-AD-4")
    assert "line 11: note_id occurs twice" in refused(mimic4)


@pytest.mark.parametrize("key", ["hadm_id", "_id"])
@pytest.mark.parametrize("suffix", ["csv", "csv.gz", "feather", "parquet"])
def test_splits_from_a_file(mimic4, key, suffix):
    table = pd.DataFrame({key: [21, 20, 99], "split": ["test", "train", "val"]})
    path = mimic4 / f"splits.{suffix}"
    if suffix.startswith("csv"):
        table.to_csv(path, index=False)
    else:
        getattr(table, f"to_{suffix}")(path)
    corpus = load_mimic4(mimic4, splits=path)
    assert load_mimic4(mimic4, splits="find").splits == corpus.splits
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
def test_refused_splits(mimic4, kind, content, message):
    path = mimic4 / f"splits.{kind}"
    if content is not None:
        path.write_text(content)
    assert refused(mimic4, splits=path) == f"{path.name}: {message}"


def test_without_a_file_of_splits_there_is_one(mimic4):
    with pytest.raises(InputError, match=r"has no split 'train'; it has all$"):
        load_mimic4(mimic4).documents("train")


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
def test_refused_lines(mimic4, name, old, new, message):
    change(mimic4, name, old, new)
    shown = refused(mimic4)
    assert shown.startswith(f"{name}: ")
    assert message in shown


def test_missing_files_and_wrong_choices(mimic4):
    with pytest.raises(InputError, match="ICD version 11 is neither 9 nor 10"):
        load_mimic4(mimic4, version=11)
    with pytest.raises(InputError, match="any of diagnosis, procedure are right"):
        load_mimic4(mimic4, kinds=())
    (mimic4 / "note/discharge.csv").unlink()
    assert "no note/discharge.csv.gz" in refused(mimic4)


def test_notes_may_lie_in_a_folder_of_their_own(mimic4, tmp_path_factory):
    other = tmp_path_factory.mktemp("mimic-iv-note")
    (mimic4 / "note").rename(other / "note")
    assert list(labels_of(load_mimic4(mimic4, notes=other))) == ["a", "b", "d"]


@pytest.mark.usefixtures("small_taxonomy")
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


def test_rows_with_more_cells_than_their_header_are_not_taken_as_shifted(mimic4):
    change(
        mimic4,
        "hosp/d_icd_diagnoses.csv",
        "icd_code,icd_version,long_title",
        "icd_code,icd_version",
    )
    assert "more cells than the header has; a quote may be missing" in refused(mimic4)
