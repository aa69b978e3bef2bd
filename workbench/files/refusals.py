"""What the system says when it refuses, in one line."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from workbench.errors import InputError


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
