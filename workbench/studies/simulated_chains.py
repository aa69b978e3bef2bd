"""What a model writes for a task, as rows for a simulator: one a decision and version of the chain.

The part with the answer is cut from every chain. What is left may still say the answer, so there
are three versions of each chain:

    whole       as it was written: the letter of the answer stands in it
    unlettered  without the letters of options at the ends of steps: labels by their texts alone
    undecided   without the steps that rule out and decide: shortlists, and what is said of them
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from workbench.analysis.chains.generation import draw_prompts
from workbench.models.greedy import end_tokens, greedy_tokens
from workbench.progress import Reporter, beating
from workbench.prompts.drawn import DrawnPrompt
from workbench.prompts.task import NO_OPTION, Task
from workbench.prompts.templates import PlainTemplate

KINDS = ("whole", "unlettered", "undecided")
SPARE = 48
"""Tokens that a chain and its answer may have beyond the longest right ones."""
_LETTERS = re.compile(r"( [A-Z])+$")


def written_rows(
    model: Any,
    tokenizer: Any,
    task: Task,
    parts: Mapping[str, tuple[int, int]],
    *,
    room: int | None,
    batch_size: int,
    reporter: Reporter,
) -> pd.DataFrame:
    """What a model writes for some prompts, as rows; column part is the name of their part.

    Args:
        model: a Hugging Face causal language model.
        tokenizer: the model's, of the fast kind.
        task: what prompts are drawn from.
        parts: number of prompts and seed of each part.
        room: tokens of a chain and its answer; what the longest right one has, and `SPARE`, unless
            given.
        batch_size: chains written together.
        reporter: where progress is told.
    """
    drawn = [(part, x) for part, given in parts.items() for x in draw_prompts(task, *given)]
    prompts = [prompt for _, prompt in drawn]
    room = room or _room(tokenizer, task, prompts)
    written: list[str] = []
    with reporter.step("chains", len(prompts), "chains") as advance:
        for start in range(0, len(prompts), batch_size):
            some = prompts[start : start + batch_size]
            with beating():
                written += _written(model, tokenizer, task, some, room)
            advance(len(written), len(prompts))
    rows = [
        {**row, "id": f"{part} {prompt.id}", "part": part}
        for (part, prompt), text in zip(drawn, written, strict=True)
        for row in rows_of(task, prompt, text)
    ]
    return pd.DataFrame(rows)


def _room(tokenizer: Any, task: Task, prompts: Sequence[DrawnPrompt]) -> int:
    """Tokens of the longest right chain and answer, and some more."""
    cue = PlainTemplate.answer_cue
    texts = [
        "".join(f"\n{step}" for step in task.chain(prompt))
        + f"{cue} {' '.join(task.answer(prompt))}"
        for prompt in prompts
    ]
    return SPARE + max(map(len, tokenizer(texts, add_special_tokens=False)["input_ids"]))


def _written(
    model: Any, tokenizer: Any, task: Task, prompts: Sequence[DrawnPrompt], room: int
) -> list[str]:
    """Chain and answer of each prompt, as text behind the cue that opens a chain."""
    template = PlainTemplate()
    texts = [_input(task, prompt) + template.reason_cue for prompt in prompts]
    encoded = tokenizer(texts, add_special_tokens=False, split_special_tokens=True)["input_ids"]
    tokens = greedy_tokens(
        model,
        encoded,
        max_new_tokens=room,
        end=end_tokens(model, tokenizer),
        batch_size=len(encoded),
    )
    return tokenizer.batch_decode(tokens, skip_special_tokens=True)


def _input(task: Task, prompt: DrawnPrompt) -> str:
    return task.render(prompt, PlainTemplate()).text.removesuffix(PlainTemplate.answer_cue)


def rows_of(task: Task, prompt: DrawnPrompt, written: str) -> list[dict[str, Any]]:
    """One row a decision and version of the chain; output "" where it answers with no option.

    Args:
        task: of the prompt.
        prompt: as drawn.
        written: chain and answer, behind the cue that opens a chain.
    """
    template = PlainTemplate()
    chain, _, answer = written.partition(template.answer_cue)
    said = task.read_answer(prompt, answer.split())
    letters, golds = prompt.letters, prompt.golds
    said = [*said, *[NO_OPTION] * len(golds)][: len(golds)]
    given = _input(task, prompt)
    rows = []
    for kind, text in versions(task, chain, len(golds)).items():
        for event, (label, gold) in enumerate(zip(said, golds, strict=True)):
            letter = letters.get(label)
            rows.append(
                {"id": prompt.id, "event": event, "kind": kind, "input": given}
                | {"chain": template.reason_cue + text, "right": label == gold}
                | {"question": f"{template.answer_cue} {event + 1}"}
                | {"output": "" if letter is None else f" {letter}"}
            )
    return rows


def versions(task: Task, chain: str, n_decisions: int) -> dict[str, str]:
    """The three versions of a chain, by `KINDS`; its answer is cut already."""
    steps = [step for step in chain.split("\n") if step.strip()]
    decided: set[int] = set()
    for event in range(n_decisions):
        stages = task.stages(event, steps)
        decided |= {number for number, stage in enumerate(stages) if stage == "fine"}
    kept = [step for number, step in enumerate(steps) if number not in decided]
    made = (steps, [_LETTERS.sub("", step) for step in steps], kept)
    return {
        kind: "".join(f"\n{step}" for step in some) for kind, some in zip(KINDS, made, strict=True)
    }
