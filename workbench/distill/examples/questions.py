"""A prompt as tokens, with the places that the losses look at.

The tokenizer is one whose tokens do not cross a word's border, as the bundled model's; spans lie on
such borders, so the pieces between them can be encoded one by one.
"""

import random
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any

from pydantic import ConfigDict

from workbench.distill.config import plain
from workbench.prompts.drawn import DrawnPrompt
from workbench.prompts.prompt import Span
from workbench.prompts.task import Task
from workbench.prompts.templates import PlainTemplate
from workbench.prompts.word_encoder import Encoder

_STRICT = ConfigDict(strict=True, extra="forbid")


@dataclass(frozen=True)
class Question:
    """A prompt without the cue that follows it.

    Attributes:
        ids: tokens of note and options.
        option_spans: tokens of each option's description and letter, half-open.
        option_tokens: the token that selects each option.
        evidence: tokens of each mention, half-open.
        answer: the tokens of the right letters, in order of the mentions.
    """

    __pydantic_config__ = _STRICT  # where a trace file is read

    ids: tuple[int, ...]
    option_spans: tuple[Span, ...]
    option_tokens: tuple[int, ...]
    evidence: tuple[Span, ...]
    answer: tuple[int, ...]


@dataclass(frozen=True)
class Example:
    """A question, and what a student is to write after it.

    Attributes:
        question: the prompt.
        target: tokens of the chain, if any, the answer cue and the answer, without the end token.
        decisions: for each mention the position in question and target whose next token answers it.
    """

    __pydantic_config__ = _STRICT

    question: Question
    target: tuple[int, ...]
    decisions: tuple[int, ...]

    def to_json(self) -> dict[str, Any]:
        """Token ids and positions."""
        return plain(asdict(self))

    def fits(self) -> bool:
        """Whether its places are in it, and its answer is where they say."""
        n, answer = len(self.question.ids), self.question.answer
        first = n + len(self.target) - len(answer) - 1
        spans = (*self.question.option_spans, *self.question.evidence)
        return (
            0 < len(answer) <= len(self.target)
            and self.target[-len(answer) :] == answer
            and self.decisions == tuple(range(first, first + len(answer)))
            and len(self.question.option_spans) == len(self.question.option_tokens)
            and all(0 <= start <= end <= n for start, end in spans)
        )

    @property
    def tokens(self) -> tuple[int, ...]:
        """All token ids in it."""
        return (*self.question.ids, *self.question.option_tokens, *self.target)


def make_question(task: Task, prompt: DrawnPrompt, encode: Encoder) -> Question:
    """Render a prompt with the plain template and find its places in tokens."""
    rendered = task.render(prompt, PlainTemplate())
    text = rendered.text.removesuffix(PlainTemplate.answer_cue)
    spans = [*task.evidence(prompt, rendered), *rendered.options]
    borders = sorted({0, len(text), *(border for span in spans for border in span)})
    token_at, ids = {0: 0}, []
    for start, end in pairwise(borders):
        ids += encode(text[start:end])
        token_at[end] = len(ids)
    placed = [(token_at[start], token_at[end]) for start, end in spans]
    n_mentions = len(rendered.mentions)
    return Question(
        ids=tuple(ids),
        option_spans=tuple(placed[n_mentions:]),
        option_tokens=tuple(encode(f" {letter}")[0] for letter in prompt.letters.values()),
        evidence=tuple(placed[:n_mentions]),
        answer=tuple(encode(f" {word}")[0] for word in task.answer(prompt)),
    )


def direct_example(question: Question, encode: Encoder) -> Example:
    """The question answered at once, rightly."""
    return _answered(question, [], encode)


def traced_example(question: Question, written: Sequence[int], encode: Encoder) -> Example | None:
    """The question with a chain and an answer as a model wrote them; None where it is not right.

    `written` follows the reason cue and ends before the end token. It is right when the letters
    after its last answer cue, and nothing else, are those of the mentions.
    """
    opening = encode(PlainTemplate.reason_cue)
    closing = [*encode(PlainTemplate.answer_cue), *question.answer]
    if tuple(written[-len(closing) :]) != tuple(closing):
        return None
    return _answered(question, [*opening, *written[: -len(closing)]], encode)


def _answered(question: Question, chain: Sequence[int], encode: Encoder) -> Example:
    cue = encode(PlainTemplate.answer_cue)
    first = len(question.ids) + len(chain) + len(cue) - 1
    return Example(
        question,
        (*chain, *cue, *question.answer),
        tuple(first + number for number in range(len(question.answer))),
    )


def draw_question(
    task: Task, encode: Encoder, rng: random.Random, sizes: random.Random, ease: float
) -> Question:
    """A fresh question; at ease 0 its mentions are as easy as can be, at 1 as the task has them."""
    task = task.eased(ease)
    return make_question(task, task.draw("", rng, sizes), encode)
