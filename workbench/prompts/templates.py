"""Templates: how a drawn prompt becomes text, with the place of every mention and option in it.

A template gives the text up to the answer cue; the letters of earlier answers follow it, so that
the last character before a decision is the cue's or an answer letter's. Every span starts at the
space before its first word, since byte-level tokenizers put that space into the word's token.
"""

from dataclasses import dataclass, replace
from typing import Any, Protocol, runtime_checkable

from workbench.errors import InputError
from workbench.labels.space import LabelSpace
from workbench.prompts.drawn import DrawnPrompt

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

    def render(self, space: LabelSpace, prompt: DrawnPrompt) -> RenderedPrompt:
        """Text up to the answer cue."""
        ...


class PlainTemplate:
    """The template of the bundled model: note, options, `answer:`; `reason:` opens a chain."""

    name = "plain"
    reason_cue = "\nreason:"
    answer_cue = "\nanswer:"

    def render(self, space: LabelSpace, prompt: DrawnPrompt) -> RenderedPrompt:
        """See `Template.render`."""
        shown = _note_and_options(space, prompt)
        return replace(shown, text=shown.text + self.answer_cue)


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

    def render(self, space: LabelSpace, prompt: DrawnPrompt) -> RenderedPrompt:
        """See `Template.render`."""
        shown = _note_and_options(space, prompt)
        turn = self._instruction + shown.text
        chat = self._tokenizer.apply_chat_template(
            [{"role": "user", "content": turn}], tokenize=False, add_generation_prompt=True
        )
        start = chat.find(turn)
        if start < 0:
            raise InputError("the chat template alters the user's text, so spans are lost")
        start += len(self._instruction)
        mentions, options = (
            tuple((begin + start, end + start) for begin, end in spans)
            for spans in (shown.mentions, shown.options)
        )
        return RenderedPrompt(f"{chat}Answer:", mentions, options)


def _note_and_options(space: LabelSpace, prompt: DrawnPrompt) -> RenderedPrompt:
    text, mentions, options = "note:", [], []
    for number, mention in enumerate(prompt.mentions, start=1):
        text += f" {number} ."
        mentions.append((len(text), len(text) + 1 + len(mention.text)))
        text += f" {mention.text} ;"
    text += "\noptions:"
    for label, letter in prompt.letters.items():
        text += "\n"
        shown = f" {space[label].text} {letter}"
        options.append((len(text), len(text) + len(shown)))
        text += shown
    return RenderedPrompt(text, tuple(mentions), tuple(options))
