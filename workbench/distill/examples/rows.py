"""Rows of one's own training data: prompt, chain and answer as text, with spans in characters."""

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import pandas as pd
from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag, ValidationError

from workbench.distill.examples.row_files import row_files
from workbench.errors import InputError, explain
from workbench.files import parse_json, read_text
from workbench.prompts.templates import CharSpan


def _kind(value: Any) -> str:
    """Which kind of a union is meant, so that a message is about that one alone."""
    return "text" if isinstance(value, str) else "list"


def _kind_or_part(value: Any) -> str:
    return "part" if isinstance(value, Mapping) else _kind(value)


Place = Annotated[
    Annotated[CharSpan, Tag("list")] | Annotated[str, Tag("text")], Discriminator(_kind)
]
"""Characters, first and end; or the words themselves, where they occur once."""


class _Strict(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)


class Message(_Strict):
    """A turn of a chat."""

    role: str
    content: str


Prompt = Annotated[
    Annotated[str, Field(min_length=1), Tag("text")]
    | Annotated[tuple[Message, ...], Field(min_length=1), Tag("list")],
    Discriminator(_kind),
]


class Offered(_Strict):
    """An option of the prompt: where it stands, and the text that answers with it."""

    span: Place
    label: str | None = Field(default=None, min_length=1)


class Weighed(_Strict):
    """A part of the chain, and the decision that it is about, from 0; None where not known."""

    span: Place
    decision: int | None = Field(default=None, ge=0)


class Settled(Weighed):
    """A part that weighs candidates, and the option that it speaks of; None for the right one."""

    option: int | None = Field(default=None, ge=0)


PlaceOrPart = Annotated[
    Annotated[CharSpan, Tag("list")]
    | Annotated[str, Tag("text")]
    | Annotated[Weighed, Tag("part")],
    Discriminator(_kind_or_part),
]
PlaceOrSettled = Annotated[
    Annotated[CharSpan, Tag("list")]
    | Annotated[str, Tag("text")]
    | Annotated[Settled, Tag("part")],
    Discriminator(_kind_or_part),
]


class Named(_Strict):
    """A place that names labels which a decision is about."""

    span: Place
    decision: int = Field(ge=0)


class NearNamed(Named):
    """A place that names a near miss, in the chain or in the prompt."""

    where: Literal["chain", "prompt"] = Field(default="chain", alias="in")


class Row(_Strict):
    """One example; see `chats.examples_from_chats`."""

    id: str | int | None = None
    prompt: Prompt
    chain: str = ""
    answer: str | None = Field(default=None, min_length=1)
    labels: tuple[str, ...] | None = Field(default=None, min_length=1)
    options: tuple[Offered, ...] | None = Field(default=None, min_length=1)
    evidence: tuple[Place | None, ...] | None = None
    decisions: tuple[Place, ...] | None = Field(default=None, min_length=1)
    early: tuple[PlaceOrPart, ...] | None = None
    late: tuple[PlaceOrSettled, ...] | None = None
    shortlist: tuple[Named, ...] | None = None
    near: tuple[NearNamed, ...] | None = None
    gold: tuple[int | None, ...] | None = None
    near_options: tuple[tuple[int, ...], ...] | None = None


class Line(NamedTuple):
    """A row as the text that a file has, and what messages call it."""

    place: str
    text: str


Rows = str | Path | pd.DataFrame | Iterable[Mapping[str, Any] | Line]


def row_lines(source: str | Path) -> Iterator[Line]:
    """Lines of the files of rows that a path stands for; each file is read when it comes.

    Raises:
        InputError: as `row_files`, or a file that cannot be read.
    """
    for path in row_files(source):
        for number, line in enumerate(read_text(path).split("\n"), start=1):
            if line.strip():
                yield Line(f"{path}: line {number}", line)


def read_rows(rows: Rows) -> Iterator[tuple[str, Row]]:
    """Each row, and what messages call it: the line of its file, or its number from 0.

    Raises:
        InputError: no rows, a file that cannot be read, an unknown key or a bad value.
    """
    n = 0
    for place, given in _each(rows):
        n += 1
        try:
            text = given if isinstance(given, str) else json.dumps(_filled(given), default=_plain)
            parse_json(text)  # refuses what pydantic takes: a key twice, NaN
            yield place, Row.model_validate_json(text)
        except ValidationError as error:
            raise InputError(f"{place}: {explain(error, 1, private=True)}") from None
        except InputError as error:
            raise InputError(f"{place}: {error}") from None
        except (TypeError, ValueError):
            raise InputError(f"{place}: holds something that is no text, number or list") from None
    if not n:
        named = f"{rows}: " if isinstance(rows, str | Path) else ""
        raise InputError(f"{named}there are no rows")


def _each(rows: Rows) -> Iterator[tuple[str, Any]]:
    if isinstance(rows, str | Path):
        yield from row_lines(rows)
        return
    each: Iterable[Any] = rows.to_dict("records") if isinstance(rows, pd.DataFrame) else rows
    for number, row in enumerate(each):
        if isinstance(row, Line):
            yield row
            continue
        if not isinstance(row, Mapping):
            raise InputError(f"rows[{number}] is {type(row).__name__}, must be a mapping")
        yield f"rows[{number}]", row


def _filled(row: Mapping[Any, Any]) -> dict[str, Any]:
    """Without the empty cells that a table has where a row lacks a key."""
    return {
        str(key): value
        for key, value in row.items()
        if value is not None and not (isinstance(value, float) and value != value)
    }


def _plain(value: Any) -> Any:
    """What numpy and pandas make of lists and numbers."""
    if hasattr(value, "tolist"):
        return value.tolist()
    raise TypeError
