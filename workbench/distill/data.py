"""What a student is trained on: the teacher's traces mixed with direct examples.

Example i depends on (seed, i) and the traces alone, whatever was drawn before it and by whom.
"""

import random
from collections.abc import Sequence
from typing import Any, Unpack

import torch
from torch import Tensor

from workbench.distill.losses import IGNORED
from workbench.distill.questions import Example, direct_example, draw_question
from workbench.errors import InputError
from workbench.models.organism_data import ExampleMix, ExampleStream, StreamSizes, WordEncoder
from workbench.prompts.tasks import CodingTask

NO_SPAN = (0, 0)
NO_DECISION = -1


class DistillationStream(ExampleStream):
    """The teacher's traces and direct questions.

    Traces come in their own order and again from the first after the last. In their place stands,
    with probability `mix.direct`, a fresh question answered at once; over the first `mix.ramp` of
    the samples its mentions go from written out to the task's shorthand.

    Args:
        task: what direct questions are drawn from.
        encode: the tokenizer.
        traces: the teacher's.
        mix: shares and the weight of the prompt's tokens.
        sizes: `n_samples`, `context`, `same_size` and `seed`, see `StreamSizes`. Traces are not
            drawn, so they are taken at any length.

    Raises:
        InputError: no traces, though some examples are to have a chain.
    """

    def __init__(
        self,
        task: CodingTask,
        encode: WordEncoder,
        traces: Sequence[Example],
        mix: ExampleMix,
        **sizes: Unpack[StreamSizes],
    ) -> None:
        if not traces and mix.direct < 1:
            raise InputError("no traces are given, and not all examples are direct")
        super().__init__(task, encode, mix, **sizes)
        self._traces = traces

    def __getitem__(self, index: int) -> dict[str, Any]:
        rng = self._rng(index)
        if rng.random() < self._mix.direct:
            example = self._direct(index, rng)
        else:
            example = self._traces[index % len(self._traces)]
        question = example.question
        return {
            **self._sample(question.ids, example.target),
            "question": len(question.ids),
            "option_spans": question.option_spans,
            "option_tokens": question.option_tokens,
            "evidence": question.evidence,
            "decisions": example.decisions,
        }

    def _direct(self, index: int, rng: random.Random) -> Example:
        ease = self._ease(index)
        while True:
            question = draw_question(self._task, self._encode, rng, self._sizes(index), ease)
            example = direct_example(question, self._encode)
            if len(question.ids) + len(example.target) < self._context:
                return example


class Collator:
    """Pads samples on the right to a multiple of `multiple`; no mask is needed, it is causal."""

    def __init__(self, multiple: int = 64) -> None:
        self._multiple = multiple

    def __call__(self, samples: Sequence[dict[str, Any]]) -> dict[str, Tensor]:
        """A batch.

        `input_ids`, `labels` (IGNORED on padding) and loss `weights` are [batch, position].
        `length` and `question`, the tokens of the whole and of the prompt, are [batch].
        `option_spans` are [batch, option, 2], `option_tokens` [batch, option], `evidence`
        [batch, decision, 2] and `decisions` [batch, decision]; missing spans are (0, 0), missing
        decisions -1.
        """
        longest = max(len(sample["ids"]) for sample in samples)
        width = -(-longest // self._multiple) * self._multiple
        ids = [sample["ids"] for sample in samples]
        return {
            "input_ids": _padded(ids, 0, width),
            "labels": _padded(ids, IGNORED, width),
            "weights": _padded([sample["weights"] for sample in samples], 0.0, width),
            "length": torch.tensor([len(row) for row in ids]),
            "question": torch.tensor([sample["question"] for sample in samples]),
            "option_spans": _padded([s["option_spans"] for s in samples], NO_SPAN),
            "option_tokens": _padded([s["option_tokens"] for s in samples], 0),
            "evidence": _padded([s["evidence"] for s in samples], NO_SPAN),
            "decisions": _padded([s["decisions"] for s in samples], NO_DECISION),
        }


def _padded(rows: Sequence[Sequence[Any]], filling: Any, width: int | None = None) -> Tensor:
    width = max(map(len, rows)) if width is None else width
    return torch.tensor([[*row, *[filling] * (width - len(row))] for row in rows])
