"""Rows of training data (see `chats.examples_from_chats`) out of a task's prompts and chains.

A row is text with places: which parts of the chain shortlist for a decision and which weigh its
candidates, where the chain names the true label and the near misses, and which options these are.
"""

import re
from collections.abc import Sequence
from typing import Any

from workbench.prompts.chain import step_spans
from workbench.prompts.drawn import DrawnPrompt
from workbench.prompts.task import Task
from workbench.prompts.templates import CharSpan, PlainTemplate

CUE = "\n"
"""Between chain and answer, as rows have it."""


def question(task: Task, prompt: DrawnPrompt) -> str:
    """The prompt's text in the plain template, up to where chain or answer begin."""
    rendered = task.render(prompt, PlainTemplate())
    return rendered.text.removesuffix(PlainTemplate.answer_cue)


def ruled_reply(task: Task, prompt: DrawnPrompt) -> str:
    """The task's own right chain and answer, as a model should write them behind the reason cue."""
    steps = "".join(f"\n{step}" for step in task.chain(prompt))
    return steps + PlainTemplate.answer_cue + "".join(f" {word}" for word in task.answer(prompt))


def task_row(task: Task, prompt: DrawnPrompt, reply: str) -> dict[str, Any] | None:
    """The row of a reply that was written behind the reason cue; None unless it is right.

    It is right when its answer, behind its only answer cue, is the task's own, word by word.
    """
    template = PlainTemplate()
    written, cue, answer = reply.partition(template.answer_cue)
    if not cue or answer.split() != " ".join(task.answer(prompt)).split():
        return None
    chain = template.reason_cue + written
    letters = prompt.letters
    rendered = task.render(prompt, template)
    golds = [prompt.candidates.index(label) for label in prompt.golds]
    near = [
        [at for at, role in enumerate(task.roles(prompt, event)) if role == "near"]
        for event in range(len(golds))
    ]
    options = [
        {"span": list(span), "label": letter}
        for span, letter in zip(rendered.options, letters.values(), strict=True)
    ]
    row = {
        "id": prompt.id,
        "prompt": question(task, prompt),
        "chain": chain,
        "answer": template.answer_cue.removeprefix(CUE) + answer,
        "labels": [letters[label] for label in prompt.golds],
        "options": options,
        "evidence": [list(span) for span in task.evidence(prompt, rendered)],
    }
    places = _places(task, chain, len(template.reason_cue), list(letters.values()), golds, near)
    in_prompt = [
        {"span": options[at]["span"], "decision": event, "in": "prompt"}
        for event, labels in enumerate(near)
        for at in labels
    ]
    places["near"] += in_prompt
    return {**row, **places, "gold": golds, "near_options": near}


def _places(
    task: Task,
    chain: str,
    opened: int,
    letters: Sequence[str],
    golds: Sequence[int],
    near: Sequence[Sequence[int]],
) -> dict[str, list[Any]]:
    """Places in a chain of whose text the first characters are the cue."""
    spans = [(a + opened, b + opened) for a, b in step_spans(chain[opened:])]
    spans = [(b - len(chain[a:b].lstrip()), b) for a, b in spans]  # tokens may hold break and blank
    steps = [chain[a:b] for a, b in spans]
    found: dict[str, list[Any]] = {"early": [], "late": [], "shortlist": [], "near": []}
    for event, gold in enumerate(golds):
        stages = task.stages(event, steps)
        told = set(task.telling(event, steps))

        def add(kind: str, span: CharSpan, event: int = event) -> None:
            found[kind].append({"span": list(span), "decision": event})

        for at, (span, step, stage) in enumerate(zip(spans, steps, stages, strict=True)):
            if stage == "coarse":
                add("early", span)
                for place in _named(step, letters[gold], span[0]):
                    add("shortlist", place)
            if stage == "fine":
                last = {
                    place: option
                    for option in (gold, *near[event])
                    for place in _named(step, letters[option], span[0])
                }
                option = last[max(last)] if last else gold
                found["late"].append({"span": list(span), "decision": event, "option": option})
            if at in told:
                add("shortlist", span)
            if stage in ("coarse", "fine"):
                for option in near[event]:
                    for place in _named(step, letters[option], span[0]):
                        add("near", place)
    found["near"] = [{**place, "in": "chain"} for place in found["near"]]
    return found


def _named(step: str, letter: str, start: int) -> list[CharSpan]:
    """Where a step names an option by its letter: the last time, as words may be letters, too."""
    found = list(re.finditer(rf"(?<!\S){re.escape(letter)}(?!\S)", step))[-1:]
    return [(start + match.start(), start + match.end()) for match in found]
