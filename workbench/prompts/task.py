"""What a task must say to have prompts, chains of thought, students and evaluations.

A new task is a subclass of `Task` with `space`, `most_decisions`, `draw` and `mention`; what else a
task says follows from these unless it says otherwise:

- *counterfactuals*: one mention is replaced by a far or a near candidate's;
- *chain*: for mention k a coarse step, `k in B F K P`, the letters of the family that the mention
  points to, and a fine step, `k is Cyst of spleen F`, the label's text and letter;
- *answer*: the letters of the right candidates, in order of the mentions.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from workbench.errors import InputError
from workbench.labels.space import LabelSpace
from workbench.prompts.chain import numbered_stages
from workbench.prompts.drawn import Counterfactuals, DrawnPrompt, Mention
from workbench.prompts.prompt import Role
from workbench.prompts.templates import CharSpan, RenderedPrompt, Template

NO_OPTION = "?"
"""Stands for a word of an answer that selects no option: it takes its place, and is wrong."""


@dataclass(frozen=True)
class Posed:
    """A decision of a prompt and of its counterfactuals: the clean, the far and the near text.

    Attributes:
        texts: up to the decision.
        swapped: the last place of each text that differs.
        evidence: of the clean text, what tells the family.
        fine_evidence: of the clean text, what tells the gold label from its near misses, where that
            is another place.
    """

    texts: Sequence[str]
    swapped: Sequence[CharSpan]
    evidence: CharSpan
    fine_evidence: CharSpan | None = None


@runtime_checkable
class Task(Protocol):
    """What prompts are drawn from, and how its chains and answers read.

    Attributes:
        space: the labels.
        most_decisions: of a prompt.
    """

    space: LabelSpace
    most_decisions: int

    @property
    def name(self) -> str:
        """What prompts of the task are called: its name in `choices.KINDS`."""
        return self.space.name

    def draw(
        self, prompt_id: str, rng: random.Random, sizes: random.Random | None = None
    ) -> DrawnPrompt:
        """A random prompt, which depends on the random states alone.

        `sizes`, or else `rng`, draws how many families and candidates there are, so that the
        prompts of a batch can be equally long.
        """
        ...

    def mention(self, prompt: DrawnPrompt, label: str, rng: random.Random) -> Mention:
        """How a note may word this candidate so that it can be told from the other candidates."""
        ...

    def counterfactuals(
        self, prompt: DrawnPrompt, event: int, rng: random.Random
    ) -> Counterfactuals:
        """The prompt with the mention of one event replaced by a far and by a near candidate's.

        A far one is of a family that nobody mentions, where there is such a family.
        """
        golds = prompt.golds
        home = prompt.family_of(golds[event])
        free = [family for family in prompt.families if not set(golds) & set(family)]
        elsewhere = free or [family for family in prompt.families if family != home]
        far = rng.choice([x for family in elsewhere for x in family if x not in golds])
        near = rng.choice([x for x in home if x not in golds])
        swapped = (self.mention(prompt, label, rng) for label in (far, near))
        return Counterfactuals(event, prompt, *(prompt.with_mention(event, x) for x in swapped))

    def render(self, prompt: DrawnPrompt, template: Template) -> RenderedPrompt:
        """Text up to the answer cue, with the places of mentions and options."""
        return template.render(self.space, prompt)

    def pose(self, drawn: Counterfactuals, rendered: Sequence[RenderedPrompt]) -> Posed:
        """Ask about the mention after the letters of those before it; it is the evidence."""
        letters = drawn.clean.letters
        asked = "".join(f" {letters[label]}" for label in drawn.clean.golds[: drawn.event])
        swapped = [text.mentions[drawn.event] for text in rendered]
        return Posed([text.asking(asked) for text in rendered], swapped, swapped[0])

    def evidence(self, prompt: DrawnPrompt, rendered: RenderedPrompt) -> list[CharSpan]:
        """Characters that tell the family, one span a decision."""
        return list(rendered.mentions)

    def roles(self, prompt: DrawnPrompt, event: int) -> list[Role]:
        """Roles of the candidates, in the order shown, when a mention is decided about."""
        return [prompt.role(event, label) for label in prompt.candidates]

    def chain(self, prompt: DrawnPrompt) -> list[str]:
        """The correct chain of thought, a line a step: coarse and fine for each mention in turn."""
        steps, letters = [], prompt.letters
        for number, label in enumerate(prompt.golds, start=1):
            family = sorted(letters[other] for other in prompt.family_of(label))
            steps.append(f" {number} in {' '.join(family)}")
            steps.append(f" {number} is {self.space[label].text} {letters[label]}")
        return steps

    def stages(self, event: int, steps: Sequence[str]) -> list[str]:
        """What the steps of a freely written chain are to one decision, see `chain.STAGES`."""
        return numbered_stages(event, steps)

    def telling(self, event: int, steps: Sequence[str]) -> list[int]:
        """Which steps, beside the coarse, say what the true label has and a near miss lacks."""
        return []

    def answer(self, prompt: DrawnPrompt) -> list[str]:
        """The words of the right answer, one a decision."""
        letters = prompt.letters
        return [letters[label] for label in prompt.golds]

    def read_answer(self, prompt: DrawnPrompt, words: Sequence[str]) -> list[str]:
        """The labels that an answer's words select, in order; "?" for a word that selects none."""
        label_of = {letter: label for label, letter in prompt.letters.items()}
        return [label_of.get(word, NO_OPTION) for word in words]

    def metrics(self, prompt: DrawnPrompt, listed: Sequence[str]) -> dict[str, float]:
        """How right an answer is, of the labels that it lists.

        `in_order` (1 where every decision is right and nothing follows) and `decisions` (how many
        are right) at least; evaluations average what a task adds.
        """
        pairs = zip(listed, prompt.golds, strict=False)
        right = sum(label == gold for label, gold in pairs)
        return {"in_order": float(list(listed) == prompt.golds), "decisions": float(right)}

    def eased(self, ease: float) -> "Task":
        """The same task with easier mentions: from 0, as easy as can be, to 1, this task."""
        return self

    def with_options(self, n_options: int, rng: random.Random) -> "Task":
        """The same task with so many candidates in a prompt, where it can have them."""
        return self

    def smallest(self) -> "Task":
        """The same task with the fewest candidates."""
        return self

    def sized(self, n_options: int) -> "Task":
        """The same task with so many candidates in every prompt.

        Raises:
            InputError: it cannot have them.
        """
        raise InputError(f"prompts of {self.space.name} have a number of options of their own")

    def settings(self) -> dict[str, Any]:
        """What decides the draws, as JSON: kept with traces, which are of these settings alone."""
        return {"task": self.name}
