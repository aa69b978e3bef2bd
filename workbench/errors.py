"""The one exception that means "what the user gave is wrong", and how its line is written."""

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pydantic import ValidationError
    from pydantic_core import ErrorDetails


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


_REASONS = {
    "extra_forbidden": "unknown key",
    "missing": "key is missing",
    "too_short": "too few: needs at least {min_length}, got {actual_length}",
    "too_long": "too many: takes at most {max_length}, got {actual_length}",
}


def explain(error: "ValidationError", depth: int | None = None, *, private: bool = False) -> str:
    """The first thing a pydantic model refused, with its place, and how many more there are.

    What lies deeper than `depth` in one value counts once. Of a private value, as those of prompts
    are, only type and size are shown.
    """
    details = error.errors(include_url=False)
    more = len({detail["loc"][:depth] for detail in details}) - 1
    return _explain_one(details[0], private) + (f" (and {more} more)" if more else "")


def _explain_one(detail: "ErrorDetails", private: bool) -> str:
    own = detail.get("ctx", {}).get("error")
    if isinstance(own, InputError):  # raised by a check of ours, which says the place itself
        return str(own)
    path = json_path(detail["loc"])
    if detail["type"] in _REASONS:
        reason = _REASONS[detail["type"]].format(**detail.get("ctx", {}))
    else:
        message = detail["msg"]
        reason = f"{message[0].lower()}{message[1:]}, got {shorten(detail['input'], private)}"
    return " ".join(f"{path}: {reason}".removeprefix(": ").split())


def json_path(location: tuple[int | str, ...]) -> str:
    """A pydantic location as written in most languages, e.g. `options[2].span[0]`."""
    # "[key]" is pydantic's mark for "the key itself", not part of the path.
    steps = (f"[{x}]" if isinstance(x, int) else f".{_key(x)}" for x in location if x != "[key]")
    return "".join(steps).removeprefix(".")


def _key(name: str) -> str:
    """A key as it is, unless it is so long that it is none."""
    return name if len(name) <= 2 * LONGEST_SHOWN else f"(a key of {len(name)} characters)"


LONGEST_SHOWN = 24


def shorten(value: object, private: bool = False) -> str:
    """A value as a message shows it: numbers and words, of anything longer only its size.

    Messages end up in logs, where the text of a prompt must not go: of a private value no word
    and no number is shown.
    """
    if isinstance(value, str) and (private or len(value) > LONGEST_SHOWN):
        return f"a text of {len(value)} characters"
    if isinstance(value, Mapping):
        return f"an object of {len(value)} keys"
    if isinstance(value, Sequence) and not isinstance(value, str):
        return f"a list of {len(value)}"
    return type(value).__name__ if private and value is not None else repr(value)


def first_line(error: BaseException) -> str:
    """The gist of an exception in one line: its first line, and the next when that ends in ":"."""
    if isinstance(error, KeyError):  # whose text is the key alone
        return f"there is no {error}"
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if not lines:
        return type(error).__name__
    return " ".join(lines[:2]) if lines[0].endswith(":") else lines[0]
