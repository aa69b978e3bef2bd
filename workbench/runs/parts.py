"""What is kept of a step that is not finished: rows of its events, on disk as soon as made.

Several processes may each keep those of their own events (`workbench.team`).
"""

import shutil
from collections.abc import Iterator, MutableMapping
from pathlib import Path
from typing import Protocol, runtime_checkable

import pandas as pd

from workbench.errors import InputError
from workbench.files import make_folder


@runtime_checkable
class _Tables(Protocol):
    """A folder of tables by name."""

    path: Path

    def write_table(self, name: str, table: pd.DataFrame) -> None: ...
    def has_table(self, name: str) -> bool: ...
    def read_table(self, name: str) -> pd.DataFrame: ...


class Parts(MutableMapping[int | str, pd.DataFrame]):
    """Tables of a step that is not finished: rows of events by number, others by name.

    Each is on disk as soon as it is set.
    """

    def __init__(self, folder: _Tables, step: str) -> None:
        self._folder, self._below = folder, Path("parts") / step

    def _name(self, key: int | str) -> str:
        return str(self._below / (f"{key:06}" if isinstance(key, int) else key))

    def __getitem__(self, key: int | str) -> pd.DataFrame:
        if key not in self:
            raise KeyError(key)
        return self._folder.read_table(self._name(key))

    def __setitem__(self, key: int | str, table: pd.DataFrame) -> None:
        make_folder(self._folder.path / self._below, private=True)
        self._folder.write_table(self._name(key), table)

    def __delitem__(self, key: int | str) -> None:
        (self._folder.path / f"{self._name(key)}.parquet").unlink()

    def __contains__(self, key: object) -> bool:
        return isinstance(key, int | str) and self._folder.has_table(self._name(key))

    def __iter__(self) -> Iterator[int | str]:
        """Numbers in order, then names."""
        stems = sorted(path.stem for path in (self._folder.path / self._below).glob("*.parquet"))
        return iter([int(stem) if stem.isdecimal() else stem for stem in stems])

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def drop_damaged(self) -> int:
        """Forget those that cannot be read; returns how many."""
        damaged = 0
        for key in list(self):
            try:
                self[key]
            except InputError:
                del self[key]
                damaged += 1
        return damaged

    def clear(self) -> None:
        """Forget them, once the step's tables are written."""
        below = self._folder.path / self._below
        shutil.rmtree(below, ignore_errors=True)
        if below.parent.is_dir() and not any(below.parent.iterdir()):
            below.parent.rmdir()
