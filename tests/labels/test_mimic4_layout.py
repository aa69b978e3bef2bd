"""Folders and files of splits under their owners' names; made-up content."""

import shutil
from pathlib import Path

import pandas as pd
import pytest

from workbench.bench.synthetic import write_mimic4
from workbench.errors import InputError
from workbench.labels.folders import open_corpus
from workbench.labels.mimic4 import load_mimic4


@pytest.fixture(scope="module")
def source(tmp_path_factory, space):
    """Twelve notes, with a split of our own; 4 of them in ICD-9."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("workbench.bench.synthetic.load_icd10cm", lambda: space)
        return write_mimic4(tmp_path_factory.mktemp("mimic"), documents=12)


@pytest.fixture
def folder(source, tmp_path):
    shutil.copytree(source, tmp_path / "m")
    return tmp_path / "m"


@pytest.fixture
def splits(folder) -> pd.DataFrame:
    """The split, taken out of the folder."""
    table = pd.read_csv(folder / "splits.csv")
    (folder / "splits.csv").unlink()
    return table


def ids(corpus, *splits: str) -> list[list[str]]:
    return [[d.id for d in corpus.documents(split)] for split in splits or corpus.splits]


def refused(task: str) -> str:
    with pytest.raises(InputError) as caught:
        open_corpus(task)
    assert "\n" not in str(caught.value)
    return str(caught.value)


LAYOUTS = {
    "one folder for both": ("hosp", "note", "."),
    "as wget leaves it": (
        "physionet.org/files/mimiciv/3.1/hosp",
        "physionet.org/files/mimic-iv-note/2.2/note",
        ".",
    ),
    "siblings": ("mimiciv/3.1/hosp", "mimic-iv-note/2.2/note", "."),
    "siblings, one of them named": ("mimiciv/3.1/hosp", "mimic-iv-note/2.2/note", "mimiciv/3.1"),
    "unzipped": (
        "mimic-iv-3.1/hosp",
        "mimic-iv-note-deidentified-free-text-clinical-notes-2.2/note",
        ".",
    ),
}


@pytest.mark.parametrize("name", LAYOUTS)
def test_folders_of_physionet(folder, tmp_path, name):
    right = ids(load_mimic4(folder))
    hosp, note, named = LAYOUTS[name]
    home = tmp_path / "home"
    for module, place in (("hosp", hosp), ("note", note)):
        (home / place).parent.mkdir(parents=True, exist_ok=True)
        (folder / module).rename(home / place)
    assert ids(open_corpus(f"mimic4:{home / named},splits=none")) == right


def test_two_versions_are_not_chosen_between(folder, tmp_path):
    for version in ("2.2", "3.1"):
        shutil.copytree(folder, tmp_path / f"mimiciv/{version}")
    message = refused(f"mimic4:{tmp_path / 'mimiciv'}")
    assert "several folders of MIMIC-IV (" in message and message.endswith("name one of them")
    assert refused(f"mimic4:{tmp_path / 'other'}").endswith("other: no such folder")


OWNERS = [
    "mimiciv_icd{0}_split.feather",
    "mimiciv_icd{0}/mimiciv_icd{0}_split.feather",
    "files/data/mimiciv_icd{0}/mimiciv_icd{0}_split.feather",
    "splits/mimiciv_icd{0}cm_splits.parquet",
]


@pytest.mark.parametrize("version", [9, 10])
@pytest.mark.parametrize("name", OWNERS)
def test_tables_of_splits_are_found_by_version(folder, splits, name, version):
    right = ids(load_mimic4(folder, splits=write(splits, folder / "right.csv"), version=version))
    (folder / "right.csv").unlink()
    write(splits, folder / name.format(version))
    write(splits.assign(split="train"), folder / name.format(19 - version))
    corpus = open_corpus(f"mimic4:{folder},icd={version}")
    assert ids(corpus) == right and corpus.name == f"mimic4-icd{version}"
    assert sum(map(len, right)) == (4 if version == 9 else 8) and all(right)


def write(splits: pd.DataFrame, path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    getattr(splits, f"to_{path.suffix[1:]}")(
        path, **({"index": False} if path.suffix == ".csv" else {})
    )
    return path


def write_lists(splits: pd.DataFrame, place: Path, name: str) -> None:
    """One hadm_id a line, without a header, as in the repositories of CAML and MIMIC-IV-ICD."""
    place.mkdir(parents=True, exist_ok=True)
    for split in ("train", "dev", "test"):
        rows = splits[splits.split == split.replace("dev", "val")]["_id"]
        rows.to_csv(place / f"{split}_{name}_hadm_ids.csv", index=False, header=False)


def test_lists_of_admissions_and_the_codes_of_the_fifty(folder, splits):
    right = ids(load_mimic4(folder, splits=write(splits, folder / "right.csv")))
    (folder / "right.csv").unlink()
    place = folder / "mimic4_icd10"
    write_lists(splits, place, "full")
    assert ids(open_corpus(f"mimic4:{folder}")) == right
    write_lists(splits[splits.split != "train"], place, "50")
    message = refused(f"mimic4:{folder}")
    assert message.endswith("several splits (50, full); say which, as splits=50")
    assert refused(f"mimic4:{folder},splits=60").endswith(
        "no split '60' in this folder; it has 50, full"
    )
    assert ids(open_corpus(f"mimic4:{folder},splits=full")) == right
    whole = open_corpus(f"mimic4:{folder},splits=50")
    found = ids(whole)
    assert found == [[], *right[1:]]
    assert any("notes are left out" in line and "in no split" in line for line in whole.left_out)
    code = whole.label_ids[next(whole.documents("test")).labels[0]]
    (place / "TOP_50_CODES.csv").write_text(code.partition(":")[2].replace(".", "") + "\nX999\n")
    fifty = open_corpus(f"mimic4:{folder},splits=50")
    assert fifty.label_ids == [code] and fifty.name == "mimic4-icd10-2"
    assert ids(fifty)[2][0] == found[2][0]
    assert any("with a code that is not in the list of codes" in line for line in fifty.left_out)


@pytest.mark.parametrize(
    ("content", "message"),
    [("80000001\nx\n", "line 2: not a whole number; one hadm_id a line is needed"),
     ("80000001\n80000001\n", "line 2: hadm_id occurs before, in test")],
)  # fmt: skip
def test_refused_lists(folder, splits, content, message):
    path = folder / "test_full_hadm_ids.csv"
    path.write_text(content)
    assert refused(f"mimic4:{folder}") == f"{path}: {message}"
    path.write_text("hadm_id\n80000001\n")
    (folder / "dev_full_hadm_ids.csv").write_text("80000001\n")
    assert "hadm_id occurs before, in " in refused(f"mimic4:{folder}")


def test_without_a_split_it_is_said_that_all_notes_are_one(folder, splits):
    corpus = open_corpus(f"mimic4:{folder}")
    assert corpus.splits == ("all",)
    warning = "warning: no file of splits in the folder, all notes are one split"
    assert corpus.left_out == (warning,)
    assert open_corpus(f"mimic4:{folder},splits=none").left_out == ()
