"""Where a run lies: a folder that holds one or nothing, and the one process that writes there."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from workbench.errors import InputError
from workbench.files import alone_in, reading
from workbench.processes import Processes
from workbench.runs.manifest import MANIFEST


def is_run(path: Path) -> bool:
    """Whether the folder holds a run."""
    with reading(path):
        return (path / MANIFEST).is_file()


@contextmanager
def hold(path: Path) -> Iterator[None]:
    """Be the only process that writes a run into the folder.

    Of several that a launcher started, the main one is: the others write parts for it.

    Raises:
        InputError: another one does, or something else lies there.
    """
    if not Processes.here().is_main:
        yield
        return
    if not is_run(path):
        check_unused(path)
    with alone_in(path, private=True):
        yield


def check_unused(path: Path) -> None:
    """Refuse a folder in which something else lies.

    Raises:
        InputError: it is a file, or holds files without being a run.
    """
    with reading(path):
        if path.exists() and not path.is_dir():
            raise InputError(f"{path}: is a file; give a new or empty folder for --out")
        names = [item.name for item in path.iterdir()] if path.is_dir() else []
    # Hidden files are leftovers of the system or of an interrupted write.
    if any(not name.startswith(".") for name in names):
        raise InputError(
            f"{path}: holds files but no {MANIFEST}, so it is no run folder; "
            "give a new or empty folder for --out"
        )
