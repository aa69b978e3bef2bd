"""A document and its candidates as a question in a model's tokens, up to the decision."""

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal

from workbench.errors import InputError
from workbench.labels.as_text import control_tokens
from workbench.prompts.chat_form import REASONING, ChatForm
from workbench.prompts.forms.cutting import LEFT_OUT
from workbench.prompts.forms.drafts import Draft, Layout, Question, one_line
from workbench.prompts.forms.form import Form
from workbench.prompts.forms.listing import listed
from workbench.prompts.forms.names import option_names
from workbench.prompts.templates import CharSpan, Cues
from workbench.prompts.text import check_fast, encode_many

Way = Literal["auto", "plain", "chat", "think"]
HEADINGS = (
    "Write your reasoning under the heading # Reasoning, and then the answer under the heading "
    "# Answer."
)
"""What models without a place for thoughts are told besides."""


_MARKED = re.compile(r"\n[#*\s]+$")
"""What is left of `**## Answer`."""


class Asker:
    """Asks about documents in one form, for one model.

    Args:
        form: what is written.
        tokenizer: the model's, a Hugging Face tokenizer of the fast kind.
        way: "plain" continues a text; "chat" asks in the model's chat form, "think" there as well,
            and has it reason first: in its thoughts where its form has a place for them, else under
            a heading. "auto" is chat where the tokenizer has a chat form.
        max_tokens: of a question with an answer, and with what `room` asks for.

    Raises:
        InputError: a tokenizer without character offsets, a chat form that cannot be used, or
            control tokens in the form.
    """

    def __init__(self, form: Form, tokenizer: Any, *, way: Way = "auto", max_tokens: int) -> None:
        check_fast(tokenizer)
        form.check_controls(tokenizer)
        self.form, self.max_tokens = form, max_tokens
        if way == "auto":
            way = "chat" if getattr(tokenizer, "chat_template", None) else "plain"
        self.way: Way = way
        self.cues: Cues | None = None
        """Where a chain of thought stands; None where there is no place for one."""
        self._tokenizer = tokenizer
        self._before, self._after = "", f"\n\n{form.written('answer').rstrip(' ')}"
        if way != "plain":
            chat = ChatForm(
                tokenizer,
                thinks=way == "think",
                system=form.written("system"),
                instead="--way plain",
            )
            self.cues = chat.cues
            self._before, self._after = chat.before_and_after
            if chat.around(form.turn.strip()) != chat.before_and_after:
                raise chat.unsteady
        self._gap = "" if self._after.endswith("\n") or way != "plain" else " "
        self._layouts: dict[int, Layout] = {}
        names = "|".join(re.escape(text) for text in control_tokens(tokenizer).values() if text)
        self._control = re.compile(names or r"(?!)")

    def ask(
        self, document: str, options: Sequence[str], *, keep: Sequence[CharSpan] = (), room: int = 0
    ) -> Question:
        """The question about one document.

        The document is shown as it is. Where it is too long, whole passages are left out, from its
        end, and a line `[…]` stands for them.

        Args:
            document: its text.
            options: texts of the candidates, in the order shown.
            keep: characters of the document whose passages stay.
            room: tokens that a chain of thought may take.

        Raises:
            InputError: the options, and what must stay of the document, take more tokens than there
                are, or what must stay is not in the document.
        """
        return self.ask_many([document], [options], keep=[keep], room=room)[0]

    def ask_many(
        self,
        documents: Sequence[str],
        options: Sequence[Sequence[str]],
        *,
        keep: Sequence[Sequence[CharSpan]] | None = None,
        room: int = 0,
    ) -> list[Question]:
        """The questions about many documents, each with its own options; see `ask`."""
        kept = keep or [()] * len(documents)
        for text, spans in zip(documents, kept, strict=True):
            if any(not 0 <= start < end <= len(text) for start, end in spans):
                raise InputError("what is to be kept of a document is outside of it, or empty")
        drafts = [
            Draft(text, tuple(one_line(x) for x in offered), self._layout(len(offered)), stays)
            for text, offered, stays in zip(documents, options, kept, strict=True)
        ]
        return self._within(drafts, self.max_tokens - room - (self._n_cues if room else 0))

    def _within(self, drafts: Sequence[Draft], most: int) -> list[Question]:
        """Questions of no more than so many tokens; what is too long is cut until it is not."""
        done: dict[int, Question] = {}
        while len(done) < len(drafts):
            written = {
                at: draft.written(self.form, self._gap)
                for at, draft in enumerate(drafts)
                if at not in done
            }
            quoted = [each.quoted for each in written.values()]
            texts = [each.text for each in written.values()]
            encoded = encode_many(self._tokenizer, texts, quoted)
            for (at, question), (ids, offsets) in zip(written.items(), encoded, strict=True):
                question = self._with_tokens(question, tuple(ids), drafts[at].layout)
                over = len(ids) + max(map(len, question.option_tokens)) - most
                if over <= 0:
                    done[at] = question
                    continue
                start, end = question.document
                begins = [a - start for a, b in offsets if a < b and start <= a < end]
                if not drafts[at].cut(begins, over, self._n_marker):
                    n, left = len(question.options), self.max_tokens - most
                    options = "one option" if n == 1 else f"{n} options"
                    chain = f", {left} of them for the chain," if left else ""
                    raise InputError(
                        f"{options} and what is asked leave no room for the document: "
                        f"{self.max_tokens} tokens{chain} are too few; allow more tokens, or give "
                        "fewer options"
                    )
        return [done[at] for at in range(len(drafts))]

    def reasoned(self, question: Question, chain: str) -> Question:
        """The same question after a written chain, at the decision.

        What a chain holds behind its end, or behind the text of a control token, is left out.

        Raises:
            InputError: there is no place for a chain, or the two take too many tokens.
        """
        cues, head = self._reasoning(question)
        chain = chain.split(cues.closing, 1)[0]
        chain = _MARKED.sub("", self._control.split(chain, maxsplit=1)[0]).strip()
        text = f"{head}{cues.opening}{chain}{cues.answer}"
        ((ids, _),) = encode_many(self._tokenizer, [text], [question.quoted])
        after = self._with_tokens(
            replace(question, text=text), tuple(ids), self._layout(len(question.names))
        )
        if len(ids) + max(map(len, after.option_tokens)) > self.max_tokens:
            raise InputError(
                f"question and chain take {len(ids)} tokens, of {self.max_tokens}; ask with more "
                "room for the chain"
            )
        return after

    def opened(self, question: Question) -> tuple[int, ...]:
        """The tokens of the question up to where a chain begins; it ends in `cues.closing`.

        Raises:
            InputError: there is no place for a chain.
        """
        cues, head = self._reasoning(question)
        ((ids, _),) = encode_many(self._tokenizer, [head + cues.opening], [question.quoted])
        return tuple(ids)

    def messages(self, question: Question) -> list[dict[str, str]]:
        """The turns of a question in a chat form, as a chat template takes them.

        Raises:
            InputError: the question is no chat.
        """
        if self.way == "plain":
            raise InputError("a plain question has no turns")
        begin, end = len(self._before), len(question.text) - len(self._after)
        ending = self._layout(len(question.names)).names.lead
        turn = question.text[begin : end - len(ending)]
        system = self.form.written("system")
        first = [{"role": "system", "content": system}] if system else []
        return [*first, {"role": "user", "content": turn}]

    def listed(self, reply: str, options: Sequence[str]) -> list[int]:
        """The options that a free reply names, by their text or by their name, in its order."""
        return listed(reply, options, self._layout(len(options)).names.names)

    def _reasoning(self, question: Question) -> tuple[Cues, str]:
        """The cues, and the text up to where a chain is opened."""
        if self.cues is None:
            raise InputError(f"there is no place for a chain in the way {self.way!r}; use think")
        return self.cues, question.text.removesuffix(self.cues.answer)

    @property
    def _n_cues(self) -> int:
        """Tokens that the cues around a chain may take."""
        return 0 if self.cues is None else len(self.cues.opening + self.cues.answer)

    @property
    def _n_marker(self) -> int:
        line = f"\n{LEFT_OUT}\n"
        return len(self._tokenizer(line, add_special_tokens=False)["input_ids"])

    def _with_tokens(self, question: Question, tokens: tuple[int, ...], layout: Layout) -> Question:
        names = layout.names
        if tokens[-len(layout.ending) :] == layout.ending:
            return replace(question, tokens=tokens, option_tokens=names.tokens)
        # The end of this text is read in another way; what follows it may be, too.
        raise InputError(
            f"{self.form.where or self.form.name}: this tokenizer reads the end of the prompt in "
            "another way from document to document; let answer end in a line break"
        )

    def _layout(self, n: int) -> Layout:
        """What stands around `n` options."""
        if n not in self._layouts:
            names = option_names(n, self.form.names, self._tokenizer, self._after, self._gap)
            parts = self.form.filled("turn", ("document", "options"))
            before, between, after = (text for text, _ in parts)
            told = self._told(names.kind)
            place = self._after + names.lead
            ids = self._tokenizer(place, add_special_tokens=False)["input_ids"]
            self._layouts[n] = Layout(
                self._before + before,
                between,
                after + (f"\n\n{told}" if told else "") + place,
                names,
                tuple(ids[-max(1, min(2, len(ids) - 2)) :]),
            )
        return self._layouts[n]

    def _told(self, kind: str) -> str:
        """How to reply, which ends the turn of chat models."""
        if self.way == "plain":
            return ""
        key = "reason" if self.way == "think" and self.form.reason else "reply"
        parts = self.form.filled(key, ("kind",))
        told = "".join(text + (kind if name else "") for text, name in parts)
        return f"{told}\n{HEADINGS}".strip() if self.cues is REASONING else told
