"""A model's own chat form: what stands around a user's turn, up to the reply.

*Thoughts* come before the answer. Models whose chat form has a place for them write
`<think> … </think>`; a direct question holds an empty thought, as their own templates write it
where thinking is off. Other models can be asked for a section of reasoning. Both are cut before a
blank line, so that a direct question and a chain end in the same tokens.
"""

import re
from datetime import datetime
from typing import Any

from workbench.errors import InputError
from workbench.prompts.templates import Cues

PRINTED_DATE = datetime(2024, 7, 26)
"""What chat templates that print the date are told; Llama 3's own where it knows none."""
_CODES = "a A b B c C d D e F g G h H I j k l m M p r R S T u U V w W x X y Y -d -m -H -I -j f"
# A macro goes before the function of the same name; templates can be given no function.
CLOCK = (
    "{%- macro strftime_now(format) -%}{{ format"
    + "".join(
        f" | replace('%{code}', '{PRINTED_DATE.strftime(f'%{code}')}')" for code in _CODES.split()
    )
    + " }}{%- endmacro %}\n"
)
_TRIES = 8
"""Renderings of one text; a template that draws at random is seen with near certainty."""
THOUGHTS = Cues("\n", "</think>", "\n\n</think>\n\n", room=2048)
"""Of models that think before they reply; the question ends in `<think>`."""
REASONING = Cues("\n", "# Answer", "\n\n# Answer\n", room=512)
"""Of models that are asked to reason first; the question ends in `# Reasoning`."""
_ENDS = {THOUGHTS: "<think>", REASONING: "# Reasoning"}
_OPEN = re.compile(r"<think>\s*(</think>\s*)?$")
_TRIED = "Which of the options is meant? Answer with the letter only."


class ChatForm:
    """What a tokenizer's chat template writes around a user's turn.

    Templates that print the date print that of `PRINTED_DATE`, so that a seed makes the same
    prompts on every day.

    Args:
        tokenizer: a Hugging Face tokenizer that has a chat template.
        thinks: whether models that think are told to; others are asked to reason first.
        system: of the system's turn, if there is one.
        instead: what to use where this cannot be.

    Raises:
        InputError: the tokenizer has no chat template, or one that cannot be rendered, alters the
            text of the turn, writes something else around it from one time to the next, or parts a
            reply into channels.
    """

    def __init__(
        self,
        tokenizer: Any,
        *,
        thinks: bool = False,
        system: str = "",
        instead: str = "--template plain",
    ) -> None:
        if not getattr(tokenizer, "chat_template", None):
            raise InputError(f"this tokenizer has no chat template; use {instead}")
        self._tokenizer, self._thinks, self._instead = tokenizer, thinks, instead
        self._system = [{"role": "system", "content": system}] if system else []
        source = tokenizer.get_chat_template()
        if "<|channel|>" in source:
            raise InputError(
                "this chat template parts replies into channels (gpt-oss), which are not supported"
            )
        self.cues: Cues | None = REASONING if thinks else None
        try:
            if "<think>" in source and any("<think>" in self._turn(_TRIED, on)[1] for on in (0, 1)):
                self.cues = THOUGHTS
            tried = {self.around(_TRIED) for _ in range(_TRIES)}
        except InputError:
            raise
        except Exception as error:  # templates are programs, and raise what they like
            why = " ".join(str(error).split())[:200] or type(error).__name__
            without = "leave the system's turn out, or " if system else ""
            raise InputError(
                f"the chat template cannot be rendered for a user's turn ({why}); {without}use "
                f"{instead}"
            ) from None
        if len(tried) > 1:
            raise self.unsteady
        (self.before_and_after,) = tried

    @property
    def unsteady(self) -> InputError:
        """The error about a template that depends on the text of a turn."""
        return InputError(
            "the chat template writes something else around each text, so that clean, far and near "
            f"would differ in it; use {self._instead}"
        )

    def around(self, turn: str) -> tuple[str, str]:
        """What stands before a user's turn, and after it up to the answer."""
        before, after = self._turn(turn, self._thinks)
        if self.cues is not None:
            after = _OPEN.sub("", after) + _ENDS[self.cues] + self.cues.answer
        return before, after

    def _turn(self, turn: str, thinks: object) -> tuple[str, str]:
        """What the chat template writes before a user's turn and after it."""
        chat = self._tokenizer.apply_chat_template(
            [*self._system, {"role": "user", "content": turn}],
            tokenize=False,
            add_generation_prompt=True,
            chat_template=CLOCK + self._tokenizer.get_chat_template(),
            enable_thinking=bool(thinks),
        )
        chat.encode()  # half of a character raises
        before, found, after = chat.partition(turn)
        if not found:
            raise InputError("the chat template alters the user's text, so spans are lost")
        return before, after
