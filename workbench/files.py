"""What users hand in and get: settings and files refused in one line, and writing whole or not."""

import dataclasses
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from typing import Any, TypeVar, dataclass_transform

import pydantic.dataclasses
from pydantic import ValidationError
from pydantic_core import ErrorDetails

from workbench.errors import InputError

_Settings = TypeVar("_Settings")


@dataclass_transform(frozen_default=True, field_specifiers=(dataclasses.field,))
def settings(cls: type[_Settings]) -> type[_Settings]:
    """A frozen dataclass whose fields say their range and help text, checked when it is made.

    A field is `name: Annotated[int, Field(ge=1, description="…")] = 3`; what concerns several
    fields is checked in `__post_init__`. Wrong values raise an `InputError`.
    """
    made: Any = pydantic.dataclasses.dataclass(frozen=True, config={"extra": "forbid"})(cls)
    init = made.__init__

    @wraps(init)
    def checked(self: Any, *args: Any, **kwargs: Any) -> None:
        try:
            init(self, *args, **kwargs)
        except ValidationError as error:
            raise InputError(explain(error, depth=1)) from None

    made.__init__ = checked
    return made


_REASONS = {
    "extra_forbidden": "unknown key",
    "missing": "key is missing",
    "too_short": "too few: needs at least {min_length}, got {actual_length}",
    "too_long": "too many: takes at most {max_length}, got {actual_length}",
}


def explain(error: ValidationError, depth: int | None = None) -> str:
    """The first thing a pydantic model refused, with its place, and how many more there are.

    What lies deeper than `depth` in one value counts once.
    """
    details = error.errors(include_url=False)
    more = len({detail["loc"][:depth] for detail in details}) - 1
    return _explain_one(details[0]) + (f" (and {more} more)" if more else "")


def _explain_one(detail: ErrorDetails) -> str:
    own = detail.get("ctx", {}).get("error")
    if isinstance(own, InputError):  # raised by a check of ours, which says the place itself
        return str(own)
    path = json_path(detail["loc"])
    if detail["type"] in _REASONS:
        reason = _REASONS[detail["type"]].format(**detail.get("ctx", {}))
    else:
        message = detail["msg"]
        reason = f"{message[0].lower()}{message[1:]}, got {shorten(detail['input'])}"
    return " ".join(f"{path}: {reason}".removeprefix(": ").split())


def json_path(location: tuple[int | str, ...]) -> str:
    """A pydantic location as written in most languages, e.g. `options[2].span[0]`."""
    # "[key]" is pydantic's mark for "the key itself", not part of the path.
    steps = (
        f"[{step}]" if isinstance(step, int) else f".{step}" for step in location if step != "[key]"
    )
    return "".join(steps).removeprefix(".")


LONGEST_SHOWN = 24


def shorten(value: object) -> str:
    """A value as a message shows it: numbers and words, of anything longer only its size.

    Messages end up in logs, where the text of a prompt must not go.
    """
    if isinstance(value, str) and len(value) > LONGEST_SHOWN:
        return f"a text of {len(value)} characters"
    if isinstance(value, Mapping):
        return f"an object of {len(value)} keys"
    if isinstance(value, Sequence) and not isinstance(value, str):
        return f"a list of {len(value)}"
    return repr(value)


def write_text(path: str | Path, text: str) -> None:
    """Write a UTF-8 text with `replacing`; folders above it are made."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as beside:
        beside.write_text(text, encoding="utf-8", newline="\n")


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A path beside the target to write to, which is then moved into its place.

    A reader never sees half a file; on an error nothing changes.
    """
    beside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield beside
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)


def claim(folder: Path, file: Path, asked: Mapping[str, Any], what: str) -> None:
    """Write the settings to `file`, or compare them with those that are there.

    `asked` is all that decides the results, as JSON holds it; `what` names the folder's contents
    in the message: "a distillation".

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
