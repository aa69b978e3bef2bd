"""Samples for training out of one's own rows, with any tokenizer of the fast kind.

Places are found by the tokenizer's offsets: tokens may cross words' borders, spans may not cross
tokens.
"""

import re
from typing import Any, Literal, get_args

from workbench.distill.examples.places import chain_places, char_span
from workbench.distill.examples.rows import Message, Place, Row, Rows, read_rows
from workbench.distill.examples.stream import NO_DECISION, NO_SPAN
from workbench.errors import InputError
from workbench.prompts.chat_form import CLOCK
from workbench.prompts.templates import CharSpan
from workbench.prompts.text import TokenizedText, check_fast, common_suffix, tokenize, tokenize_all

Template = Literal["auto", "plain", "chat"]
CONTEXT = 64
"""Characters before an option's label that decide its first token."""
_MARK = "\ue000"
"""A character of private use, to find where a template writes a turn."""


def examples_from_chats(
    rows: Rows,
    tokenizer: Any,
    *,
    template: Template = "auto",
    cue: str = "\n",
    prompt_weight: float = 0.0,
) -> list[dict[str, Any]]:
    """Samples that `stream.Collator` and the Trainer take, from prompts, chains and answers.

    A row has these keys; spans are [first, end] in characters, or the words themselves where they
    occur once:

    - `prompt`: text, or a list of messages (`role`, `content`), the last one a user's. Spans of
      `options` and `evidence` are in it, of messages in the last one.
    - `chain` (optional), `answer` (text): the reply is chain, `cue` and answer; without a chain
      the answer alone.
    - `labels` (optional): texts that the answer holds in this order, as whole words; the first
      token of each is a decision. Unless given, the whole answer is one. Without `answer` it is
      `labels`, with commas.
    - `options` (optional): objects with `span` and, for terms on options' logits, the `label` that
      answers with it. Every label of the row is one of theirs then.
    - `evidence` (optional): a span or null for each decision.
    - `decisions` (optional): spans in the reply whose first tokens are the decisions, instead of
      the labels.
    - `early`, `late` (optional): spans in the chain that shortlist, and that weigh candidates; or
      objects of `span` and `decision`, the number (from 0) of the decision they are about or null;
      of `late` also `option`, the number of the option that is spoken of: null for the right one.
      Unless given: the chain's first 30 tokens up to its middle, and all after its middle.
    - `shortlist` (optional): objects of `span` in the chain and `decision`: where the chain names
      the true label of a decision before it weighs it.
    - `near` (optional): objects of `span`, `decision` and `in`, "chain" (unless given) or "prompt":
      where near misses of a decision are named. Unless given: the options in `near_options`.
    - `gold` (optional): for each decision the number of the right option (from 0) or null. Unless
      given: the option of the label.
    - `near_options` (optional): for each decision a list of numbers of options, its near misses.
    - `id` (optional): not read.

    A sample is a dictionary of plain lists and numbers, positions in tokens, spans half-open:

    - `ids` [token]: prompt, reply and the tokenizer's end token.
    - `weights` [token]: of each token in the loss on chains.
    - `question`: how many of the tokens are the prompt.
    - `decisions` [decision]: the position whose next token decides.
    - `option_spans` [option, 2], `option_tokens` [option], `evidence` [decision, 2]: where any row
      has them; (0, 0) is no evidence.
    - `early`, `late` [position]: positions whose next token is one of those; `early_decision`,
      `late_decision`: what each is about, -1 where not known; `late_option`: of which option it
      speaks, -1 for the right one; where any row has a chain.
    - `shortlist`, `near` [span, 3]: decision, first token, end; `gold` [decision], -1 for none;
      `near_options` [pair, 2]: decision, option; where any row has them.

    Args:
        rows: mappings, a data frame with these columns, a file of JSON lines, or a folder of such
            files (`workbench traces --task`).
        tokenizer: of teacher and student: a Hugging Face tokenizer of the fast kind.
        template: "chat" writes a text as a user's turn, too; "plain" takes texts alone; "auto" puts
            messages into the tokenizer's chat template and takes texts as they are.
        cue: between chain and answer.
        prompt_weight: weight of the prompt's tokens; the reply's is 1.

    Raises:
        InputError: one line with the row: a bad value, a span that is not on token borders or not
            there, an answer that lacks a label, a label that is no option, options that begin with
            the same token; no chat template, or one that alters texts; a slow tokenizer, or one
            without an end token.
    """
    if template not in get_args(Template):
        raise InputError(f"template {template!r} is not one of {', '.join(get_args(Template))}")
    if not 0 <= prompt_weight <= 1:
        raise InputError(f"prompt_weight is {prompt_weight}, must be from 0 to 1")
    check_fast(tokenizer)
    if tokenizer.eos_token_id is None:
        raise InputError("the tokenizer names no end token, so replies would never end")
    build = _Builder(tokenizer, template, cue, prompt_weight)
    samples = []
    for place, row in read_rows(rows):
        try:
            samples.append(build(row))
        except InputError as error:
            raise InputError(f"{place}: {error}") from None
    if len({"option_tokens" in one for one in samples if "option_spans" in one}) > 1:
        raise InputError("options of some rows have labels, of others not; give all or none")
    present = {key for sample in samples for key in sample}
    for sample in samples:
        missing: dict[str, list[Any]] = {}
        missing["evidence"] = [NO_SPAN] * len(sample["decisions"])
        missing["gold"] = [NO_DECISION] * len(sample["decisions"])
        sample |= {key: missing.get(key, []) for key in sorted(present - sample.keys())}
    return samples


class _Builder:
    def __init__(self, tokenizer: Any, template: Template, cue: str, weight: float) -> None:
        self._tokenizer, self._template, self._cue = tokenizer, template, cue
        self._weight = weight
        self._first_tokens: dict[tuple[str, str], int] = {}

    def __call__(self, row: Row) -> dict[str, Any]:
        prompt, turn = self._prompt(row)
        answer = ", ".join(row.labels or ()) if row.answer is None else row.answer
        if not answer:
            raise InputError("has neither answer nor labels")
        reply = f"{row.chain}{self._cue}{answer}" if row.chain else answer
        text = prompt + reply
        quoted = None if turn == (0, len(prompt)) else turn
        tokens = tokenize(self._tokenizer, text, quoted)
        question = _border(tokens, len(prompt))
        decided = self._decided(row, reply, answer)
        starts = [
            _tokens(tokens, (a + len(prompt), b + len(prompt)), name)[0] for name, (a, b) in decided
        ]
        ids = [*tokens.tokens, self._tokenizer.eos_token_id]
        sample: dict[str, Any] = {
            "ids": ids,
            "weights": [self._weight] * question + [1.0] * (len(ids) - question),
            "question": question,
            "decisions": [start - 1 for start in starts],
        }
        if row.options is not None:
            spans = [(f"options[{i}]", one.span) for i, one in enumerate(row.options)]
            sample["option_spans"] = [self._in_turn(tokens, turn, *one) for one in spans]
            labels = [one.label for one in row.options if one.label is not None]
            if labels and len(labels) < len(row.options):
                raise InputError("some options have a label, others none; give all or none")
            if labels:
                at = len(prompt) + decided[0][1][0]
                sample["option_tokens"] = self._option_tokens(text[:at], labels)
                wanted = row.labels or (answer.strip(),)
                if row.decisions is None:
                    names = [
                        name if row.labels else f"{name}, with no labels," for name, _ in decided
                    ]
                    _check_options(labels, sample["option_tokens"], wanted, starts, ids, names)
                    sample["gold"] = [labels.index(label) for label in wanted]
        if row.evidence is not None:
            if len(row.evidence) != len(starts):
                raise InputError(
                    f"evidence has {len(row.evidence)} spans, must have one for each of the "
                    f"{len(starts)} decisions"
                )
            sample["evidence"] = [
                NO_SPAN if one is None else self._in_turn(tokens, turn, f"evidence[{i}]", one)
                for i, one in enumerate(row.evidence)
            ]
        chain = (len(prompt), len(prompt) + len(row.chain))
        spans = sample.get("option_spans")
        sample |= chain_places(row, tokens, turn, chain, len(starts), spans)
        for i, one in sample.get("near_options", ()):
            if one == sample.get("gold", {i: None})[i]:
                raise InputError(f"near_options[{i}]: option {one} is gold, the right one there")
        return sample

    def _prompt(self, row: Row) -> tuple[str, CharSpan]:
        """The prompt's text, and where in it the user's turn is."""
        if isinstance(row.prompt, str):
            if self._template != "chat":
                return row.prompt, (0, len(row.prompt))
            return self._chat((Message(role="user", content=row.prompt),))
        if self._template == "plain":
            raise InputError("prompt is a list of messages; template plain takes a text")
        return self._chat(row.prompt)

    def _chat(self, messages: tuple[Message, ...]) -> tuple[str, CharSpan]:
        *before, last = ({"role": one.role, "content": one.content} for one in messages)
        content = last["content"]
        if last["role"] != "user" or not content:
            raise InputError("the last message of prompt must be a user's, and hold text")
        if not getattr(self._tokenizer, "chat_template", None):
            raise InputError("this tokenizer has no chat template; give prompt as text")
        try:
            text, marked = (
                self._tokenizer.apply_chat_template(
                    [*before, {**last, "content": content + more}],
                    tokenize=False,
                    add_generation_prompt=True,
                    chat_template=CLOCK + self._tokenizer.get_chat_template(),
                )
                for more in ("", _MARK)
            )
        except Exception as error:  # templates are programs; their words may hold those of prompts
            raise InputError(
                f"the chat template cannot be rendered for this prompt ({type(error).__name__})"
            ) from None
        end = len(text) - common_suffix([*map(ord, each)] for each in (text, marked))
        start = end - len(content)
        if start < 0 or text[start:end] != content:
            raise InputError(
                "the chat template alters the user's text, spaces at its ends perhaps, so spans "
                "would be lost"
            )
        return text, (start, end)

    def _decided(self, row: Row, reply: str, answer: str) -> list[tuple[str, CharSpan]]:
        """Characters of the reply whose first tokens are decisions, with what to call them."""
        if row.decisions is not None:
            named = [(f"decisions[{i}]", one) for i, one in enumerate(row.decisions)]
            return [(name, char_span(reply, name, one)) for name, one in named]
        found, at = [], len(reply) - len(answer)
        blank = len(answer) - len(answer.lstrip())
        for i, label in enumerate(row.labels or (answer[blank:],)):
            whole = re.compile(rf"(?<!\w){re.escape(label)}(?!\w)").search(reply, at)
            if not label or whole is None:
                raise InputError(
                    f"labels[{i}] is no word of the answer, behind the labels before it"
                )
            start, at = whole.span()
            name = f"labels[{i}]" if row.labels else "answer"
            found.append((name, (start, at)))
        return found

    def _in_turn(self, tokens: TokenizedText, turn: CharSpan, name: str, one: Place) -> CharSpan:
        start, end = char_span(tokens.text[slice(*turn)], name, one)
        return _tokens(tokens, (start + turn[0], end + turn[0]), name)

    def _option_tokens(self, before: str, labels: list[str]) -> list[int]:
        """First token of each label where the first decision is."""
        found = self._first(before[-CONTEXT:], labels)
        for i, token in enumerate(found):
            if token in found[:i]:
                raise InputError(
                    f"labels of options[{found.index(token)}] and options[{i}] begin with the same "
                    "token; give options letters, or leave their labels out"
                )
        return found

    def _first(self, before: str, labels: list[str]) -> list[int]:
        known = self._first_tokens
        if new := [label for label in dict.fromkeys(labels) if (before, label) not in known]:
            texts = tokenize_all(self._tokenizer, [before + label for label in new])
            for label, text in zip(new, texts, strict=True):
                at, _ = _tokens(text, (len(before), len(text.text)), "the label of an option")
                known[before, label] = text.tokens[at]
        return [known[before, label] for label in labels]


def _check_options(
    labels: list[str],
    tokens: list[int],
    wanted: tuple[str, ...],
    starts: list[int],
    ids: list[int],
    names: list[str],
) -> None:
    """Every label that is decided about is an option's, and begins with that option's token."""
    for named, label, start in zip(names, wanted, starts, strict=True):
        if label not in labels:
            raise InputError(f"{named} is the label of no option")
        if ids[start] != tokens[labels.index(label)]:
            raise InputError(
                f"{named} begins with another token than its option does at the first "
                "decision; write the same before each label, a space or a line break"
            )


def _tokens(tokens: TokenizedText, span: CharSpan, name: str) -> tuple[int, int]:
    try:
        return tokens.token_span(span)
    except InputError:
        start, end = span
        near = [b for begin, b in tokens.offsets if begin < end and b > start]
        raise InputError(
            f"{name} is not on token borders ({len(near)} tokens hold its {end - start} characters)"
        ) from None


def _border(tokens: TokenizedText, end: int) -> int:
    """How many tokens the prompt has, of so many characters."""
    first = next(i for i, (_, stop) in enumerate(tokens.offsets) if stop > end)
    if tokens.offsets[first][0] != end:
        raise InputError(
            "a token holds the end of the prompt and the start of the reply; move the space or "
            "line break at the prompt's end to the reply's start"
        )
    return first
