"""Prompt files: one decision event a line, as a JSON object, in token ids or in text.

In token ids, with spans half-open and counted in tokens of `clean`:

    {"id": "p0", "event": 0,
     "clean": {"input_ids": [..]}, "far": {"input_ids": [..]}, "near": {"input_ids": [..]},
     "aligned_suffix": 356, "evidence": [2, 9],
     "options": [{"label": "E11.65", "token": 27, "role": "gold", "span": [34, 51]}, ..]}

In text, `{"text": ".."}` stands for `{"input_ids": [..]}`, `"token_text"` for `"token"`, and spans
are counted in characters of `clean`. `aligned_suffix` is in tokens there too; without it, it is as
long as the three variants allow. A model's tokenizer turns such a line into token ids.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Generic, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from workbench.errors import InputError, explain
from workbench.files import parse_json, read_text, write_text
from workbench.prompts.meaning import check_ending, check_meaning
from workbench.prompts.prompt import VARIANTS, DecisionEvent, Option, PromptSet, Role, Span, to_json
from workbench.prompts.text import common_suffix, next_tokens, tokenize

_Pair = Annotated[list[int], Field(min_length=2, max_length=2)]
_Place = Callable[[str, list[int]], Span]


class _Strict(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid")


_V = TypeVar("_V")
_O = TypeVar("_O")


class _Option(_Strict):
    label: str
    role: Role
    span: _Pair
    family: str | None = None


class _Line(_Strict, Generic[_V, _O]):
    id: str
    event: int
    clean: _V
    far: _V
    near: _V
    aligned_suffix: int | None
    evidence: _Pair
    options: list[_O]
    fine_evidence: _Pair | None = None
    family: str | None = None


class _Tokens(_Strict):
    input_ids: list[int]


class _TokenOption(_Option):
    token: int


class _TokenLine(_Line[_Tokens, _TokenOption]):
    aligned_suffix: int


class _Text(_Strict):
    text: str


class _TextOption(_Option):
    token_text: str


class _TextLine(_Line[_Text, _TextOption]):
    aligned_suffix: int | None = None


def read_prompts(
    path: str | Path, tokenizer: Any = None, *, model: Any = None, task: str | None = None
) -> PromptSet:
    """Read a prompt file; blank lines are skipped.

    Args:
        path: the file, UTF-8.
        tokenizer: a Hugging Face tokenizer of the fast kind; only lines in text need it. Events
            keep it, so that they have a text. How it is used, and where a span may start, see
            `workbench.prompts.text`.
        model: a `HookedModel` that is to run the prompts; its tokenizer is taken.
        task: what the prompt set is called; the file's stem unless given.

    Raises:
        InputError: one line, `FILE:LINE: reason`, about the first line that is not right or that
            cannot be meant (`workbench.prompts.meaning`; without a tokenizer only places are
            checked), or about the first prompt that the model cannot run.
    """
    path = Path(path)
    if model is not None:
        tokenizer = model.tokenizer
    events: list[DecisionEvent] = []
    line_of: dict[tuple[str, int], int] = {}
    for number, raw in _lines(path):
        try:
            event = replace(_parse_line(raw, tokenizer), tokenizer=tokenizer)
            earlier = line_of.setdefault((event.id, event.event), number)
            if earlier != number:
                raise InputError(f"the same id and event are on line {earlier}")
            if model is not None:
                _check_event(event, model.info.d_vocab, model.context_length)
            check_meaning(event)
        except InputError as error:
            raise InputError(f"{path}:{number}: {error}") from None
        events.append(event)
    if not events:
        raise InputError(f"{path}: holds no prompts; needs one JSON object a line")
    return PromptSet(path.stem if task is None else task, tuple(events))


def write_prompts(prompts: PromptSet, path: str | Path) -> None:
    """Write a prompt file in token ids, whole or not at all; its hash is `prompts.sha256`."""
    lines = (json.dumps(to_json(event), separators=(",", ":")) + "\n" for event in prompts)
    write_text(path, "".join(lines), private=True)


def check_vocabulary(prompts: PromptSet, d_vocab: int, n_context: int | None = None) -> None:
    """Refuse prompts that a model of this vocabulary and context length cannot run.

    Raises:
        InputError: a token id that the model does not have, or a variant longer than its context;
            names the prompt and the event.
    """
    for event in prompts:
        try:
            _check_event(event, d_vocab, n_context)
        except InputError as error:
            raise InputError(f"prompt {event.id!r} event {event.event}: {error}") from None


def _check_event(event: DecisionEvent, d_vocab: int, n_context: int | None) -> None:
    tokens_of = {f"variant {name!r}": event.variant(name) for name in VARIANTS}
    for name, tokens in tokens_of.items():
        if n_context is not None and len(tokens) > n_context:
            raise InputError(
                f"{name} has {len(tokens)} tokens, the model's context holds {n_context}"
            )
    tokens_of["options"] = tuple(event.option_tokens)
    for name, tokens in tokens_of.items():
        strange = next((token for token in tokens if not 0 <= token < d_vocab), None)
        if strange is not None:
            raise InputError(
                f"token {strange} in {name} is not among the model's, 0 to {d_vocab - 1}"
            )


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """Number and content of every line that is not blank."""
    for number, raw in enumerate(read_text(path).split("\n"), start=1):
        if raw.strip():
            yield number, raw


def _parse_line(raw: str, tokenizer: Any) -> DecisionEvent:
    form = _form(_load_object(raw))
    try:
        line = form.model_validate_json(raw)
    except ValidationError as error:
        raise InputError(explain(error, private=True)) from None
    return _of_text(line, tokenizer) if isinstance(line, _TextLine) else _of_tokens(line)


def _load_object(raw: str) -> dict[str, Any]:
    """The line as a JSON object; finds what pydantic would let pass or place less well."""
    content = parse_json(raw)
    if not isinstance(content, dict):
        raise InputError(f"a JSON object is needed, got {type(content).__name__}")
    return content


def _form(content: dict[str, Any]) -> type[_TokenLine] | type[_TextLine]:
    """The model that fits the keys in use; a line of another shape is left to its refusals."""
    options = content.get("options")
    parts = [content.get(name) for name in VARIANTS]
    parts += options if isinstance(options, list) else []
    keys = {key for part in parts if isinstance(part, dict) for key in part}
    in_text, in_tokens = (sorted(keys & form) for form in _FORM_KEYS)
    if in_text and in_tokens:
        raise InputError(f"mixes text ({in_text[0]!r}) and token ids ({in_tokens[0]!r})")
    return _TextLine if in_text else _TokenLine


_FORM_KEYS = ({"text", "token_text"}, {"input_ids", "token"})


def _event(
    line: _TokenLine | _TextLine, tokens: Sequence[Sequence[int]], suffix: int, place: _Place
) -> DecisionEvent:
    """The event of a line, whose variants and options have these tokens.

    `place` gives the tokens of a span in the line, which is called as in a message.
    """
    clean, far, near, letters = map(tuple, tokens)
    options = tuple(
        Option(each.label, letter, each.role, place(f"options[{at}].span", each.span), each.family)
        for at, (each, letter) in enumerate(zip(line.options, letters, strict=True))
    )
    coarse = place("evidence", line.evidence)
    fine = place("fine_evidence", line.fine_evidence) if line.fine_evidence else None
    try:
        return DecisionEvent(
            *(line.id, line.event, clean, far, near, suffix, coarse, options, fine, line.family)
        )
    except InputError as error:  # the number of the line says which; an id may be a patient's
        start = f"prompt {line.id!r} event {line.event}: "
        raise InputError(str(error).removeprefix(start)) from None


def _of_tokens(line: _TokenLine) -> DecisionEvent:
    rows = [variant.input_ids for variant in (line.clean, line.far, line.near)]
    letters = [option.token for option in line.options]
    return _event(line, [*rows, letters], line.aligned_suffix, lambda _, pair: (pair[0], pair[1]))


def _of_text(line: _TextLine, tokenizer: Any) -> DecisionEvent:
    if tokenizer is None:
        raise InputError("a prompt in text needs the model's tokenizer")
    check_ending(line.clean.text)
    texts = [tokenize(tokenizer, variant.text) for variant in (line.clean, line.far, line.near)]
    rows, suffix = [text.tokens for text in texts], line.aligned_suffix
    if suffix is None:
        suffix = common_suffix(rows)
        if not suffix:
            raise InputError("clean, far and near end in different tokens")
    letters = next_tokens(tokenizer, texts[0].text, [option.token_text for option in line.options])

    def place(name: str, pair: list[int]) -> Span:
        try:
            return texts[0].token_span((pair[0], pair[1]))
        except InputError as error:
            raise InputError(f"{name}: {error}") from None

    return _event(line, [*rows, letters], suffix, place)
