"""The files of MIMIC-IV as they are on disk, or as scripts of others wrote them again."""

import csv
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow

from workbench.errors import InputError
from workbench.files import reading
from workbench.labels.lines import bad_line, open_text, whole_number

NO_NUMBER = -1
"""Stands for an id that is not there."""
SPLITS = ("train", "val", "test")

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
            reader: Any = pd.read_csv(
                stream, usecols=columns, dtype=str, keep_default_na=False, chunksize=chunk
            )
            for table in [reader] if isinstance(reader, pd.DataFrame) else reader:
                yield pd.DataFrame({name: table[name].str.strip() for name in columns})
                done += len(table)
        except InputError:
            raise
        except ValueError as error:  # pandas says which line or which columns in its own words
            what = f"{' '.join(str(error).split())[:200]}; columns {', '.join(columns)} are needed"
            raise InputError(f"{path}: from line {done + 1}: {what}") from None


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


def notes(path: Path) -> Iterator[tuple[int, str, int | None, str]]:
    """Line in which a note begins, note_id, hadm_id, text; texts hold line breaks.

    `hadm_id` is None where it is empty.

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
                yield line, note_id, admission, text
                line = rows.line_num + 1
        except csv.Error:
            raise bad_line(path, line, "not csv; a quote is missing or out of place") from None


def read_splits(path: Path) -> dict[int, str]:
    """`hadm_id` → split; rows without an id or a split are left out.

    Raises:
        InputError: not such a table, or, with the line, what is not as it should be.
    """
    table = _read_split_table(path)
    key = next((name for name in ("hadm_id", "_id") if name in table), None)
    if key is None or "split" not in table:
        raise InputError(f"{path}: columns hadm_id (or _id) and split are needed")
    column = pd.Series(table[key].astype(str), name=key)
    split = table["split"].astype(str).str.strip()
    ids = whole_numbers(path, column)
    given = (ids != NO_NUMBER) & ~is_empty(split).to_numpy()
    wrong = pd.Series(given & ~split.isin(SPLITS).to_numpy())
    if wrong.any():
        raise bad_line(path, line_of(wrong), f"the split is none of {', '.join(SPLITS)}")
    twice = pd.Series(ids).duplicated() & given
    if twice.any():
        raise bad_line(path, line_of(twice), f"{key} occurs for the second time")
    return dict(zip(ids[given].tolist(), split[given].tolist(), strict=True))


def _read_split_table(path: Path) -> pd.DataFrame:
    suffix = path.name.removesuffix(".gz").rpartition(".")[2]
    readers = {"csv": _read_csv, "feather": pd.read_feather, "parquet": pd.read_parquet}
    if suffix not in readers:
        raise InputError(f"{path}: a csv, feather or parquet file of splits is needed")
    if not path.exists():
        raise InputError(f"{path}: no such file")
    with reading(path):
        try:
            return readers[suffix](path).reset_index(drop=True)
        except InputError:
            raise
        except (OSError, ValueError, pyarrow.ArrowException):
            raise InputError(f"{path}: cannot be read as {suffix}") from None


def _read_csv(path: Path) -> pd.DataFrame:
    with open_text(path) as stream:
        return pd.read_csv(stream, dtype=str, keep_default_na=False)
