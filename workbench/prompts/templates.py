"""Templates: how a coding prompt becomes text, with the place of every mention and option in it.

A template gives the text up to the answer cue; the letters of earlier answers follow it, so that
the last character before a decision is the cue's or an answer letter's. Every span starts at the
space before its first word, since byte-level tokenizers put that space into the word's token.
"""

import string
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from workbench.errors import InputError
from workbench.labels.space import LabelSpace
from workbench.prompts.tasks import CodingPrompt

CharSpan = tuple[int, int]


@dataclass(frozen=True)
class RenderedPrompt:
    """Text of a prompt up to its answer cue, with half-open character spans.

    Attributes:
        text: ends with the answer cue.
        mentions: span of each mention.
        options: span of each candidate's description, in the order shown.
    """

    text: str
    mentions: tuple[CharSpan, ...]
    options: tuple[CharSpan, ...]


@runtime_checkable
class Template(Protocol):
    """What a prompt looks like to a model."""

    name: str

    def render(
        self, space: LabelSpace, prompt: CodingPrompt, steps: Sequence[str] = ()
    ) -> RenderedPrompt:
        """Text up to the answer cue, with the given steps of a chain of thought before it."""
        ...


def option_letters(n_options: int) -> list[str]:
    """`A`, `B`, … for the candidates in the order shown.

    Raises:
        InputError: more options than letters.
    """
    if n_options > len(string.ascii_uppercase):
        raise InputError(f"{n_options} options, but only {len(string.ascii_uppercase)} letters")
    return list(string.ascii_uppercase[:n_options])


def letter_of(prompt: CodingPrompt) -> dict[str, str]:
    """The letter of every candidate."""
    return dict(zip(prompt.candidates, option_letters(len(prompt.candidates)), strict=True))


class _Text:
    """Text under construction that knows where its pieces are."""

    def __init__(self) -> None:
        self.text = ""

    def add(self, piece: str) -> CharSpan:
        start = len(self.text)
        self.text += piece
        return start, len(self.text)


def _add_note_and_options(
    text: _Text, space: LabelSpace, prompt: CodingPrompt
) -> tuple[tuple[CharSpan, ...], tuple[CharSpan, ...]]:
    text.add("note:")
    mentions = []
    for number, mention in enumerate(prompt.mentions, start=1):
        text.add(f" {number} .")
        mentions.append(text.add(f" {mention.text}"))
        text.add(" ;")
    text.add("\noptions:")
    options = []
    for label, letter in letter_of(prompt).items():
        text.add("\n")
        options.append(text.add(f" {space[label].text} {letter}"))
    return tuple(mentions), tuple(options)


class PlainTemplate:
    """The template of the bundled model: note, options, optionally a chain, and `answer:`."""

    name = "plain"
    reason_cue = "\nreason:"
    answer_cue = "\nanswer:"

    def render(
        self, space: LabelSpace, prompt: CodingPrompt, steps: Sequence[str] = ()
    ) -> RenderedPrompt:
        """See `Template.render`."""
        text = _Text()
        mentions, options = _add_note_and_options(text, space, prompt)
        if steps:
            text.add(self.reason_cue + "".join(f"\n{step}" for step in steps))
        text.add(self.answer_cue)
        return RenderedPrompt(text.text, mentions, options)


class ChatTemplate:
    """A template for instruction models: the task as a user's turn, in the model's chat format.

    Args:
        tokenizer: a Hugging Face tokenizer that has a chat template.

    Raises:
        InputError: the tokenizer has no chat template, or it alters the text of the turn.
    """

    name = "chat"
    _instruction = (
        "Each numbered mention in the note stands for exactly one of the options. Reply with the "
        "options' letters in order of the mentions, separated by spaces.\n\n"
    )

    def __init__(self, tokenizer: Any) -> None:
        if not getattr(tokenizer, "chat_template", None):
            raise InputError("this tokenizer has no chat template; use --template plain")
        self._tokenizer = tokenizer

    def render(
        self, space: LabelSpace, prompt: CodingPrompt, steps: Sequence[str] = ()
    ) -> RenderedPrompt:
        """See `Template.render`."""
        turn = _Text()
        turn.add(self._instruction)
        mentions, options = _add_note_and_options(turn, space, prompt)
        chat = self._tokenizer.apply_chat_template(
            [{"role": "user", "content": turn.text}], tokenize=False, add_generation_prompt=True
        )
        offset = chat.find(turn.text)
        if offset < 0:
            raise InputError("the chat template alters the user's text, so spans are lost")
        chat += "".join(f"{step.strip()}\n" for step in steps) + "Answer:"
        return RenderedPrompt(chat, _shift(mentions, offset), _shift(options, offset))


def _shift(spans: tuple[CharSpan, ...], offset: int) -> tuple[CharSpan, ...]:
    return tuple((start + offset, end + offset) for start, end in spans)
