"""The teacher's own chains: written freely, kept where the answer is right.

A trace file holds JSON lines of token ids and positions, no text: a first line that says how it was
made, then for each draw either the example or only its number. A file that was not finished is
continued; the same file comes out. Many machines can share the work: each writes one part, a file
of its own, and the folder that holds all parts stands for the whole.
"""

import json
import random
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from hashlib import sha256
from itertools import islice
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from workbench.distill.config import plain
from workbench.distill.examples.parts import numbers_of_part
from workbench.distill.examples.questions import Example, Question, draw_question, traced_example
from workbench.distill.examples.stream import check_context
from workbench.errors import InputError
from workbench.files import alone, parse_json, reading, write_text, writing
from workbench.models.greedy import greedy_tokens
from workbench.progress import Advance
from workbench.prompts.task import Task
from workbench.prompts.templates import PlainTemplate
from workbench.prompts.word_encoder import Encoder

SCHEMA = "workbench.traces/1"


class _Head(BaseModel):
    """What is needed of the first line; the other settings are only compared."""

    model_config = ConfigDict(strict=True)

    schema_: Literal["workbench.traces/1"] = Field(alias="schema")
    teacher: str
    n: int = Field(ge=0)
    part: list[int] = Field(min_length=2, max_length=2)


class _Draw(BaseModel):
    """A further line: the number of a draw, and the example where the teacher was right."""

    model_config = ConfigDict(strict=True, extra="forbid")

    draw: int
    question: Question | None = None
    target: tuple[int, ...] | None = None
    decisions: tuple[int, ...] | None = None

    @model_validator(mode="after")
    def _whole(self) -> "_Draw":
        if len({part is None for part in (self.question, self.target, self.decisions)}) > 1:
            raise ValueError("half an example")
        return self

    def example(self) -> Example | None:
        """None where the teacher was wrong."""
        if self.question is None or self.target is None or self.decisions is None:
            return None
        return Example(self.question, self.target, self.decisions)


@dataclass(frozen=True)
class TraceConfig:
    """How traces are drawn.

    Attributes:
        n: draws; right ones are kept.
        seed: of the prompts.
        ramp: over this first share of the draws, mentions go from written out to the task's
            shorthand.
        same_size: so many draws in a row have equally many candidates.
        context: longer examples are left out.
        max_new_tokens: of a chain and its answer.
        part: which of how many equal parts of the draws, from 0.

    Raises:
        InputError: a part that is not there.
    """

    n: int
    seed: int = 0
    ramp: float = 0.0
    same_size: int = 128
    context: int = 512
    max_new_tokens: int = 256
    part: tuple[int, int] = (0, 1)

    def __post_init__(self) -> None:
        numbers_of_part(self.n, self.part)

    @property
    def draws(self) -> range:
        """Numbers of the draws of this part."""
        return numbers_of_part(self.n, self.part)


def write_traces(
    path: Path,
    model: Any,
    task: Task,
    encode: Encoder,
    config: TraceConfig,
    *,
    teacher: str,
    batch_size: int = 128,
    progress: Advance | None = None,
) -> int:
    """Let a model write chains for prompts of a task, greedily; continues a file begun before.

    Args:
        path: the trace file.
        model: a Hugging Face causal language model.
        task: what prompts are drawn from.
        encode: its tokenizer.
        config: how many, and of what kind.
        teacher: says whose traces these are, for example the hash of its weights.
        batch_size: chains written together.
        progress: called with draws done and all draws.

    Returns:
        how many traces the file holds.

    Raises:
        InputError: the file is of another teacher or configuration, no trace file, or another
            process is writing it; or no question is shorter than the context.
    """
    head = {"schema": SCHEMA, "teacher": teacher, **plain(task.settings() | asdict(config))}
    draws = config.draws
    check_context(task, encode, config.context)
    with _alone(path):
        done, kept = _continue(path, head)
        with writing(path), path.open("a", encoding="utf-8") as file:
            for start in range(done, len(draws), batch_size):
                numbers = draws[start : start + batch_size]
                questions = [_question(task, encode, config, number) for number in numbers]
                examples = _written(model, questions, encode, config)
                for number, example in zip(numbers, examples, strict=True):
                    record = {} if example is None else example.to_json()
                    file.write(json.dumps({"draw": number, **record}, separators=(",", ":")) + "\n")
                    kept += example is not None
                file.flush()
                if progress:
                    progress(numbers.stop - draws.start, len(draws))
    return kept


def read_traces(
    path: Path, teacher: str | None = None, n_tokens: int | None = None
) -> list[Example]:
    """The examples of a trace file, or of a folder with all parts of one, in order.

    Args:
        path: the file or folder.
        teacher: whose traces they must be, as `write_traces` was told; None for anyone's.
        n_tokens: token ids that there are; None for any.

    Raises:
        InputError: no trace file, one that is damaged, unfinished, of another teacher or without
            examples, a folder whose parts do not make one whole, or a token that is none.
    """
    examples = [example for file in _parts(path) for example in _read(file, teacher)]
    if not examples:
        raise InputError(
            f"{path}: holds no trace; the teacher answered nothing rightly that fits the context"
        )
    if n_tokens is not None:
        check_tokens(path, examples, n_tokens)
    return examples


def check_tokens(path: Path, examples: Sequence[Example], n_tokens: int) -> None:
    """Refuse traces with a token that models of so many do not read.

    Raises:
        InputError: names it.
    """
    least = min(min(example.tokens) for example in examples)
    most = max(max(example.tokens) for example in examples)
    if least < 0 or most >= n_tokens:
        raise InputError(
            f"{path}: holds token {most if least >= 0 else least}, teacher and student have ids 0 "
            f"to {n_tokens - 1}"
        )


def count_draws(path: Path) -> int:
    """Draws, right and wrong, of a trace file, or of a folder with all parts of one.

    Raises:
        InputError: as `read_traces`.
    """
    first = _parts(path)[0]
    return int(_check_head(first, _lines(first, 1))["n"])


def fingerprint(examples: Sequence[Example]) -> str:
    """Hash of what students read of traces; whole or in parts, a file has the same."""
    text = json.dumps([example.to_json() for example in examples], separators=(",", ":"))
    return sha256(text.encode()).hexdigest()


def _read(path: Path, teacher: str | None) -> list[Example]:
    lines = _lines(path)
    head = _check_head(path, lines[:1])
    if teacher is not None and head["teacher"] != teacher:
        raise InputError(f"{path}: holds traces of another teacher, not of the one given")
    draws = _draws(path, lines, head)
    if len(draws) < len(wanted := _wanted(head)):
        raise InputError(
            f"{path}: is unfinished, {len(draws)} of {len(wanted)} draws; the command that began "
            "it goes on with it"
        )
    return [example for example in draws if example is not None]


def _wanted(head: Mapping[str, Any]) -> range:
    return TraceConfig(n=head["n"], part=tuple(head["part"])).draws


def _draws(path: Path, lines: Sequence[str], head: Mapping[str, Any]) -> list[Example | None]:
    """The draws of a file, whose lines count them without a gap."""
    numbers, draws = _wanted(head), []
    for line, text in enumerate(lines[1:], start=2):
        mend = f"cut the file before line {line}, and the command that began it goes on there"
        try:
            record = _Draw.model_validate_json(text)
        except ValidationError:
            raise InputError(f"{path}: line {line} is no trace; {mend}") from None
        if len(draws) == len(numbers):
            raise InputError(f"{path}: line {line} is one more than its {len(numbers)} draws")
        if record.draw != numbers[len(draws)]:
            raise InputError(
                f"{path}: line {line} is draw {record.draw}, must be {numbers[len(draws)]}: a line "
                f"is missing, doubled or of another file; {mend}"
            )
        example = record.example()
        if example is not None and not example.fits():
            raise InputError(f"{path}: line {line} is no whole trace; {mend}")
        draws.append(example)
    return draws


def _parts(folder: Path) -> list[Path]:
    """A file itself; of a folder the files of all its parts, in order and alike."""
    if not folder.is_dir():
        return [folder]
    found: dict[int, Path] = {}
    settings: list[dict[str, Any]] = []
    for path in sorted(folder.glob("*.jsonl")):
        head = _check_head(path, _lines(path, 1))
        which, parts = head.pop("part")
        settings.append({**head, "parts": parts})
        if which in found or settings[0] != settings[-1]:
            raise InputError(
                f"{path}: is no further part of the traces in {found[min(found)].name}; keep the "
                "parts of one whole in a folder of their own"
            )
        found[which] = path
    if not found:
        raise InputError(f"{folder}: holds no trace file (*.jsonl)")
    missing = sorted(set(range(settings[0]["parts"])) - set(found))
    if missing:
        raise InputError(f"{folder}: part {missing[0]} of {settings[0]['parts']} is missing")
    return [found[which] for which in sorted(found)]


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    """The only writer of a file, whose folder is made."""
    if path.is_dir():
        raise InputError(f"{path}: is a folder; give a file for the traces")
    busy = f"{path}: another process is writing traces to it"
    with alone(path.with_name(f".{path.name}.lock"), busy):
        yield


def _continue(path: Path, head: dict[str, Any]) -> tuple[int, int]:
    """Draws and traces that are there; a last line that was cut off is removed."""
    lines = _lines(path) if path.exists() else []
    if not lines:
        write_text(path, json.dumps(head) + "\n", private=True)
        return 0, 0
    there = _check_head(path, lines[:1])
    different = sorted(name for name, value in head.items() if there.get(name) != value)
    if different:
        raise InputError(
            f"{path}: holds traces made with other settings ({', '.join(different)}); move "
            "it away, give another file, or train on it as it is with --traces"
        )
    if not lines[-1].endswith("\n"):
        lines = lines[:-1] or [json.dumps(head) + "\n"]
        write_text(path, "".join(lines), private=True)
    draws = _draws(path, lines, there)
    return len(draws), sum(example is not None for example in draws)


def _lines(path: Path, most: int | None = None) -> list[str]:
    """With their ends, of which the last lacks its own where writing was cut off."""
    try:
        with reading(path), path.open(encoding="utf-8-sig", newline="\n") as file:
            return list(islice(file, most))
    except UnicodeDecodeError:
        raise InputError(f"{path}: is no trace file ({SCHEMA!r})") from None


def _check_head(path: Path, lines: Sequence[str]) -> dict[str, Any]:
    try:
        head = parse_json(lines[0]) if lines else None
        _Head.model_validate(head)
        assert isinstance(head, dict)
        _wanted(head)
    except (InputError, ValidationError):
        raise InputError(f"{path}: is no trace file ({SCHEMA!r})") from None
    return head


def _question(task: Task, encode: Encoder, config: TraceConfig, number: int) -> Question:
    rng = random.Random(f"{config.seed}:trace:{number}")
    sizes = random.Random(f"{config.seed}:trace sizes:{number // config.same_size}")
    ramp = config.ramp * config.n
    return draw_question(task, encode, rng, sizes, number / ramp if number < ramp else 1.0)


def _written(
    model: Any, questions: Sequence[Question], encode: Encoder, config: TraceConfig
) -> list[Example | None]:
    opening = encode(PlainTemplate.reason_cue)
    written = greedy_tokens(
        model,
        [[*question.ids, *opening] for question in questions],
        max_new_tokens=config.max_new_tokens,
        end=encode.end,
        batch_size=len(questions),
    )
    examples = []
    for question, tokens in zip(questions, written, strict=True):
        # One that was cut off may end in a right answer by chance; it has no end of its own.
        ended = len(tokens) < config.max_new_tokens
        example = traced_example(question, tokens, encode) if ended else None
        if example and len(question.ids) + len(example.target) >= config.context:
            example = None
        examples.append(example)
    return examples
