"""Templates for instruction models: a question in the model's own chat form, its reply a letter.

Options are lines `A. text`. By default one mention is asked about, which alone is marked in the
note; the others are its context. The reply begins with the letter, without a space before it: more
of the probability is there than behind a cue.
"""

from typing import Any, Literal

from workbench.errors import InputError
from workbench.labels.space import LabelSpace
from workbench.prompts.chat_form import REASONING, ChatForm
from workbench.prompts.drawn import DrawnPrompt
from workbench.prompts.templates import CharSpan, RenderedPrompt

CHATS = ("chat", "chat-single", "chat-list", "think")
_ONE = "Which option does the part of the note between >> and << stand for?"
_ALONE = "Which option does the note stand for?"
_ALL = "Which option does each numbered part of the note stand for?"
_LETTER = {True: "letter only", False: "letters only, in order of the parts, separated by spaces"}


class ChatTemplate:
    """The task as a user's turn, in the model's chat form.

    Args:
        tokenizer: a Hugging Face tokenizer that has a chat template.
        name: "chat" asks about one mention, "chat-single" too, and shows no other, "chat-list" asks
            about all of them in order; "think" is "chat" for models that think, which it tells to,
            and asks others to reason first.

    Raises:
        InputError: what `ChatForm` refuses.
    """

    def __init__(
        self, tokenizer: Any, name: Literal["chat", "chat-single", "chat-list", "think"] = "chat"
    ) -> None:
        self.name = name
        self._form = ChatForm(tokenizer, thinks=name == "think")
        self.cues = self._form.cues

    def render(self, space: LabelSpace, prompt: DrawnPrompt) -> RenderedPrompt:
        """See `Template.render`; a mention that is not shown has an empty span."""
        one = prompt.asked is not None and self.name != "chat-list"
        alone = one and self.name == "chat-single"
        turn, mentions, options = "Note:", [], []
        for number, mention in enumerate(prompt.mentions):
            if alone and number != prompt.asked:
                mentions.append((len(turn), len(turn)))
                continue
            marked = one and not alone and number == prompt.asked
            turn += "" if alone else f" {number + 1}.{' >>' if marked else ''}"
            mentions.append((len(turn), len(turn) + 1 + len(mention.text)))
            turn += f" {mention.text}{' <<' if marked else ''} ;"
        turn = turn.removesuffix(" ;") + f"\n\n{_ALONE if alone else _ONE if one else _ALL}"
        for label, letter in prompt.letters.items():
            turn += "\n"
            shown = f"{letter}. {space[label].text}"
            options.append((len(turn), len(turn) + len(shown)))
            turn += shown
        turn += f"\n\n{self._asking(one)}"
        try:
            around = self._form.around(turn)
        except InputError:
            raise
        except Exception as error:  # its words may hold those of the prompt
            raise InputError(
                f"prompt {prompt.id!r}: the chat template cannot be rendered "
                f"({type(error).__name__}); use --template plain"
            ) from None
        if around != self._form.before_and_after:
            raise self._form.unsteady
        before, after = around
        start = len(before)
        return RenderedPrompt(
            f"{before}{turn}{after}",
            _moved(mentions, start),
            _moved(options, start),
            quoted=(start, start + len(turn)),
            gap="",
            one=one,
        )

    def _asking(self, one: bool) -> str:
        """What ends a turn: in which form to reply."""
        if self.cues is REASONING:
            return (
                "Reason step by step under the heading # Reasoning. Then write the heading "
                f"# Answer, and under it the {_LETTER[one]}."
            )
        return f"Answer with the {_LETTER[one]}."


def _moved(spans: list[CharSpan], by: int) -> tuple[CharSpan, ...]:
    return tuple((start + by, end + by) for start, end in spans)
