"""The training stream of the bundled model: sample i is the same at every call, on every machine.

Each sample is a prompt of a task with its answer, and between them the whole chain of
thought, the first steps of it, or nothing (a *direct* example).
"""

import random
from collections.abc import Sequence
from typing import Any, TypedDict, Unpack

import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from torch.utils.data import Dataset

from workbench.errors import InputError
from workbench.organism.mix import ExampleMix
from workbench.organism.scramble import lexicon, scramble
from workbench.prompts.coding import CodingTask
from workbench.prompts.drawn import option_letters
from workbench.prompts.task import Task
from workbench.prompts.templates import PlainTemplate
from workbench.prompts.word_encoder import END, Encoder, WordEncoder

IGNORED = -100


class StreamSizes(TypedDict):
    """What streams of examples take beside their contents.

    Attributes:
        n_samples: how many examples.
        context: examples have fewer tokens; drawn ones that do not are drawn again.
        same_size: so many drawn examples in a row, a batch, have the same number of families and of
            candidates, so that little of it is padding.
        seed: example i is drawn from it and i alone.
    """

    n_samples: int
    context: int
    same_size: int
    seed: int


class ExampleStream(Dataset[dict[str, Any]]):
    """What the map-style data sets of training examples share."""

    def __init__(
        self, task: Task, encode: Encoder, mix: ExampleMix, **sizes: Unpack[StreamSizes]
    ) -> None:
        self._task = task
        self._encode = encode
        self._mix = mix
        self._n_samples = sizes["n_samples"]
        self._context = sizes["context"]
        self._same_size = sizes["same_size"]
        self._seed = sizes["seed"]

    def __len__(self) -> int:
        return self._n_samples

    def _rng(self, index: int) -> random.Random:
        return random.Random(f"{self._seed}:{index}")

    def _sizes(self, index: int) -> random.Random:
        """The same for a batch."""
        return random.Random(f"{self._seed}:sizes:{index // self._same_size}")

    def _ease(self, index: int) -> float:
        """How far mentions have gone from written out, 0, to the task's shorthand, 1."""
        ramp = self._mix.ramp * self._n_samples
        return index / ramp if index < ramp else 1.0

    def _sample(self, prompt: Sequence[int], target: Sequence[int]) -> dict[str, Any]:
        """Token ids with the end, and their loss weights."""
        weights = [self._mix.prompt_weight] * len(prompt) + [1.0] * (len(target) + 1)
        return {"ids": [*prompt, *target, self._encode.end], "weights": weights}


class TrainingStream(ExampleStream):
    """The examples that the bundled model is trained on."""

    def __init__(
        self, task: Task, tokenizer: Tokenizer, mix: ExampleMix, **sizes: Unpack[StreamSizes]
    ) -> None:
        super().__init__(task, WordEncoder(tokenizer), mix, **sizes)
        self._lexicon: list[str] = []
        if mix.invented:
            if not isinstance(task, CodingTask):
                raise InputError(f"labels of task {task.space.name!r} cannot be invented")
            self._lexicon = lexicon(task)

    def __getitem__(self, index: int) -> dict[str, Any]:
        rng, ease = self._rng(index), self._ease(index)
        task = self._task.eased(ease)
        while True:  # the few prompts that are longer than the context are drawn again
            prompt, target = self._draw(task, rng, self._sizes(index))
            prompt_ids, target_ids = self._encode(prompt), self._encode(target)
            if len(prompt_ids) + len(target_ids) < self._context:
                return self._sample(prompt_ids, target_ids)

    def _draw(self, task: Task, rng: random.Random, sizes: random.Random) -> tuple[str, str]:
        prompt = task.draw("", rng, sizes)
        if self._mix.invented and isinstance(task, CodingTask):
            task, prompt = scramble(task, prompt, self._lexicon, rng, self._mix.invented)
        steps = task.chain(prompt)
        draw = rng.random()
        if draw < self._mix.direct:
            steps = []
        elif draw < self._mix.direct + self._mix.partial:
            steps = steps[: rng.randint(1, len(steps) - 1)]
        rendered = task.render(prompt, PlainTemplate())
        question = rendered.text.removesuffix(PlainTemplate.answer_cue)
        reason = PlainTemplate.reason_cue + "".join(f"\n{step}" for step in steps) if steps else ""
        answer = "".join(f" {word}" for word in task.answer(prompt))
        return question, reason + PlainTemplate.answer_cue + answer


class Collator:
    """Pads samples on the right to a multiple of 64, so that there are few shapes to compile."""

    def __call__(self, samples: Sequence[dict[str, Any]]) -> dict[str, torch.Tensor]:
        """`input_ids`, `labels` (IGNORED on padding) and loss `weights`, each [batch, position]."""
        longest = max(len(sample["ids"]) for sample in samples)
        shape = (len(samples), -(-longest // 64) * 64)
        input_ids = torch.zeros(shape, dtype=torch.long)
        labels = torch.full(shape, IGNORED)
        weights = torch.zeros(shape)
        for row, sample in enumerate(samples):
            n = len(sample["ids"])
            input_ids[row, :n] = labels[row, :n] = torch.tensor(sample["ids"])
            weights[row, :n] = torch.tensor(sample["weights"])
        return {"input_ids": input_ids, "labels": labels, "weights": weights}


def train_tokenizer(task: Task, *, vocab_size: int, seed: int, n_prompts: int) -> Tokenizer:
    """Byte-level BPE on prompts and chains of the training categories.

    Letters with their space are tokens from the start, so that an answer is always one token.
    """
    tokenizer = Tokenizer(models.BPE())
    split = Regex(r"\n| ?[A-Za-z]+| ?[0-9]| ?[^\sA-Za-z0-9]+|\s")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(split, behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[END],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_corpus(task, seed, n_prompts), trainer)
    return tokenizer


def _corpus(task: Task, seed: int, n_prompts: int) -> list[str]:
    rng = random.Random(f"{seed}:tokenizer")
    letters = " " + " ".join(option_letters(26))
    texts = [letters] * n_prompts
    for _ in range(n_prompts):
        prompt = task.draw("", rng)
        texts.append(task.render(prompt, PlainTemplate()).text)
        texts += task.chain(prompt)
    return texts
