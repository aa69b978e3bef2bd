"""Templates: how a drawn prompt becomes text, with the place of every mention and option in it.

A template gives the text up to the answer cue; the letters of earlier answers follow it, so that
the last character before a decision is the cue's or an answer letter's. Every span starts at the
space before its first word, if there is one: byte-level tokenizers put it into the word's token.
"""

from dataclasses import dataclass, replace
from typing import Protocol, runtime_checkable

from workbench.labels.space import LabelSpace
from workbench.prompts.drawn import DrawnPrompt

CharSpan = tuple[int, int]


@dataclass(frozen=True)
class Cues:
    """Where a question, a chain of thought and its answer meet in the texts of a template.

    A direct question is the question and `answer`; with a chain, `opening` and the steps stand
    between the two.

    Attributes:
        opening: what is written before a chain.
        closing: with this text a model ends its chain.
        answer: asks for the answer.
        room: tokens that a chain may take.
    """

    opening: str
    closing: str
    answer: str
    room: int = 768


@dataclass(frozen=True)
class RenderedPrompt:
    """Text of a prompt up to its answer cue, with half-open character spans.

    Attributes:
        text: ends with the answer cue.
        mentions: span of each mention.
        options: span of each candidate's description, in the order shown.
        quoted: where no control token is meant, whatever documents and labels say; None if unknown.
        gap: what stands between the cue and the first letter.
        one: whether one mention is asked about; otherwise all are, in order, and earlier answers
            stand before a decision.
    """

    text: str
    mentions: tuple[CharSpan, ...]
    options: tuple[CharSpan, ...]
    quoted: CharSpan | None = None
    gap: str = " "
    one: bool = False

    def asking(self, words: str) -> str:
        """The text with what follows the answer cue; as it is where one mention is asked about."""
        return self.text if self.one or not words else self.text + self.gap + words.lstrip(" ")


@runtime_checkable
class Template(Protocol):
    """What a prompt looks like to a model."""

    name: str

    @property
    def cues(self) -> Cues | None:
        """None where there is no place for a chain of thought."""
        ...

    def render(self, space: LabelSpace, prompt: DrawnPrompt) -> RenderedPrompt:
        """Text up to the answer cue."""
        ...


class PlainTemplate:
    """The template of the bundled model: note, options, `answer:`; `reason:` opens a chain."""

    name = "plain"
    reason_cue = "\nreason:"
    answer_cue = "\nanswer:"
    cues = Cues(reason_cue, answer_cue, answer_cue)

    def render(self, space: LabelSpace, prompt: DrawnPrompt) -> RenderedPrompt:
        """See `Template.render`."""
        shown = _note_and_options(space, prompt)
        text = shown.text + self.answer_cue
        return replace(shown, text=text, quoted=(0, len(text)))


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
