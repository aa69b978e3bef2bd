"""Tables that grow on disk while they are made, so that a stopped command goes on with them."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol, TypeVar, runtime_checkable

import pandas as pd

from workbench.errors import InputError
from workbench.files import reading, write_table
from workbench.progress import Advance


@runtime_checkable
class _Named(Protocol):
    @property
    def id(self) -> str: ...


_Case = TypeVar("_Case", bound=_Named)


def grown(
    path: Path,
    cases: Sequence[_Case],
    rows_of: Callable[[Sequence[_Case]], pd.DataFrame],
    *,
    numbers: Sequence[str] = (),
    at_once: int = 16,
    advance: Advance | None = None,
) -> pd.DataFrame:
    """Rows of all cases in a CSV file, as many of them as are not there yet made now.

    Until all are there, the file is called `NAME.partial.csv`; it is written anew after every
    `at_once` cases.

    Args:
        path: the file; its column `id` names the case of a row.
        cases: what the rows are of, each with its own id.
        rows_of: makes the rows of some cases, one or more of each or none.
        numbers: columns of numbers that may be missing.
        at_once: cases that rows are made of together.
        advance: called with cases done and all cases.

    Raises:
        InputError: a file that is there cannot be read, or one cannot be written.
    """
    partial = path.with_suffix(".partial.csv")
    if path.is_file():
        return _read(path, numbers)
    table = _read(partial, numbers) if partial.is_file() else pd.DataFrame({"id": []}, dtype=str)
    there = set(table["id"])
    parts = [cases[start : start + at_once] for start in range(0, len(cases), at_once)]
    missing = [part for part in parts if not there & {case.id for case in part}]
    done = len(cases) - sum(map(len, missing))
    if advance and done:  # at once, so that the pace is of what is made now
        advance(done, len(cases))
    for part in missing:
        made = rows_of(part)
        table = pd.concat([table, made], ignore_index=True) if len(table) else made
        write_table(partial, table)
        done += len(part)
        if advance:
            advance(done, len(cases))
    write_table(path, table)
    partial.unlink(missing_ok=True)
    return table


def _read(path: Path, numbers: Sequence[str]) -> pd.DataFrame:
    """What was written, to the last bit; an empty text is no missing one."""
    missing: Any = {column: [""] for column in numbers}
    with reading(path):
        try:
            table = pd.read_csv(
                path,
                dtype={"id": str},
                keep_default_na=False,
                na_values=missing,
                float_precision="round_trip",
            )
        except ValueError:
            table = pd.DataFrame()
    if "id" not in table:
        raise InputError(f"{path}: is damaged; delete it to make its rows again")
    return table
