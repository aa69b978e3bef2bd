"""Accuracy by free generation: the model writes its own chain and answer, nothing is forced.

Teacher-forced accuracy after a written-out chain would be near 1 for any model that can copy.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from tokenizers import Tokenizer

from workbench.models.organism_data import end_token
from workbench.prompts.tasks import CodingPrompt, CodingTask
from workbench.prompts.templates import PlainTemplate, letter_of


@dataclass(frozen=True)
class GenerationAccuracy:
    """Shares of `n` prompts (exact: every letter right) and of their mentions (per_mention)."""

    n: int
    exact: float
    per_mention: float


def generation_accuracy(
    model: Any,
    tokenizer: Tokenizer,
    task: CodingTask,
    *,
    chain: bool,
    n_prompts: int,
    seed: int,
    batch_size: int = 256,
    max_new_tokens: int = 256,
) -> GenerationAccuracy:
    """Greedy answers to `n_prompts` fresh prompts of a task.

    With `chain` the prompt ends at the reason cue and the model writes the steps and the answer
    itself; without it the prompt ends at the answer cue. A generation that never reaches an
    answer counts as wrong.
    """
    rng = random.Random(f"{seed}:generation")
    prompts = [task.draw(str(index), rng) for index in range(n_prompts)]
    right_prompts = right_mentions = n_mentions = 0
    for start in range(0, n_prompts, batch_size):
        batch = prompts[start : start + batch_size]
        answers = _answers(model, tokenizer, task, batch, chain, max_new_tokens)
        for prompt, answer in zip(batch, answers, strict=True):
            gold = [letter_of(prompt)[mention.label] for mention in prompt.mentions]
            right_prompts += answer == gold
            right_mentions += sum(a == g for a, g in zip(answer, gold, strict=False))
            n_mentions += len(gold)
    return GenerationAccuracy(n_prompts, right_prompts / n_prompts, right_mentions / n_mentions)


def _answers(
    model: Any,
    tokenizer: Tokenizer,
    task: CodingTask,
    prompts: Sequence[CodingPrompt],
    chain: bool,
    max_new_tokens: int,
) -> list[list[str]]:
    template = PlainTemplate()
    texts = [template.render(task.space, prompt).text for prompt in prompts]
    if chain:
        texts = [text.removesuffix(template.answer_cue) + template.reason_cue for text in texts]
    encoded = [tokenizer.encode(text).ids for text in texts]
    width = max(map(len, encoded))
    end = end_token(tokenizer)
    ids = torch.tensor([[end] * (width - len(row)) + row for row in encoded], device=model.device)
    mask = torch.tensor(
        [[0] * (width - len(row)) + [1] * len(row) for row in encoded], device=model.device
    )
    n_new = max_new_tokens if chain else max(len(prompt.mentions) for prompt in prompts) + 1
    with torch.no_grad():
        output = model.generate(
            input_ids=ids,
            attention_mask=mask,
            max_new_tokens=n_new,
            do_sample=False,
            eos_token_id=end,
            pad_token_id=end,
        )
    written = tokenizer.decode_batch(output[:, width:].tolist(), skip_special_tokens=True)
    cue = template.answer_cue.strip()
    return [(text.partition(cue)[2] if chain else text).split() for text in written]
