"""The packages of the extra `pretrained`, which only some forms of models need."""

from importlib import import_module
from pathlib import Path
from typing import Any

from workbench.errors import InputError, first_line


def extra_package(name: str, wanted_for: Path | str) -> Any:
    """The package `name`, imported when it is needed.

    Raises:
        InputError: it is not installed, or cannot be imported beside what is installed.
    """
    try:
        return import_module(name)
    except ImportError as error:
        raise InputError(
            f"{wanted_for} needs the {name} package: pip install "
            f"'mechanistic-workbench[pretrained]' ({first_line(error)})"
        ) from error
