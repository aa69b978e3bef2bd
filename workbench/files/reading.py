"""Files that users hand in: read whole, or refused in one line."""

import json
import math
from hashlib import file_digest
from pathlib import Path
from typing import Any

from workbench.errors import InputError, shorten
from workbench.files.refusals import reading

LARGEST_READ = 1 << 30
"""Bytes of a file that is read whole; corpora are read line by line instead."""


def read_text(path: str | Path) -> str:
    """A whole UTF-8 text, with or without a byte-order mark, with its ends of lines as they are.

    Raises:
        InputError: it cannot be read, is larger than `LARGEST_READ`, or is not UTF-8; then with
            the line of the first wrong byte.
    """
    path = Path(path)
    with reading(path):
        size = path.stat().st_size
        if size > LARGEST_READ:
            raise InputError(f"{path}: has {size:,} bytes, at most {LARGEST_READ:,} are read")
        content = path.read_bytes()
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise InputError(f"{path}: line {line} is not UTF-8; save the file as UTF-8") from None


def read_json(path: str | Path) -> Any:
    """The content of a JSON file.

    Raises:
        InputError: as `read_text` and `parse_json`, with the path.
    """
    text = read_text(path)
    try:
        return parse_json(text)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None


def read_yaml(path: str | Path) -> Any:
    """The content of a YAML file; no tags of a language, no key twice.

    Raises:
        InputError: as `read_text`; it is no YAML, or gives a key twice.
    """
    import yaml

    class Loader(yaml.SafeLoader):
        def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
            keys = [one.value for one, _ in node.value if isinstance(one, yaml.ScalarNode)]
            twice = [key for key in keys if keys.count(key) > 1]
            if twice:
                raise InputError(f"gives the key {shorten(twice[0])} twice")
            return super().construct_mapping(node, deep)

    text = read_text(path)
    try:
        return yaml.load(text, Loader)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f", line {mark.line + 1} column {mark.column + 1}" if mark else ""
        raise InputError(f"{path}: not YAML{where}") from None


def parse_json(text: str) -> Any:
    """What a JSON text says, where it says one thing: no key twice, no number that overflows.

    Raises:
        InputError: says what is wrong and where; not which file, which the caller knows.
    """
    try:
        found = json.loads(
            text,
            object_pairs_hook=_without_repeats,
            parse_int=_bounded,
            parse_float=_finite,
            parse_constant=_finite,
        )
        if "\\ud" in text.lower():  # no tokenizer and no file takes half of a pair
            json.dumps(found, ensure_ascii=False).encode()
        return found
    except UnicodeEncodeError:
        raise InputError("holds half of a character (a lone \\u escape)") from None
    except json.JSONDecodeError as error:
        line = f"line {error.lineno} " if "\n" in text.rstrip() else ""
        raise InputError(f"not JSON, {line}column {error.colno}: {error.msg}") from None
    except RecursionError:
        raise InputError("not JSON that can be read: nested too deeply") from None


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    keys = dict(pairs)
    if len(keys) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise InputError(f"key {shorten(twice)} occurs twice in one object")
    return keys


def _bounded(digits: str) -> int:
    size = len(digits.lstrip("-"))
    if size > 18:  # nothing here counts beyond 64 bits, and torch and numpy cannot
        raise InputError(f"a whole number of {size} digits is too large")
    return int(digits)


def _finite(digits: str) -> float:
    number = float(digits)
    if not math.isfinite(number):
        raise InputError(f"the number {shorten(digits)} is not finite")
    return number


def read_parquet(path: str | Path) -> Any:
    """The data frame of a parquet file.

    Raises:
        InputError: it cannot be read, or is no such file.
    """
    import pandas as pd
    from pyarrow import ArrowException

    # An open file: pandas takes a folder for one table, pyarrow no name that is not UTF-8.
    with reading(path), Path(path).open("rb") as file:
        try:
            return pd.read_parquet(file)
        except (ValueError, LookupError, TypeError, ArrowException):  # as what is damaged has it
            raise InputError(f"{path}: is no parquet file, or damaged") from None


def file_sha256(path: Path) -> str:
    """The hash of a file's content.

    Raises:
        InputError: it cannot be read.
    """
    with reading(path), path.open("rb") as file:
        return file_digest(file, "sha256").hexdigest()
