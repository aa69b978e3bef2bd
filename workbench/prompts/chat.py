"""Templates for instruction models: a question in the model's own chat form, its reply a letter.

Options are lines `A. text`. By default one mention is asked about, which alone is marked in the
note; the others are its context. The reply begins with the letter, without a space before it: more
of the probability is there than behind a cue.

*Thoughts* come before the answer. Models whose chat form has a place for them write
`<think> … </think>`; a direct question holds an empty thought, as their own templates write it
where thinking is off. Other models can be asked for a section of reasoning. Both are cut before a
blank line, so that a direct question and a chain end in the same tokens.
"""

import re
from datetime import datetime
from typing import Any, Literal

from workbench.errors import InputError
from workbench.labels.space import LabelSpace
from workbench.prompts.drawn import DrawnPrompt
from workbench.prompts.templates import CharSpan, Cues, RenderedPrompt

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

CHATS = ("chat", "chat-single", "chat-list", "think")
THOUGHTS = Cues("\n", "</think>", "\n\n</think>\n\n", room=2048)
"""Of models that think before they reply; the question ends in `<think>`."""
REASONING = Cues("\n", "# Answer", "\n\n# Answer\n", room=512)
"""Of models that are asked to reason first; the question ends in `# Reasoning`."""
_ENDS = {THOUGHTS: "<think>", REASONING: "# Reasoning"}
_OPEN = re.compile(r"<think>\s*(</think>\s*)?$")
_ONE = "Which option does the part of the note between >> and << stand for?"
_ALONE = "Which option does the note stand for?"
_ALL = "Which option does each numbered part of the note stand for?"
_LETTER = {True: "letter only", False: "letters only, in order of the parts, separated by spaces"}


class ChatTemplate:
    """The task as a user's turn, in the model's chat form.

    Templates that print the date print that of `PRINTED_DATE`, so that a seed makes the same
    prompts on every day.

    Args:
        tokenizer: a Hugging Face tokenizer that has a chat template.
        name: "chat" asks about one mention, "chat-single" too, and shows no other, "chat-list" asks
            about all of them in order; "think" is "chat" for models that think, which it tells to,
            and asks others to reason first.

    Raises:
        InputError: the tokenizer has no chat template, or one that cannot be rendered, alters the
            text of the turn, writes something else around it from one time to the next, or parts a
            reply into channels.
    """

    def __init__(
        self, tokenizer: Any, name: Literal["chat", "chat-single", "chat-list", "think"] = "chat"
    ) -> None:
        if not getattr(tokenizer, "chat_template", None):
            raise InputError("this tokenizer has no chat template; use --template plain")
        self.name = name
        self._tokenizer = tokenizer
        self._thinks = name == "think"
        source = tokenizer.get_chat_template()
        if "<|channel|>" in source:
            raise InputError(
                "this chat template parts replies into channels (gpt-oss), which are not supported"
            )
        self.cues: Cues | None = REASONING if name == "think" else None
        try:
            if "<think>" in source and any("<think>" in self._turn("note", on)[1] for on in (0, 1)):
                self.cues = THOUGHTS
            tried = {self._around(self._asking(True)) for _ in range(_TRIES)}
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

    def _around(self, turn: str) -> tuple[str, str]:
        """What stands before a user's turn, and after it up to the answer."""
        before, after = self._turn(turn, self._thinks)
        if self.cues is not None:
            after = _OPEN.sub("", after) + _ENDS[self.cues] + self.cues.answer
        return before, after

    def _turn(self, turn: str, thinks: object) -> tuple[str, str]:
        """What the chat template writes before a user's turn and after it."""
        chat = self._tokenizer.apply_chat_template(
            [{"role": "user", "content": turn}],
            tokenize=False,
            add_generation_prompt=True,
            chat_template=_CLOCK + self._tokenizer.get_chat_template(),
            enable_thinking=bool(thinks),
        )
        chat.encode()  # half of a character raises
        before, found, after = chat.partition(turn)
        if not found:
            raise InputError("the chat template alters the user's text, so spans are lost")
        return before, after


def _moved(spans: list[CharSpan], by: int) -> tuple[CharSpan, ...]:
    return tuple((start + by, end + by) for start, end in spans)
