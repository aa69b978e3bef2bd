"""Files that users get: written whole, or not at all."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from hashlib import sha256
from pathlib import Path
from typing import Any

from workbench.errors import InputError
from workbench.files.refusals import reading, writing


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


def write_table(path: Path, table: Any, *, private: bool = False, **how: Any) -> None:
    """Write a data frame as parquet, or as CSV with `how` of `DataFrame.to_csv`.

    Raises:
        InputError: it cannot be written.
    """
    # An open file: pyarrow takes no name that is not UTF-8.
    with replacing(path, private=private) as beside, beside.open("wb") as file:
        write = table.to_csv if path.suffix == ".csv" else table.to_parquet
        write(file, index=False, **how)
