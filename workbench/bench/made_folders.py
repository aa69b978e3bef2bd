"""Writing made-up folders in the shape of real ones: files, and the tables of MIMIC-IV."""

import gzip
import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import pandas as pd

from workbench.errors import InputError

Row = tuple[object, ...]
TABLES = {
    "d_icd_diagnoses": ("icd_code", "icd_version", "long_title"),
    "d_icd_procedures": ("icd_code", "icd_version", "long_title"),
    "diagnoses_icd": ("subject_id", "hadm_id", "seq_num", "icd_code", "icd_version"),
    "procedures_icd": (
        "subject_id", "hadm_id", "seq_num", "chartdate", "icd_code", "icd_version"
    ),
}  # fmt: skip
"""Tables of `hosp/`, and their columns."""
_NOTE_COLUMNS = (
    "note_id", "subject_id", "hadm_id", "note_type", "note_seq", "charttime", "storetime", "text"
)  # fmt: skip
MIMIC_FILES = ("splits.csv", "note/discharge.csv.gz", *(f"hosp/{name}.csv.gz" for name in TABLES))


def admission(number: int) -> tuple[int, int]:
    """Patient and admission of a made-up note: eight digits, outside the ranges of the data."""
    return 90_000_001 + 11 * number, 80_000_001 + 7 * number


def note_row(number: int, text: str) -> Row:
    """The row of a note, whose first field is its id."""
    subject, hadm = admission(number)
    day = f"2180-05-{1 + number % 28:02}"
    times = (f"{day} 00:00:00", f"{day} 15:26:00")
    return (f"{subject}-DS-{number + 2}", subject, hadm, "DS", number + 2, *times, text)


def write_mimic_tables(
    folder: Path,
    tables: Mapping[str, Iterable[Row]],
    notes: Iterable[Row],
    splits: Iterable[tuple[int, str]],
) -> None:
    """`hosp/` and `note/` as `.csv.gz`, and `splits.csv` (`_id`, `split`)."""
    for name, columns in TABLES.items():
        write_csv(folder / f"hosp/{name}.csv.gz", columns, tables[name])
    write_csv(folder / "note/discharge.csv.gz", _NOTE_COLUMNS, notes)
    write_csv(folder / "splits.csv", ("_id", "split"), splits)


def write_csv(path: Path, columns: Sequence[str], rows: Iterable[Row]) -> None:
    """A csv file, gzipped by its name."""
    with writing(path) as out:
        pd.DataFrame([*rows], columns=[*columns]).to_csv(out, index=False)


def empty_place(folder: str | Path, names: Iterable[str], *counts: int) -> Path:
    """The folder, if nothing would be overwritten: the real data have the same file names.

    Raises:
        InputError: a count below 1, or one of the files exists.
    """
    if min(counts) < 1:
        told = " and ".join(map(str, counts))
        raise InputError(f"{told} documents and labels: at least 1 of each is needed")
    folder = Path(folder)
    for name in names:
        if (folder / name).exists():
            raise InputError(f"{folder / name}: exists already; name a new folder")
    return folder


@contextmanager
def writing(path: Path) -> Iterator[io.TextIOWrapper]:
    """A text file to write, gzipped by its name; the same content gives the same bytes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as raw:
        if path.suffix != ".gz":
            with io.TextIOWrapper(raw, encoding="utf-8", newline="\n") as out:
                yield out
            return
        with (
            gzip.GzipFile("", "wb", compresslevel=5, fileobj=raw, mtime=0) as zipped,
            io.BufferedWriter(zipped, 2**20) as buffered,  # type: ignore[arg-type]
            io.TextIOWrapper(buffered, encoding="utf-8", newline="\n") as out,
        ):
            yield out
