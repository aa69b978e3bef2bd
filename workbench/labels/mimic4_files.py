"""The files of MIMIC-IV as they are on disk, or as scripts of others wrote them again."""

import csv
import io
import warnings
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from workbench.errors import InputError
from workbench.labels.lines import bad_line, open_text, text_lines, whole_number
from workbench.labels.tables import read_table

NO_NUMBER = -1
"""Stands for an id that is not there."""
SPLITS = ("train", "val", "test")
NO_NOTE = "addenda without a note of their admission"

_SPLIT_NAMES = {"dev": "val", "valid": "val", "validation": "val"} | {name: name for name in SPLITS}
_ADDENDUM = "AD"
_EMPTY = ("", "nan", "na", "<na>", "none", "null", "nat")
_CHUNK = 200_000
_NOTE_COLUMNS = ("note_id", "hadm_id", "text")
_LONGEST_FIELD = 2**24  # a note is one field; the module's own limit of 128 kB is near the longest


def tables(path: Path, columns: list[str], chunk: int | None = _CHUNK) -> Iterator[pd.DataFrame]:
    """Chunks of a csv file as strings; row `i` of the file has the index `i`, in line `i` + 2.

    Raises:
        InputError: with the line, not the csv that is needed, or as `open_text`.
    """
    done = 0
    with open_text(path) as stream:
        try:
            # "NA" is a code like any other, not a missing value.
            # All columns are read: of rows with cells too many pandas takes those that are chosen.
            reader: Any = pd.read_csv(
                stream, dtype=str, keep_default_na=False, index_col=False, iterator=True
            )
            while (table := _next_rows(reader, chunk)) is not None:
                missing = [name for name in columns if name not in table]
                if missing:
                    raise ValueError(f"no column {', '.join(missing)}")
                yield pd.DataFrame({name: table[name].str.strip() for name in columns})
                done += len(table)
                if chunk is None:
                    break
        except InputError:
            raise
        except ValueError as error:  # pandas says which line or which columns in its own words
            what = f"{' '.join(str(error).split())[:200]}; columns {', '.join(columns)} are needed"
            raise InputError(f"{path}: from line {done + 1}: {what}") from None


def _next_rows(reader: Any, chunk: int | None) -> pd.DataFrame | None:
    """Rows of a csv file; None behind the last."""
    with warnings.catch_warnings():
        warnings.simplefilter("error", pd.errors.ParserWarning)
        try:
            return reader.read(chunk)
        except StopIteration:
            return None
        except pd.errors.ParserWarning:
            raise ValueError("more cells than the header has; a quote may be missing") from None


def line_of(wrong: pd.Series) -> int:
    """The line of a file that `tables` reads of the first row that is wrong."""
    return int(wrong.index[wrong.to_numpy()][0]) + 2


def is_empty(column: pd.Series) -> pd.Series:
    """Where nothing is given, in the words for it of tables that were read and written again."""
    return column.str.lower().isin(_EMPTY)


def whole_numbers(path: Path, column: pd.Series) -> np.ndarray:
    """A column of ids, `NO_NUMBER` where it is empty.

    Raises:
        InputError: with the line, something else than a whole number.
    """
    pattern = r"\s*([0-9]{1,18})(?:\.0*)?\s*"
    numbers = column.str.extract(pattern + "$", expand=False)
    matches = column.str.fullmatch(pattern)
    wrong = ~matches & ~is_empty(column)
    if wrong.any():
        raise bad_line(path, line_of(wrong), f"{column.name} is not a whole number")
    return numbers.where(matches, str(NO_NUMBER)).to_numpy(dtype=np.int64)


def versions(path: Path, column: pd.Series) -> np.ndarray:
    """ICD versions, 9 or 10, `NO_NUMBER` where none is given.

    Raises:
        InputError: with the line, another one.
    """
    wrong = ~column.str.fullmatch(r"(9|10)(\.0*)?") & ~is_empty(column)
    if wrong.any():
        raise bad_line(path, line_of(wrong), "icd_version is neither 9 nor 10")
    return whole_numbers(path, column)


@dataclass(frozen=True)
class Note:
    """A row of the notes. `admission` is None where it is empty; nothing of it shows in `repr`."""

    line: int
    id: str = field(repr=False)
    admission: int | None = field(repr=False)
    text: str = field(repr=False)
    patient: str = field(default="", repr=False)
    is_addendum: bool = False


def notes(path: Path) -> Iterator[Note]:
    """The notes of a file, each with the line in which it begins; texts hold line breaks.

    Raises:
        InputError: with the line, not csv, a row of the wrong length, or a hadm_id that is no
            number.
    """
    csv.field_size_limit(max(csv.field_size_limit(), _LONGEST_FIELD))
    with open_text(path) as stream:
        rows = csv.reader(io.TextIOWrapper(stream, encoding="utf-8", newline=""), strict=True)
        line = 1
        try:
            header = next(rows, [])
            missing = [column for column in _NOTE_COLUMNS if column not in header]
            if missing:
                raise bad_line(
                    path, 1, f"no column {missing[0]!r}; {', '.join(_NOTE_COLUMNS)} are needed"
                )
            at = [header.index(column) for column in _NOTE_COLUMNS]
            patient, kind = (
                header.index(name) if name in header else -1 for name in ("subject_id", "note_type")
            )
            line = rows.line_num + 1
            for row in rows:
                if not row:  # an empty line
                    line = rows.line_num + 1
                    continue
                if len(row) != len(header):
                    what = f"{len(row)} fields, but the header has {len(header)}"
                    raise bad_line(path, line, f"{what}; a quote may be missing")
                note_id, hadm_id, text = (row[place] for place in at)
                admission = whole_number(hadm_id)
                if admission is None and hadm_id.strip().lower() not in _EMPTY:
                    raise bad_line(path, line, "hadm_id is not a whole number")
                yield Note(
                    line,
                    note_id,
                    admission,
                    text,
                    row[patient] if patient >= 0 else hadm_id,
                    kind >= 0 and row[kind].strip().upper() == _ADDENDUM,
                )
                line = rows.line_num + 1
        except csv.Error:
            raise bad_line(path, line, "not csv; a quote is missing or out of place") from None


def with_addenda(rows: Iterator[Note], left: Counter[str]) -> Iterator[Note]:
    """Notes with the texts of their admission's addenda behind them, an empty line between.

    An addendum is looked for among all rows of the patient that stand together, as they do in
    PhysioNet's file, and before them; what finds no note is counted in `left`.
    """
    waiting: dict[int | None, list[str]] = {}
    for _, block in groupby(rows, key=lambda note: note.patient):
        of_patient = list(block)
        for note in of_patient:
            if note.is_addendum:
                waiting.setdefault(note.admission, []).append(note.text)
        for note in of_patient:
            if not note.is_addendum:
                texts = (note.text, *waiting.pop(note.admission, ()))
                text = "\n\n".join(text for text in texts if text.strip())
                yield replace(note, text=text) if len(texts) > 1 else note
    left[NO_NOTE] += sum(len(texts) for texts in waiting.values())


def read_splits(path: Path) -> dict[int, str]:
    """`hadm_id` → split; rows without an id or a split are left out.

    Raises:
        InputError: not such a table, or, with the line, what is not as it should be.
    """
    table = read_table(path, ("csv", "feather", "parquet"), "splits")
    key = next((name for name in ("hadm_id", "_id") if name in table), None)
    if key is None or "split" not in table:
        raise InputError(f"{path}: columns hadm_id (or _id) and split are needed")
    column = pd.Series(table[key].astype(str), name=key)
    split = table["split"].astype(str).str.strip()
    ids = whole_numbers(path, column)
    given = (ids != NO_NUMBER) & ~is_empty(split).to_numpy()
    named = split.map(_SPLIT_NAMES)
    wrong = pd.Series(given & named.isna().to_numpy())
    if wrong.any():
        raise bad_line(path, line_of(wrong), f"the split is none of {', '.join(SPLITS)} (or dev)")
    twice = pd.Series(ids).duplicated() & given
    if twice.any():
        raise bad_line(path, line_of(twice), f"{key} occurs for the second time")
    return dict(zip(ids[given].tolist(), named[given].tolist(), strict=True))


def read_lists(lists: dict[str, Path]) -> dict[int, str]:
    """`hadm_id` → split, from a file of ids, one a line, for each split.

    Raises:
        InputError: with file and line, no number, or an id that has a split.
    """
    split_of: dict[int, str] = {}
    for split, path in lists.items():
        for line, text in text_lines(path, Counter()):
            number = whole_number(text)
            if number is None and line == 1 and text.strip() in ("hadm_id", "_id"):
                continue
            if number is None:
                raise bad_line(path, line, "not a whole number; one hadm_id a line is needed")
            if number in split_of:
                raise bad_line(path, line, f"hadm_id occurs before, in {split_of[number]}")
            split_of[number] = _SPLIT_NAMES[split]
    return split_of
