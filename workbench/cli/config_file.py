"""Flags from a YAML file, and arguments of the Trainer."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

TRAINER = "trainer"
"""The key whose value is a mapping of its own."""


def read_flags(ctx: Any, path: Path | None) -> Path | None:
    """Callback of `--config`: what the file says is the default of every flag.

    Keys are the flags without dashes before them; `trainer` holds arguments by name.

    Raises:
        InputError: the file cannot be read, is no mapping, or has a key that is no flag.
    """
    from workbench.errors import InputError

    if path is None:
        return None
    flags = {one.name for one in ctx.command.params if one.name is not None} - {"config"}
    found: dict[str, Any] = {}
    for key, value in _content(path).items():
        name = str(key).replace("-", "_")
        if name not in flags:
            raise InputError(
                f"{path}: unknown key {str(key)[:40]!r}; keys are the flags, as batch-size"
            )
        if isinstance(value, Mapping | list) and name != TRAINER:
            raise InputError(f"{path}: {key} is a list or mapping, must be one value")
        found[name] = value
    found.pop(TRAINER, None)
    ctx.default_map = {**(ctx.default_map or {}), **found}
    return path


def trainer_flags(path: Path | None, given: Sequence[str]) -> dict[str, Any]:
    """Arguments of the Trainer: those of the file, replaced by those of `--trainer KEY=VALUE`.

    Raises:
        InputError: one that is not KEY=VALUE, or no mapping in the file.
    """
    from workbench.errors import InputError

    found = {} if path is None else (_content(path).get(TRAINER) or {})
    if not isinstance(found, Mapping):
        raise InputError(f"{path}: {TRAINER} must be a mapping of arguments")
    found = {
        # YAML reads the word no as false.
        str(key): "no" if value is False and str(key).endswith("_strategy") else value
        for key, value in found.items()
    }
    for one in given:
        key, equals, text = one.partition("=")
        if not (key and equals):
            raise InputError(f"--trainer {one[:40]}: give KEY=VALUE, as max_grad_norm=0.5")
        found[key.strip().replace("-", "_")] = _value(text.strip())
    return found


def _value(text: str) -> Any:
    """A number, true, false, null, a list or an object as JSON has them; else the text."""
    try:
        return json.loads(text.lower() if text in ("True", "False") else text)
    except ValueError:
        return text


def _content(path: Path) -> Mapping[Any, Any]:
    from workbench.errors import InputError
    from workbench.files import read_yaml

    content = read_yaml(path)
    if not isinstance(content, Mapping):
        raise InputError(f"{path}: must be a mapping of flags to values")
    return content
