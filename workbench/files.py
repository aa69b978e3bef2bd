"""What users hand in and get: settings and files refused in one line, and writing whole or not."""

import dataclasses
import json
import math
import os
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from functools import wraps
from hashlib import file_digest, sha256
from pathlib import Path
from typing import Any, TypeVar, dataclass_transform

import pydantic.dataclasses
from filelock import FileLock, Timeout
from pydantic import ValidationError

from workbench.errors import InputError, explain, shorten

_Settings = TypeVar("_Settings")


@dataclass_transform(frozen_default=True, field_specifiers=(dataclasses.field,))
def settings(cls: type[_Settings]) -> type[_Settings]:
    """A frozen dataclass whose fields say their range and help text, checked when it is made.

    No number is infinite, and no whole one beyond `LARGEST`: torch and numpy take no larger seeds.

    A field is `name: Annotated[int, Field(ge=1, description="…")] = 3`; what concerns several
    fields is checked in `__post_init__`. Wrong values raise an `InputError`.
    """
    made: Any = pydantic.dataclasses.dataclass(frozen=True, config={"extra": "forbid"})(cls)
    init = made.__init__

    @wraps(init)
    def checked(self: Any, *args: Any, **kwargs: Any) -> None:
        try:
            init(self, *args, **kwargs)
        except ValidationError as error:
            raise InputError(explain(error, depth=1)) from None
        for field in dataclasses.fields(self):
            check_number(field.name, getattr(self, field.name))

    made.__init__ = checked
    return made


LARGEST = 2**32 - 1


def check_number(name: str, value: object) -> None:
    """Refuse a whole number beyond `LARGEST`, a seed below 0, and what is not finite.

    All else passes.

    Raises:
        InputError: with its name.
    """
    if isinstance(value, int) and abs(value) > LARGEST:
        raise InputError(f"{name} is a number of {len(str(value))} digits, at most {LARGEST:,}")
    if isinstance(value, int) and value < 0 and name.endswith("seed"):
        raise InputError(f"{name} is {value}, must be from 0 to {LARGEST:,}")
    if isinstance(value, float) and not math.isfinite(value):
        raise InputError(f"{name} is {value}, must be finite")


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


def reading(path: str | Path) -> AbstractContextManager[None]:
    """Turns the system's refusals to read into one line.

    Raises:
        InputError: "PATH: cannot be read, No such file or directory".
    """
    return _in_one_line(path, "read")


def writing(path: str | Path) -> AbstractContextManager[None]:
    """Turns the system's refusals to write into one line.

    Raises:
        InputError: "PATH: cannot be written, No space left on device".
    """
    return _in_one_line(path, "written")


@contextmanager
def _in_one_line(path: str | Path, done: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise InputError(f"{path}: cannot be {done}, {error.strerror or error}") from None


def check_writable(path: Path, *, file: bool = False) -> None:
    """Find out before the work whether a file or folder can be made there; with `file`, a file.

    Raises:
        InputError: what lies above it is no folder, or must not be written; or it is there and is
            a device or a pipe, or, with `file`, a folder.
    """
    with reading(path):
        if path.exists() and not path.is_file() and (file or not path.is_dir()):
            raise InputError(f"{path}: cannot be written, it is no file")
        above = next(one for one in path.absolute().parents if one.exists())
    if not above.is_dir():
        raise InputError(f"{path}: cannot be written, {above} is no folder")
    if not os.access(above, os.W_OK):
        raise InputError(f"{path}: cannot be written, {above} must not be changed")


def make_folder(path: str | Path, *, private: bool = False) -> None:
    """Make a folder and those above it; a private one, for texts of prompts, is its owner's alone.

    A folder that is there keeps its mode.

    Raises:
        InputError: it cannot be made.
    """
    path = Path(path)
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.mkdir(mode=0o700 if private else 0o777, exist_ok=True)


def write_text(path: str | Path, text: str, *, private: bool = False) -> None:
    """Write a UTF-8 text with `replacing`; folders above it are made.

    Raises:
        InputError: it cannot be written.
    """
    path = Path(path)
    try:
        content = text.encode()
    except UnicodeEncodeError:
        raise InputError(f"{path}: cannot be written, the text holds half of a character") from None
    make_folder(path.parent)
    with replacing(path, private=private) as beside:
        beside.write_bytes(content)


@contextmanager
def replacing(path: Path, *, private: bool = False) -> Iterator[Path]:
    """A path beside the target to write to, which is then moved into its place.

    A reader, or a machine that loses its power, never has half a file; on an error nothing changes.
    A private file, and what a killed write leaves of it, can be read by its owner alone.

    Raises:
        InputError: the system refuses to write.
    """
    # A short name: one made from the target's could be too long where the target's is not.
    beside = path.with_name(f".{os.getpid()}-{sha256(os.fsencode(path.name)).hexdigest()[:16]}.tmp")
    with writing(path):
        if path.exists() and not (path.is_file() or path.is_dir()):
            raise OSError("it is no file")  # a device or pipe would be replaced
        try:
            beside.unlink(missing_ok=True)
            mode = 0o600 if private else 0o666
            os.close(os.open(beside, os.O_CREAT | os.O_EXCL | os.O_WRONLY, mode))
            yield beside
            _sync(beside)
            beside.replace(path)
            _sync(path.parent)
        finally:
            beside.unlink(missing_ok=True)


def _sync(path: Path) -> None:
    """Have the system put a file, or the names in a folder, on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        with suppress(OSError) if path.is_dir() else nullcontext():  # not every system can
            os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def alone(lock: Path, busy: str) -> Iterator[None]:
    """Hold a lock file, which goes with the process; the folder above it is made.

    A thread that holds it may take it again.

    Raises:
        InputError: `busy`, where another process holds it; or it cannot be written.
    """
    make_folder(lock.parent)
    held = FileLock(lock, timeout=0, is_singleton=True)
    with writing(lock.parent):
        try:
            held.acquire()
        except Timeout:
            raise InputError(busy) from None
    try:
        yield
    finally:
        held.release()


LOCK = ".lock"


@contextmanager
def alone_in(folder: Path, *, private: bool = False) -> Iterator[None]:
    """Be the only process that writes into a folder; it is made, and goes if it stays empty.

    Raises:
        InputError: another process writes there, or it cannot be written.
    """
    busy = f"{folder}: another process is writing there; wait for it, or give another --out"
    made = not folder.exists()
    make_folder(folder, private=private)
    with alone(folder / LOCK, busy):
        try:
            yield
        finally:
            if made and [path.name for path in folder.iterdir()] == [LOCK]:
                (folder / LOCK).unlink()
                folder.rmdir()


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


def write_table(path: Path, table: Any, *, private: bool = False, **how: Any) -> None:
    """Write a data frame as parquet, or as CSV with `how` of `DataFrame.to_csv`.

    Raises:
        InputError: it cannot be written.
    """
    # An open file: pyarrow takes no name that is not UTF-8.
    with replacing(path, private=private) as beside, beside.open("wb") as file:
        write = table.to_csv if path.suffix == ".csv" else table.to_parquet
        write(file, index=False, **how)


def file_sha256(path: Path) -> str:
    """The hash of a file's content.

    Raises:
        InputError: it cannot be read.
    """
    with reading(path), path.open("rb") as file:
        return file_digest(file, "sha256").hexdigest()


def claim(folder: Path, file: Path, asked: Mapping[str, Any], what: str) -> None:
    """Write the settings to `file`, or compare them with those that are there.

    `asked` is all that decides the results, as JSON holds it; `what` names the folder's contents
    in the message: "a distillation".

    Raises:
        InputError: the folder was begun with other settings; names them. Or the file is damaged.
    """
    if not file.is_file():
        write_text(file, json.dumps(asked, indent=1))
        return
    try:
        there = read_json(file)
    except InputError as error:
        raise InputError(f"{error}; delete {file.parent} to begin anew") from None
    different = differences(there, asked) if isinstance(there, dict) else ["all"]
    if different:
        raise InputError(
            f"{folder}: holds {what} with other settings ({', '.join(different)}); give another "
            "--out"
        )


def differences(there: Any, asked: Any, name: str = "") -> list[str]:
    """Dotted names of what differs between two settings, as JSON holds them."""
    if isinstance(there, Mapping) and isinstance(asked, Mapping):
        return [
            different
            for key in {**there, **asked}
            for different in differences(
                there.get(key), asked.get(key), f"{name}.{key}".removeprefix(".")
            )
        ]
    return [] if there == asked else [name]
