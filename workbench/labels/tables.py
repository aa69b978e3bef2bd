"""Tables that users hand in as files: every value as it is written, none as a number."""

import csv
import io
from collections import Counter
from pathlib import Path

import pandas as pd
import pyarrow

from workbench.errors import InputError
from workbench.files import parse_json, reading
from workbench.labels.lines import bad_line, open_text, text_lines

FORMS = ("csv", "tsv", "jsonl", "parquet", "feather")


def read_table(path: Path, forms: tuple[str, ...] = FORMS, what: str = "a table") -> pd.DataFrame:
    """A table by the ending of its name; csv, tsv and jsonl may be gzipped.

    Cells of csv and tsv are strings, empty ones too, so that codes keep their zeros. A csv file
    whose header has semicolons and no comma is separated by them, as spreadsheets write it in
    countries with decimal commas.

    Raises:
        InputError: another ending, no such file, it is not what its name says, or it has rows of
            more or fewer cells than its header.
    """
    form = path.name.removesuffix(".gz").rpartition(".")[2]
    if form not in forms:
        raise InputError(
            f"{path}: a {', '.join(forms[:-1])} or {forms[-1]} file of {what} is needed"
        )
    if not path.exists():
        raise InputError(f"{path}: no such file")
    with reading(path):
        try:
            return _read(path, form).reset_index(drop=True)
        except InputError:
            raise
        except (OSError, ValueError, pyarrow.ArrowException):
            raise InputError(f"{path}: cannot be read as {form}") from None


def _read(path: Path, form: str) -> pd.DataFrame:
    if form == "parquet":
        return pd.read_parquet(path)
    if form == "feather":
        return pd.read_feather(path)
    if form == "jsonl":
        return pd.DataFrame(_objects(path), dtype=object)
    with open_text(path) as stream:
        text = io.TextIOWrapper(stream, encoding="utf-8", newline="")
        return _cells(path, text, form)


def _cells(path: Path, text: io.TextIOWrapper, form: str) -> pd.DataFrame:
    whole = io.StringIO(text.read(), newline="")
    header = whole.readline()
    whole.seek(0)
    sign = "\t" if form == "tsv" else ";" if ";" in header and "," not in header else ","
    before = csv.field_size_limit(1 << 30)
    try:
        names, *rows = filter(None, csv.reader(whole, delimiter=sign, strict=True))
    except csv.Error:
        raise InputError(f"{path}: cannot be read as {form}") from None
    finally:
        csv.field_size_limit(before)
    for number, row in enumerate(rows):
        if len(row) != len(names):
            raise InputError(
                f"{path}: row {number} (from 0) has {len(row)} cells, the header {len(names)}; "
                f"cells that hold {sign!r} need quotes"
            )
    return pd.DataFrame(rows, columns=[name.strip() for name in names], dtype=object)


def _objects(path: Path) -> list[dict[str, object]]:
    rows = []
    strange: Counter[str] = Counter()
    for line, content in text_lines(path, strange):
        if strange:
            raise bad_line(path, line, "not UTF-8; save the file as UTF-8")
        try:
            row = parse_json(content) if content else None
        except InputError as error:
            raise bad_line(path, line, f"{error}; one object a line is needed") from None
        if not isinstance(row, dict):
            raise bad_line(path, line, "not a JSON object; one object a line is needed")
        rows.append(row)
    return rows
