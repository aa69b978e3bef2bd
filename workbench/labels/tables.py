"""Tables that users hand in as files: every value as it is written, none as a number."""

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

    Cells of csv and tsv are strings, empty ones too, so that codes keep their zeros.

    Raises:
        InputError: another ending, no such file, or it is not what its name says.
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
        sign = "," if form == "csv" else "\t"
        return pd.read_csv(text, sep=sign, dtype=str, keep_default_na=False)


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
