"""The packages of the extras, which only some forms of models and embeddings need."""

from importlib import import_module
from pathlib import Path
from typing import Any

from workbench.errors import InputError, first_line


def extra_package(name: str, wanted_for: Path | str, extra: str = "pretrained") -> Any:
    """The package `name` of an extra, imported when it is needed.

    Raises:
        InputError: it is not installed, or cannot be imported beside what is installed.
    """
    try:
        return import_module(name)
    except ImportError as error:
        raise InputError(
            f"{wanted_for} needs the {name} package: pip install "
            f"'mechanistic-workbench[{extra}]' ({first_line(error)})"
        ) from error
