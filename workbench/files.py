"""Files that users hand in and get: a refusal in one line, and writing whole or not at all."""

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from pydantic import ValidationError
from pydantic_core import ErrorDetails

_REASONS = {"extra_forbidden": "unknown key", "missing": "key is missing"}


def explain(error: ValidationError) -> str:
    """The first thing a pydantic model refused, with its place, and how many more there are."""
    details = error.errors(include_url=False)
    more = f" (and {len(details) - 1} more)" if len(details) > 1 else ""
    return _explain_one(details[0]) + more


def _explain_one(detail: ErrorDetails) -> str:
    path = json_path(detail["loc"])
    reason = _REASONS.get(detail["type"])
    if reason is None:
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
    """Write beside the target and move into place: a reader never sees half a file."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        beside.write_text(text, encoding="utf-8", newline="\n")
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A path to write to, which then takes the place of `path`; on an error nothing changes."""
    beside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield beside
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)
