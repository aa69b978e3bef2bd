"""What the command line says of an exception: one line and an exit code.

A bug's trace goes into a file of its own, without values: those may be texts of prompts.
"""

import os
import re
import tempfile
import traceback
from collections.abc import Iterator
from pathlib import Path

from workbench.errors import InputError
from workbench.processes import Gone

BAD_INPUT, BUG, STOPPED = 2, 1, 130
"""Exit codes: what the user can mend, what only we can, Ctrl-C."""

_FULL = ("No space left on device", "PytorchStreamWriter failed writing")
_NO_MEMORY = ("out of memory", "can't allocate memory", "not enough memory")
_QUOTED = re.compile(r"['\"`].*['\"`]", re.DOTALL)


def failure(error: Exception) -> tuple[str, int]:
    """The line and the exit code for an exception that ends a command."""
    said = str(error)
    if isinstance(error, InputError | Gone):
        return f"error: {error}", BAD_INPUT
    if isinstance(error, MemoryError) or any(words in said for words in _NO_MEMORY):
        return (
            "error: out of memory; try --dtype bfloat16, fewer or shorter prompts, a smaller "
            "--batch-size or another --device, where the command has them",
            BAD_INPUT,
        )
    if any(words in said for words in _FULL):
        return f"error: {_named(error)}no space left on the disk", BAD_INPUT
    if isinstance(error, OSError) and error.errno is not None:
        return f"error: {_named(error)}{os.strerror(error.errno)}", BAD_INPUT
    return _bug(error), BUG


def _named(error: Exception) -> str:
    name = getattr(error, "filename", None)
    return f"{name}: " if isinstance(name, str) else ""


def _bug(error: Exception) -> str:
    frames = traceback.extract_tb(error.__traceback__)
    ours = [frame for frame in frames if "workbench" in Path(frame.filename).parts]
    at = (ours or list(frames) or [None])[-1]
    place = "" if at is None else f" in {_module(at.filename)}, line {at.lineno}"
    try:
        descriptor, path = tempfile.mkstemp(prefix="workbench-", suffix=".trace")  # mode 600
        with open(descriptor, "w", encoding="utf-8", errors="replace") as file:  # noqa: PTH123
            file.writelines(_trace(error))
        kept = f"please report it with {path}, which says where and holds no text of prompts"
    except OSError:
        kept = "please report it; its trace could not be written to the temporary folder"
    return f"error: a bug, {type(error).__name__}{place}; {kept}"


def _module(filename: str) -> str:
    parts = Path(filename).parts
    start = len(parts) - 1 - parts[::-1].index("workbench") if "workbench" in parts else -1
    return "/".join(parts[start:])


def _trace(error: BaseException | None) -> Iterator[str]:
    """Frames of an exception and of those it came from; no variable, no quoted value."""
    while error is not None:
        frames = traceback.extract_tb(error.__traceback__)
        yield from frames.format()
        yield f"{type(error).__module__}.{type(error).__qualname__}{_reason(error, frames)}\n\n"
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)


def _reason(error: BaseException, frames: traceback.StackSummary) -> str:
    """What an exception says, where compiled code raised it.

    The message of a Python `raise` stands in the trace as its source, with names for values.
    """
    in_python = bool(frames) and (frames[-1].line or "").startswith("raise")
    if in_python or type(error).__module__.startswith("pydantic"):
        return ""
    return f": {_QUOTED.sub('…', str(error))}"
