"""What a student is trained on: the teacher's traces mixed with direct examples.

Example i depends on (seed, i) and the traces alone, whatever was drawn before it and by whom. The
examples of a batch have about the same length, so that little of it is padding.
"""

import random
from collections.abc import Sequence
from typing import Any, Unpack

import torch
from torch import Tensor

from workbench.distill.examples.questions import Example, direct_example, draw_question
from workbench.distill.losses.losses import IGNORED
from workbench.errors import InputError
from workbench.organism.examples import ExampleStream, StreamSizes
from workbench.organism.mix import ExampleMix
from workbench.prompts.task import Task
from workbench.prompts.word_encoder import Encoder

NO_SPAN = (0, 0)
NO_DECISION = -1
NO_OPTION = -1
NOT_NAMED = (NO_DECISION, *NO_SPAN)
PLACES = {
    "option_spans": NO_SPAN,
    "option_tokens": 0,
    "evidence": NO_SPAN,
    "decisions": NO_DECISION,
    "early": NO_DECISION,
    "early_decision": NO_DECISION,
    "late": NO_DECISION,
    "late_decision": NO_DECISION,
    "late_option": NO_OPTION,
    "shortlist": NOT_NAMED,
    "near": NOT_NAMED,
    "gold": NO_DECISION,
    "near_options": (NO_DECISION, 0),
}
"""Places that a sample may have, and what stands where there is none."""

WINDOW = 32
"""Batches whose traces are sorted by length together; in between, traces keep their order."""

TRIES = 8
"""Draws after which a direct example may be longer than the trace it stands for."""

LAST_TRY = 200
"""Draws without one that is shorter than the context, after which there seems to be none."""


class DistillationStream(ExampleStream):
    """The teacher's traces and direct questions.

    Traces come batch by batch of about equal length, batches in their own order but for
    `WINDOW`, and again from the first after the last. In the place of a trace stands, with
    probability `mix.direct`, a fresh question with as many options and no longer (as far as eight
    draws give one), answered at once, unless none is shorter than the context; over the first
    `mix.ramp` of the samples its mentions go from written out to the task's shorthand.

    Args:
        task: what direct questions are drawn from.
        encode: the tokenizer.
        traces: the teacher's.
        mix: shares and the weight of the prompt's tokens.
        sizes: `n_samples`, `context`, `same_size` (of a batch) and `seed`, see `StreamSizes`.
            Traces are not drawn, so they are taken at any length.

    Raises:
        InputError: no traces, though some examples are to have a chain; or direct ones, though no
            question is shorter than the context.
    """

    def __init__(
        self,
        task: Task,
        encode: Encoder,
        traces: Sequence[Example],
        mix: ExampleMix,
        **sizes: Unpack[StreamSizes],
    ) -> None:
        if not traces and mix.direct < 1:
            raise InputError("no traces are given, and not all examples are direct")
        super().__init__(task, encode, mix, **sizes)
        self._traces = _in_batches(traces, self._same_size)
        if mix.direct:
            check_context(task, encode, self._context)

    def __getitem__(self, index: int) -> dict[str, Any]:
        rng = self._rng(index)
        example = self._traces[index % len(self._traces)] if self._traces else None
        if rng.random() < self._mix.direct or example is None:
            example = self._direct(index, rng, example) or example
            example = example or check_context(self._task, self._encode, self._context, rng)
        question = example.question
        return {
            **self._sample(question.ids, example.target),
            "question": len(question.ids),
            "option_spans": question.option_spans,
            "option_tokens": question.option_tokens,
            "evidence": question.evidence,
            "decisions": example.decisions,
        }

    def _direct(self, index: int, rng: random.Random, instead_of: Example | None) -> Example | None:
        """A question that is shorter than the context; None where none was drawn."""
        ease, task, room = self._ease(index), self._task, self._context
        if instead_of is not None:
            task = task.with_options(len(instead_of.question.option_spans), rng)
            room = min(room, _length(instead_of) + 1)
        for tries in range(LAST_TRY):
            question = draw_question(task, self._encode, rng, self._sizes(index), ease)
            example = direct_example(question, self._encode)
            if _length(example) < (room if tries < TRIES else self._context):
                return example
        return None


def check_context(
    task: Task, encode: Encoder, context: int, rng: random.Random | None = None
) -> Example:
    """A direct example of the fewest options, in shorthand, that is shorter than the context.

    Raises:
        InputError: in many draws there was none.
    """
    rng = rng or random.Random("context")
    smallest = task.smallest()
    for _ in range(LAST_TRY):
        example = direct_example(draw_question(smallest, encode, rng, rng, 1.0), encode)
        if _length(example) < context:
            return example
    raise InputError(
        f"context is {context}: even of the questions with the fewest options, none of {LAST_TRY} "
        "has fewer tokens; give more"
    )


def _in_batches(traces: Sequence[Example], size: int) -> list[Example]:
    """Sorted by length in windows and cut into batches, which are shuffled within their window.

    What does not fill a batch at the end is left out, so that batches stay whole when traces are
    taken again; unless that is all there is.
    """
    rng, ordered = random.Random("batches of traces"), []
    whole = len(traces) - len(traces) % size
    for start in range(0, whole, WINDOW * size):
        window = sorted(traces[start : min(start + WINDOW * size, whole)], key=_length)
        batches = [window[at : at + size] for at in range(0, len(window), size)]
        rng.shuffle(batches)
        ordered += [trace for batch in batches for trace in batch]
    return ordered or list(traces)


def _length(example: Example) -> int:
    return len(example.question.ids) + len(example.target)


class Collator:
    """Pads samples on the right to a multiple of `multiple`; no mask is needed, it is causal."""

    def __init__(self, multiple: int = 32) -> None:
        self._multiple = multiple

    def __call__(self, samples: Sequence[dict[str, Any]]) -> dict[str, Tensor]:
        """A batch.

        `input_ids`, `labels` (IGNORED on padding) and loss `weights` are [batch, position].
        `length` and `question`, the tokens of the whole and of the prompt, are [batch].
        `option_spans` are [batch, option, 2], `option_tokens` [batch, option], `evidence`
        [batch, decision, 2], `decisions` [batch, decision] and the places in the chain (see
        `places`), where any sample has them; missing spans are (0, 0), decisions and positions -1.
        """
        longest = max(len(sample["ids"]) for sample in samples)
        width = -(-longest // self._multiple) * self._multiple
        ids = [sample["ids"] for sample in samples]
        places = {
            name: _padded([_places(sample, name, filling) for sample in samples], filling)
            for name, filling in PLACES.items()
            if any(name in sample for sample in samples)
        }
        return {
            "input_ids": _padded(ids, 0, width),
            "labels": _padded(ids, IGNORED, width),
            "weights": _padded([sample["weights"] for sample in samples], 0.0, width),
            "length": torch.tensor([len(row) for row in ids]),
            "question": torch.tensor([sample["question"] for sample in samples]),
            **places,
        }


def _places(sample: dict[str, Any], name: str, filling: Any) -> Sequence[Any]:
    """Places of a sample, which may have none where others do."""
    n = len(sample.get("decisions", ())) if name in ("evidence", "gold") else 0
    return sample.get(name, [filling] * n)


def _padded(rows: Sequence[Sequence[Any]], filling: Any, width: int | None = None) -> Tensor:
    width = max(1, *map(len, rows)) if width is None else width
    return torch.tensor([[*row, *[filling] * (width - len(row))] for row in rows])
