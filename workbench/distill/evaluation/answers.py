"""Free answers to unseen prompts, with and without a chain of thought, as a table of labels."""

from typing import Any

import pandas as pd
from tokenizers import Tokenizer

from workbench.analysis.chains.generation import draw_prompts, written_answers
from workbench.analysis.label_space.label_sets import answer_scores
from workbench.progress import Advance
from workbench.prompts.task import Task

DIRECT, CHAIN = "direct", "chain"
IN_EVERY_TASK = ("in_order", "decisions")
"""Metrics of every task, which the scores of the ranking say better."""

SCORES = ["exact", "p1", "p3", "ndcg3", "tp", "fp", "fn"]
COLUMNS = ["setting", "prompt", "gold", "listed", *SCORES]


def answers(
    model: Any,
    tokenizer: Tokenizer,
    task: Task,
    *,
    n_prompts: int,
    seed: int,
    chain: bool,
    batch_size: int = 500,
    max_new_tokens: int = 256,
    progress: Advance | None = None,
) -> pd.DataFrame:
    """Greedy answers to fresh prompts, one row a prompt; nothing is forced.

    Args:
        model: a Hugging Face causal language model.
        tokenizer: the model's.
        task: what prompts are drawn from.
        n_prompts: how many; prompt i is the same whatever their number.
        seed: of the prompts.
        chain: whether the model writes a chain of thought before the answer.
        batch_size: prompts answered together.
        max_new_tokens: of a chain and its answer; one that is not done by then counts as it stands.
        progress: called with prompts done and all prompts.

    Returns:
        columns setting ("direct" or "chain"), prompt (its number), gold (ids of the right labels,
        in order of the mentions, between spaces), listed (ids of the labels answered, in order,
        with "?" for what is no option), exact (the same set), p1, p3, ndcg3, tp, fp, fn; then the
        metrics that the task adds.
    """
    prompts = draw_prompts(task, n_prompts, seed)
    listed: list[list[str]] = []
    own: list[dict[str, float]] = []
    for start in range(0, n_prompts, batch_size):
        batch = prompts[start : start + batch_size]
        written = written_answers(
            model, tokenizer, task, batch, chain=chain, max_new_tokens=max_new_tokens
        )
        for prompt, words in zip(batch, written, strict=True):
            labels = task.read_answer(prompt, words)
            listed.append(list(dict.fromkeys(labels)))
            own.append(task.metrics(prompt, labels))
        if progress:
            progress(len(listed), n_prompts)
    gold = [prompt.golds for prompt in prompts]
    table = answer_scores(gold, listed).assign(
        setting=CHAIN if chain else DIRECT,
        prompt=[int(prompt.id) for prompt in prompts],
        gold=[" ".join(row) for row in gold],
        listed=[" ".join(row) for row in listed],
    )
    added = pd.DataFrame(own).drop(columns=list(IN_EVERY_TASK))
    return table.reindex(columns=COLUMNS).join(added)
