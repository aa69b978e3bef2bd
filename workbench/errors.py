"""The one exception that means "what the user gave is wrong"."""

from collections.abc import Iterable
from typing import Any


class InputError(ValueError):
    """Bad input from outside: one line that says what is wrong, where, and what would be right.

    The command line prints it and exits with code 2; every other exception is a bug and keeps its
    traceback.
    """


def require(table: Any, name: str, columns: Iterable[str]) -> None:
    """Check that a data frame has these columns.

    Raises:
        InputError: some are missing; the message names them and the table.
    """
    missing = [column for column in columns if column not in table]
    if missing:
        raise InputError(f"{name} table lacks column {', '.join(map(repr, missing))}")
