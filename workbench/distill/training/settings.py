"""Folders that hold the results of one set of settings, and go on only with the same."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from workbench.errors import InputError
from workbench.files import write_text


def claim(folder: Path, file: Path, asked: Mapping[str, Any], what: str) -> None:
    """Write the settings to `file`, or compare them with those that are there.

    Args:
        folder: as the message names it.
        file: in or below the folder.
        asked: all that decides the results, as JSON holds it.
        what: the folder's contents, in the message: "a distillation".

    Raises:
        InputError: the folder was begun with other settings; names them.
    """
    if not file.is_file():
        write_text(file, json.dumps(asked, indent=1))
        return
    different = differences(json.loads(file.read_text(encoding="utf-8")), asked)
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
