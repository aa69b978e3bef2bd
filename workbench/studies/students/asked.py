"""Prompts on which students answer with chains of their own, and how right their answers are."""

import random
from collections.abc import Callable, Sequence
from typing import Any

from workbench.analysis.chains.generation import draw_prompts
from workbench.labels.as_text import as_text
from workbench.prompts.drawn import DrawnPrompt
from workbench.prompts.task import Task
from workbench.prompts.templates import PlainTemplate

SPARE = 32
"""Tokens that a reply may have beyond the longest right one."""
REPORT, SELECT, SEEN = "report", "select", "seen"
SEEDS = {REPORT: 2400, SELECT: 2401, SEEN: 2402}
"""Of the prompts that results are reported on, that settings are selected on (both of labels that
no training row holds), and of labels of the training."""

Write = Callable[[Sequence[Sequence[int]], int], list[list[int]]]
"""Continues prompts by so many tokens at most."""


class Asked:
    """Some prompts as tokens that end where a chain begins.

    Attributes:
        ids: of the prompts.
        most: tokens that a reply may have.
    """

    def __init__(self, tokenizer: Any, task: Task, n: int, seed: int) -> None:
        template = PlainTemplate()
        self._tokenizer, self._task = tokenizer.backend_tokenizer, task
        self._prompts: list[DrawnPrompt] = draw_prompts(task, n, seed)
        self.ids, longest = [], 0
        with as_text(self._tokenizer):
            for prompt in self._prompts:
                text = task.render(prompt, template).text.removesuffix(template.answer_cue)
                self.ids.append(self._tokenizer.encode(text + template.reason_cue).ids)
                steps = "".join(f"\n{step}" for step in task.chain(prompt))
                reply = f"{steps}{template.answer_cue} {' '.join(task.answer(prompt))}"
                longest = max(longest, len(self._tokenizer.encode(reply).ids))
        self.most = longest + SPARE

    def __len__(self) -> int:
        return len(self.ids)

    def marks(self, replies: Sequence[Sequence[int]]) -> dict[str, str]:
        """A digit a prompt: `exact`, 1 where all is right, and `decisions`, how many are (to 9)."""
        cue = PlainTemplate.answer_cue.strip()
        written = self._tokenizer.decode_batch(list(map(list, replies)), skip_special_tokens=True)
        found = [
            self._task.metrics(
                prompt, self._task.read_answer(prompt, text.partition(cue)[2].split())
            )
            for prompt, text in zip(self._prompts, written, strict=True)
        ]
        return {
            "exact": "".join(str(int(one["in_order"])) for one in found),
            "decisions": "".join(str(min(9, int(one["decisions"]))) for one in found),
        }


def ask(write: Write, sets: dict[str, Asked]) -> dict[str, dict[str, str]]:
    """`Asked.marks` of several sets, whose replies are written together."""
    prompts = [row for one in sets.values() for row in one.ids]
    replies = write(prompts, max(one.most for one in sets.values()))
    found, at = {}, 0
    for name, one in sets.items():
        found[name] = one.marks(replies[at : at + len(one)])
        at += len(one)
    return found


def rows_for(seed: int, n_rows: int, n: int) -> list[int]:
    """Which rows a student of this seed is trained on: the same for every arm."""
    return random.Random(f"{seed}:rows").sample(range(n_rows), min(n, n_rows))


def share_right(digits: str) -> float:
    """Mean of marks of `Asked.marks`."""
    return sum(map(int, digits)) / len(digits)
