"""Folders that one process fills, with the settings that it was begun with."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from workbench.errors import InputError
from workbench.files.reading import read_json
from workbench.files.refusals import writing
from workbench.files.writing import make_folder, write_text


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
