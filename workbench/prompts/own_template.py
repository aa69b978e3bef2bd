"""Templates of a user's own: a format string, or a function."""

import re
from collections.abc import Callable, Sequence
from typing import Any

from workbench.errors import InputError
from workbench.labels.as_text import control_tokens
from workbench.labels.space import LabelSpace
from workbench.prompts.drawn import DrawnPrompt
from workbench.prompts.templates import Cues, RenderedPrompt

Writer = Callable[[str, Sequence[tuple[str, str]]], str]
"""Called with the document and (letter, text) of every option; gives the text up to the answer."""

_MARK = re.compile("\ue000(\\d+)\ue001")


class OwnTemplate:
    """A prompt as a user writes it: the whole document, the options, and one answer.

    Args:
        written: a format string with `{document}`, `{options}` (lines `A. text`) and `{answer}`
            at its end; other braces are doubled. Or a function of the document and the options,
            a list of (letter, text), which gives the text up to the answer. Both say the same
            things around documents and options whatever these are, and neither alters them.
        tokenizer: the model's.

    Raises:
        InputError: a field is missing, unknown or twice, something stands behind the answer, the
            function fails or alters what it is given, or control tokens stand between document and
            options, where text of theirs is read as text.
    """

    name = "own"
    cues: Cues | None = None

    def __init__(self, written: str | Writer, tokenizer: Any) -> None:
        self._write = _formatted(written) if isinstance(written, str) else written
        self._tokenizer = tokenizer
        self._between("document", [("A", "first"), ("B", "second")])

    def render(self, space: LabelSpace, prompt: DrawnPrompt) -> RenderedPrompt:
        """See `Template.render`; all mentions make the document."""
        document = " ".join(mention.text for mention in prompt.mentions)
        options = [(letter, space[label].text) for label, letter in prompt.letters.items()]
        held = [document, *(text for _, text in options)]
        text, spans = "", [(0, 0)] * len(held)
        for part, mark in self._between(document, options):
            text += part
            if mark is not None:
                spans[mark] = (len(text), len(text) + len(held[mark]))
                text += held[mark]
        if text != self._called(document, options):
            raise InputError("the template alters the text of documents or options")
        asked = text.rstrip(" ")
        ends, start = [], spans[0][0]
        for mention in prompt.mentions:
            ends.append((start, start + len(mention.text)))
            start += len(mention.text) + 1
        return RenderedPrompt(
            asked,
            tuple(ends),
            tuple((a - (a > 0 and text[a - 1] == " "), b) for a, b in spans[1:]),
            quoted=(min(a for a, _ in spans), max(b for _, b in spans)),
            gap=text[len(asked) :],
            one=True,
        )

    def _between(
        self, document: str, options: Sequence[tuple[str, str]]
    ) -> list[tuple[str, int | None]]:
        """What the template says itself, each with the number of what follows it; last of none."""
        marks = [f"\ue000{number}\ue001" for number in range(len(options) + 1)]
        offered = [(letter, mark) for (letter, _), mark in zip(options, marks[1:], strict=True)]
        parts = _MARK.split(self._called(marks[0], offered))
        order = [int(one) for one in parts[1::2]]
        if sorted(order) != list(range(len(marks))):
            raise InputError(
                "the template must show the document once and the text of each option once, as "
                "they are"
            )
        inside = "".join(parts[2:-1:2])
        if any(name and name in inside for name in control_tokens(self._tokenizer).values()):
            raise InputError(
                "the template has control tokens between document and options; put both into one "
                "turn"
            )
        return [*zip(parts[::2], order, strict=False), (parts[-1], None)]

    def _called(self, document: str, options: Sequence[tuple[str, str]]) -> str:
        try:
            text = self._write(document, options)
        except InputError:
            raise
        except Exception as error:  # its words may hold those of the prompt
            raise InputError(f"the template cannot be rendered ({type(error).__name__})") from None
        if not isinstance(text, str):
            raise InputError(f"the template gives {type(text).__name__}, must give a string")
        return text


def _formatted(form: str) -> Writer:
    """The function of a format string."""
    before, found, after = form.partition("{answer}")
    if not found or after.strip():
        raise InputError("the template must end in {answer}, where the letter of an option is read")
    if before.count("{document}") != 1 or before.count("{options}") != 1:
        raise InputError("the template must hold {document} and {options}, each once")

    def write(document: str, options: Sequence[tuple[str, str]]) -> str:
        lines = "\n".join(f"{letter}. {text}" for letter, text in options)
        return before.format(document=document, options=lines)

    return write
