"""The training stream of the reasoner: laterality prompts with chains in two formats.

An example asks for all mentions by number, in order of the note or in a random one, so that the
model can be asked about any mention first. Before the answer stands the whole chain, in the usual
or in the control format; or its first steps (*partial*); or nothing (*direct*).
"""

import random
from typing import Any

from transformers import PreTrainedTokenizerBase

from workbench.organism.examples import ExampleStream
from workbench.prompts.laterality import CONTROL_CUE, LateralityTask
from workbench.prompts.templates import PlainTemplate


class TextEncoder:
    """Token ids of a text by a pretrained tokenizer; the text of a control token is text."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        assert isinstance(tokenizer.eos_token_id, int)
        self.end = tokenizer.eos_token_id
        self._tokenizer = tokenizer

    def __call__(self, text: str) -> list[int]:
        """Token ids of the text."""
        encoded: Any = self._tokenizer(text, add_special_tokens=False, split_special_tokens=True)
        return encoded["input_ids"]


class ReasonerStream(ExampleStream):
    """Sample i is the same at every call; `control` is the share of chains in the other format."""

    def __init__(self, task: LateralityTask, *args: Any, control: float, **sizes: Any) -> None:
        super().__init__(task, *args, **sizes)
        self._sides = task
        self._control = control

    def __getitem__(self, index: int) -> dict[str, Any]:
        rng = self._rng(index)
        task = self._sides.eased(self._ease(index))
        while True:
            question, target = self._draw(task, rng)
            prompt_ids, target_ids = self._encode(question), self._encode(target)
            if len(prompt_ids) + len(target_ids) < self._context:
                return self._sample(prompt_ids, target_ids)

    def _draw(self, task: LateralityTask, rng: random.Random) -> tuple[str, str]:
        template = PlainTemplate()
        prompt = task.draw("", rng)
        question = task.render(prompt, template).text.removesuffix(template.answer_cue)
        answers = task.answer(prompt)
        if rng.random() < 0.5:
            rng.shuffle(answers)
        answer = template.answer_cue + "".join(f" {words}" for words in answers)
        draw = rng.random()
        if draw < self._mix.direct:
            return question, answer
        control = rng.random() < self._control
        steps = task.control_chain(prompt) if control else task.chain(prompt)
        if draw < self._mix.direct + self._mix.partial:
            steps = steps[: rng.randint(1, len(steps) - 1)]
        cue = CONTROL_CUE if control else template.reason_cue
        return question, cue + "".join(f"\n{step}" for step in steps) + answer
