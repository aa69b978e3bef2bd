"""Templates: how a drawn prompt becomes text, with the place of every mention and option in it.

A template gives the text up to the answer cue; the letters of earlier answers follow it, so that
the last character before a decision is the cue's or an answer letter's. Every span starts at the
space before its first word, since byte-level tokenizers put that space into the word's token.
"""

from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Protocol, runtime_checkable

from workbench.errors import InputError
from workbench.labels.space import LabelSpace
from workbench.prompts.drawn import DrawnPrompt

CharSpan = tuple[int, int]

PRINTED_DATE = datetime(2024, 7, 26)
"""What chat templates that print the date are told; Llama 3's own where it knows none."""
_CODES = "a A b B c C d D e F g G h H I j k l m M p r R S T u U V w W x X y Y -d -m -H -I -j f"
# A macro goes before the function of the same name; templates can be given no function.
_CLOCK = (
    "{%- macro strftime_now(format) -%}{{ format"
    + "".join(
        f" | replace('%{code}', '{PRINTED_DATE.strftime(f'%{code}')}')" for code in _CODES.split()
    )
    + " }}{%- endmacro %}\n"
)
_TRIES = 8
"""Renderings of one text; a template that draws at random is seen with near certainty."""
_UNSTEADY = (
    "the chat template writes something else around each text, so that clean, far and near would "
    "differ in it; use --template plain"
)


@dataclass(frozen=True)
class RenderedPrompt:
    """Text of a prompt up to its answer cue, with half-open character spans.

    Attributes:
        text: ends with the answer cue.
        mentions: span of each mention.
        options: span of each candidate's description, in the order shown.
        quoted: where no control token is meant, whatever documents and labels say; None if unknown.
    """

    text: str
    mentions: tuple[CharSpan, ...]
    options: tuple[CharSpan, ...]
    quoted: CharSpan | None = None


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
        text = shown.text + self.answer_cue
        return replace(shown, text=text, quoted=(0, len(text)))


class ChatTemplate:
    """A template for instruction models: the task as a user's turn, in the model's chat format.

    Templates that print the date print that of `PRINTED_DATE`, so that a seed makes the same
    prompts on every day.

    Args:
        tokenizer: a Hugging Face tokenizer that has a chat template.

    Raises:
        InputError: the tokenizer has no chat template, or one that cannot be rendered, alters the
            text of the turn, or writes something else around it from one time to the next.
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
        try:
            tried = {self._around(self._instruction) for _ in range(_TRIES)}
        except InputError:
            raise
        except Exception as error:  # templates are programs, and raise what they like
            why = " ".join(str(error).split())[:200] or type(error).__name__
            raise InputError(
                f"the chat template cannot be rendered for a user's turn ({why}); use "
                "--template plain"
            ) from None
        if len(tried) > 1:
            raise InputError(_UNSTEADY)
        (self._before_and_after,) = tried

    def render(self, space: LabelSpace, prompt: DrawnPrompt) -> RenderedPrompt:
        """See `Template.render`."""
        shown = _note_and_options(space, prompt)
        turn = self._instruction + shown.text
        try:
            around = self._around(turn)
        except InputError:
            raise
        except Exception as error:  # its words may hold those of the prompt
            raise InputError(
                f"prompt {prompt.id!r}: the chat template cannot be rendered "
                f"({type(error).__name__}); use --template plain"
            ) from None
        if around != self._before_and_after:
            raise InputError(_UNSTEADY)
        before, after = around
        start = len(before) + len(self._instruction)
        mentions, options = (
            tuple((begin + start, end + start) for begin, end in spans)
            for spans in (shown.mentions, shown.options)
        )
        quoted = (len(before), len(before) + len(turn))
        return RenderedPrompt(f"{before}{turn}{after}Answer:", mentions, options, quoted)

    def _around(self, turn: str) -> tuple[str, str]:
        """What stands before a user's turn and after it."""
        chat = self._tokenizer.apply_chat_template(
            [{"role": "user", "content": turn}],
            tokenize=False,
            add_generation_prompt=True,
            chat_template=_CLOCK + self._tokenizer.get_chat_template(),
        )
        chat.encode()  # half of a character raises
        before, found, after = chat.partition(turn)
        if not found:
            raise InputError("the chat template alters the user's text, so spans are lost")
        return before, after


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
