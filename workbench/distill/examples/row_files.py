"""Files of rows, JSON lines of text, that a task's prompts and chains make.

Beside `rows/0.jsonl` stands its record, `rows/0.made.json`: how it was made, and how far it is. A
file that was not finished is gone on with. Many machines can share the work: each writes a part, a
file of its own, and the folder that holds all parts stands for the whole.
"""

import json
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from workbench.distill.config import plain
from workbench.distill.examples.parts import numbers_of_part
from workbench.distill.examples.task_rows import question, ruled_reply, task_row
from workbench.errors import InputError
from workbench.files import alone, parse_json, read_text, reading, write_text, writing
from workbench.progress import Advance
from workbench.prompts.drawn import DrawnPrompt
from workbench.prompts.task import Task

SCHEMA = "workbench rows 1"
BLOCK = 256
"""Draws between two looks at the file, by the rule."""

Writer = Callable[[Sequence[str], Sequence[str]], list[str]]
"""Prompts, and the replies that the task's rule would give → what is written behind the prompts."""


@dataclass(frozen=True)
class Draws:
    """Which draws a file is made of.

    Attributes:
        n: draws of the whole, right and wrong.
        seed: draw i depends on this and i.
        part: which of how many equal parts of the draws, from 0.

    Raises:
        InputError: a part that is not there.
    """

    n: int
    seed: int = 0
    part: tuple[int, int] = (0, 1)

    def __post_init__(self) -> None:
        numbers_of_part(self.n, self.part)

    @property
    def numbers(self) -> range:
        """Of the draws of this part."""
        return numbers_of_part(self.n, self.part)


class _Made(BaseModel):
    """The record beside a file."""

    model_config = ConfigDict(strict=True, extra="forbid")

    schema_: Literal["workbench rows 1"]
    n: int
    part: list[int]
    settings: dict[str, Any]
    done: int
    kept: int
    n_bytes: int


def record_path(path: Path) -> Path:
    """The record of a file of rows."""
    return path.with_name(f"{path.stem}.made.json")


def write_rows(
    path: Path,
    rows: Callable[[Sequence[int]], Sequence[Mapping[str, Any] | None]],
    draws: Draws,
    settings: Mapping[str, Any],
    *,
    block: int = BLOCK,
    private: bool = False,
    progress: Advance | None = None,
) -> int:
    """Write the rows of some draws to a file; goes on with one that was begun.

    Args:
        path: the file (`.jsonl`).
        rows: a row for each of these draws; None where there is none.
        draws: which.
        settings: what else decides the rows, as JSON.
        block: draws that are made together.
        private: whether no one else may read the file.
        progress: called with draws done and all draws.

    Returns:
        how many rows the file holds.

    Raises:
        InputError: the file is of other settings or of no record, or another process is writing it.
    """
    if path.suffix != ".jsonl":
        raise InputError(f"{path}: a file of rows is named .jsonl")
    head = {"n": draws.n, "part": list(draws.part)}
    head["settings"] = plain({**settings, "seed": draws.seed})
    busy = f"{path}: another process is writing rows to it"
    with alone(path.with_name(f".{path.name}.lock"), busy):
        done, kept = _continue(path, head, private)
        numbers = draws.numbers
        with writing(path), path.open("ab") as file:
            for start in range(done, len(numbers), block):
                some = numbers[start : start + block]
                found = [row for row in rows(some) if row is not None]
                for row in found:
                    file.write(json.dumps(row, separators=(",", ":")).encode() + b"\n")
                file.flush()
                kept += len(found)
                done = some.stop - numbers.start
                _note(path, head, done, kept, file.tell(), private)
                if progress:
                    progress(done, len(numbers))
    return kept


def _note(
    path: Path, head: Mapping[str, Any], done: int, kept: int, n_bytes: int, private: bool
) -> None:
    record = {"schema": SCHEMA, **head, "done": done, "kept": kept, "n_bytes": n_bytes}
    write_text(record_path(path), json.dumps(record, indent=1), private=private)


def _continue(path: Path, head: Mapping[str, Any], private: bool) -> tuple[int, int]:
    """Draws and rows that are there; what was written behind the last record is cut off."""
    if not record_path(path).is_file():
        if path.exists() and path.stat().st_size:
            raise InputError(
                f"{path}: is there and no record says how it was made; give another file"
            )
        write_text(path, "", private=private)
        _note(path, head, 0, 0, 0, private)
        return 0, 0
    made = _record(path)
    there = {"n": made.n, "part": made.part, **made.settings}
    asked = {"n": head["n"], "part": head["part"], **head["settings"]}
    different = sorted(name for name in {**there, **asked} if there.get(name) != asked.get(name))
    if different:
        raise InputError(
            f"{path}: holds rows made with other settings ({', '.join(different)}); give another "
            "file"
        )
    _check_length(path, made)
    with writing(path), path.open("r+b") as file:
        file.truncate(made.n_bytes)
    return made.done, made.kept


def _record(path: Path) -> _Made:
    beside = record_path(path)
    try:
        found = parse_json(read_text(beside))
        if isinstance(found, dict) and "schema" in found:
            found["schema_"] = found.pop("schema")
        made = _Made.model_validate(found)
        Draws(made.n, part=(made.part[0], made.part[1]))
    except (ValidationError, InputError, IndexError):
        raise InputError(f"{beside}: is no record of rows ({SCHEMA!r})") from None
    return made


def _check_length(path: Path, made: _Made) -> None:
    with reading(path):
        length = path.stat().st_size
    if length < made.n_bytes:
        raise InputError(
            f"{path}: has {length:,} bytes, its record says {made.n_bytes:,}; delete both, and the "
            "command that made them makes them again"
        )


def row_files(source: str | Path) -> list[Path]:
    """The files of rows that a path stands for: itself, or those of a folder, in order.

    Files with a record must be finished, and those of a folder must be all parts of one whole; so a
    folder has records for all of its files or for none.

    Raises:
        InputError: no file, one that is unfinished, a part that is missing or of another whole.
    """
    source = Path(source)
    if not source.is_dir():
        if record_path(source).is_file():
            _finished(source)
        return [source]
    files = sorted(source.glob("*.jsonl"))
    if not files:
        raise InputError(f"{source}: holds no file of rows (*.jsonl)")
    recorded = [path for path in files if record_path(path).is_file()]
    if not recorded:
        return files
    parts: dict[int, Path] = {}
    first: tuple[Any, ...] | None = None
    for path in files:
        if path not in recorded:
            raise InputError(f"{path}: no record says how it was made, as of others in its folder")
        made = _finished(path)
        whole = (made.n, made.part[1], made.settings)
        first = first or whole
        if made.part[0] in parts or whole != first:
            raise InputError(
                f"{path}: is no further part of the rows in {recorded[0].name}; keep the parts of "
                "one whole in a folder of their own"
            )
        parts[made.part[0]] = path
    assert first is not None
    missing = sorted(set(range(first[1])) - set(parts))
    if missing:
        raise InputError(f"{source}: part {missing[0]} of {first[1]} is missing")
    return [parts[which] for which in sorted(parts)]


def _finished(path: Path) -> _Made:
    made = _record(path)
    wanted = len(Draws(made.n, part=(made.part[0], made.part[1])).numbers)
    if made.done < wanted:
        raise InputError(
            f"{path}: is unfinished, {made.done:,} of {wanted:,} draws; the command that began it "
            "goes on with it"
        )
    _check_length(path, made)
    return made


def drawn_rows(
    task: Task, seed: int, write: Writer | None = None
) -> Callable[[Sequence[int]], list[dict[str, Any] | None]]:
    """Makes the rows of some draws: by the task's rule, or written by a model and kept if right."""

    def rows(numbers: Sequence[int]) -> list[dict[str, Any] | None]:
        prompts = [_drawn(task, seed, number) for number in numbers]
        replies = [ruled_reply(task, prompt) for prompt in prompts]
        if write is not None:
            replies = write([question(task, prompt) for prompt in prompts], replies)
        pairs: Iterator[tuple[DrawnPrompt, str]] = zip(prompts, replies, strict=True)
        return [task_row(task, prompt, reply) for prompt, reply in pairs]

    return rows


def _drawn(task: Task, seed: int, number: int) -> DrawnPrompt:
    return task.draw(str(number), random.Random(f"{seed}:row:{number}"))
