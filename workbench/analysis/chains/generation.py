"""Free generation: the model writes its own chain and answer, nothing is forced.

Accuracy is measured so, since teacher-forced accuracy after a written-out chain would be near 1 for
any model that can copy; and so are the chains written whose steps are looked at.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from tokenizers import Tokenizer

from workbench.errors import InputError
from workbench.labels.as_text import as_text
from workbench.models.greedy import end_tokens, greedy_tokens
from workbench.models.hooked import HookedModel
from workbench.processes import Spread, in_order
from workbench.prompts.chain import (
    Chain,
    ChainCase,
    StageReader,
    decoded,
    make_chain,
    numbered_stages,
)
from workbench.prompts.drawn import DrawnPrompt
from workbench.prompts.prompt import Variant
from workbench.prompts.task import Task
from workbench.prompts.templates import Cues, PlainTemplate
from workbench.prompts.word_encoder import end_token


@dataclass(frozen=True)
class GenerationAccuracy:
    """Shares of `n` prompts (exact: every decision right) and of their mentions (per_mention)."""

    n: int
    exact: float
    per_mention: float


def generation_accuracy(
    model: Any,
    tokenizer: Tokenizer,
    task: Task,
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
    prompts = draw_prompts(task, n_prompts, seed)
    right_prompts = right_mentions = n_mentions = 0
    for start in range(0, n_prompts, batch_size):
        batch = prompts[start : start + batch_size]
        answers = written_answers(
            model, tokenizer, task, batch, chain=chain, max_new_tokens=max_new_tokens
        )
        for prompt, answer in zip(batch, answers, strict=True):
            found = task.metrics(prompt, task.read_answer(prompt, answer))
            right_prompts += found["in_order"]
            right_mentions += found["decisions"]
            n_mentions += len(prompt.mentions)
    return GenerationAccuracy(n_prompts, right_prompts / n_prompts, right_mentions / n_mentions)


def draw_prompts(task: Task, n_prompts: int, seed: int) -> list[DrawnPrompt]:
    """Fresh prompts of a task, on which free answers are asked for; named by their number."""
    rng = random.Random(f"{seed}:generation")
    return [task.draw(str(index), rng) for index in range(n_prompts)]


def write_chains(
    model: HookedModel,
    cases: Sequence[ChainCase],
    tokenizer: Any,
    *,
    cues: Cues = PlainTemplate.cues,
    variants: Sequence[Variant] = ("clean",),
    split: str = "line",
    stages: StageReader = numbered_stages,
    max_new_tokens: int | None = None,
    batch_size: int = 32,
    spread: Spread = in_order,
) -> list[ChainCase]:
    """The same cases with chains that the model writes itself, greedily, for some variants.

    A chain ends where the model closes it, or at any token that ends a text or a reply of this
    model. One that is never closed is kept as far as it goes, and is not `closed`.

    Args:
        model: writes the chains.
        cases: their questions are used; chains they have are dropped, and so are other variants.
        tokenizer: the model's, a Hugging Face tokenizer of the fast kind.
        cues: open and close a chain.
        variants: whose chains are written.
        split: what parts two steps, see `workbench.prompts.chain.STEP_BREAKS`.
        stages: says what the steps are to the decision, as `Task.stages` does.
        max_new_tokens: of a chain, `cues.room` unless given; fewer where the model has no room for
            more and the answer cue.
        batch_size: chains written together.
        spread: how several processes share the chains.

    Raises:
        InputError: no token that ends a text, or no room for a chain after the longest question.
    """
    opened = tokenizer(cues.opening, add_special_tokens=False)["input_ids"]
    wanted: list[tuple[ChainCase, Variant]] = [(case, name) for case in cases for name in variants]
    questions = [case.chains[name].question for case, name in wanted]
    written = write_on(
        model,
        [[*question, *opened] for question in questions],
        tokenizer,
        max_new_tokens=cues.room if max_new_tokens is None else max_new_tokens,
        spare=max((len(case.cue) for case in cases), default=0),
        batch_size=batch_size,
        spread=spread,
    )
    chains: dict[int, dict[Variant, Chain]] = {}
    for (case, name), question, tokens in zip(wanted, questions, written, strict=True):
        text, ends = decoded(tokenizer, tokens)
        before, closing, _ = text.partition(cues.closing)
        chains.setdefault(id(case), {})[name] = make_chain(
            tokenizer,
            question,
            tokens[: sum(end <= len(before) for end in ends)],
            opening=opened,
            split=split,
            stages=stages,
            event=case.event.event,
            closed=bool(closing),
        )
    return [replace(case, chains=chains[id(case)]) for case in cases]


def write_on(
    model: HookedModel,
    asked: Sequence[Sequence[int]],
    tokenizer: Any,
    *,
    max_new_tokens: int,
    spare: int = 0,
    batch_size: int = 32,
    spread: Spread = in_order,
) -> list[list[int]]:
    """What the model writes after some tokens, greedily, until it ends its text or its reply.

    Args:
        model: writes.
        asked: tokens to go on from.
        tokenizer: the model's.
        max_new_tokens: at most; fewer where the model has no room for more and `spare` tokens.
        spare: tokens to be put behind what is written.
        batch_size: texts written together.
        spread: how several processes share the texts.

    Raises:
        InputError: no token that ends a text, or no room after the longest.
    """
    network = model.bridge.original_model
    ends = end_tokens(network, tokenizer)
    if model.context_length is not None and asked:
        longest = max(map(len, asked)) + spare
        max_new_tokens = min(max_new_tokens, model.context_length - longest)
    if max_new_tokens < 1:
        raise InputError("the model has no room for a chain after the longest question")

    def written(some: Sequence[Sequence[int]]) -> list[list[int]]:
        return greedy_tokens(
            network, some, max_new_tokens=max_new_tokens, end=ends, batch_size=batch_size
        )

    return spread(written, asked)


def written_answers(
    model: Any,
    tokenizer: Tokenizer,
    task: Task,
    prompts: Sequence[DrawnPrompt],
    *,
    chain: bool,
    opening: str = PlainTemplate.reason_cue,
    end: int | None = None,
    max_new_tokens: int = 256,
) -> list[list[str]]:
    """The words of each greedy answer, in order: letters of options where the model knows how.

    One batch. With `chain` the model writes `max_new_tokens` at most, and what follows its first
    answer cue counts: nothing where it never gets there. Without, it may write a word more than the
    longest answer of the batch has.

    Args:
        model: a Hugging Face causal language model.
        tokenizer: the model's.
        task: whose prompts these are.
        prompts: put into the plain template.
        chain: whether the model writes a chain of thought first.
        opening: text of the cue that opens a chain.
        end: token that ends a text; the bundled tokenizer's unless given.
        max_new_tokens: of a chain and its answer.
    """
    template = PlainTemplate()
    texts = [task.render(prompt, template).text for prompt in prompts]
    if chain:
        texts = [text.removesuffix(template.answer_cue) + opening for text in texts]
    with as_text(tokenizer):
        encoded = [tokenizer.encode(text).ids for text in texts]
    end = end_token(tokenizer) if end is None else end
    answers = [" ".join(["", *task.answer(prompt)]) for prompt in prompts]
    n_answer = max(len(tokenizer.encode(answer).ids) for answer in answers) + 1
    n_new = max_new_tokens if chain else n_answer
    output = greedy_tokens(model, encoded, max_new_tokens=n_new, end=end, batch_size=len(encoded))
    written = tokenizer.decode_batch(output, skip_special_tokens=True)
    cue = template.answer_cue.strip()
    return [(text.partition(cue)[2] if chain else text).split() for text in written]
