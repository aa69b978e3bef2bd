"""The training stream of the reasoner: laterality prompts with chains in two formats.

An example asks for mentions by number, in order of the note or in a random one, so that the model
can be asked about any mention first. Before the answer stands the whole chain, in the usual or in
the control format. Or its first steps (*partial*): then mentions are asked for whose shortlist is
there. Or nothing (*direct*): then those are asked for that refer to no other. So nothing teaches
the model to follow a reference without its chain.
"""

import random
from typing import Any

from transformers import PreTrainedTokenizerBase

from workbench.organism.examples import ExampleStream
from workbench.organism.scramble import lexicon, scramble
from workbench.prompts.laterality import LateralityTask
from workbench.prompts.laterality_chain import CONTROL_CUE
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
        self._lexicon = lexicon(task) if self._mix.invented else []

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
        if self._mix.invented:
            task, prompt = scramble(task, prompt, self._lexicon, rng, self._mix.invented)
        question = task.render(prompt, template).text.removesuffix(template.answer_cue)
        control = rng.random() < self._control
        steps = task.control_chain(prompt) if control else task.chain(prompt)
        places, draw = list(range(len(prompt.mentions))), rng.random()
        if draw < self._mix.direct:
            steps = []
            places = [place for place in places if task.depth(prompt, place) == 0]
        elif draw < self._mix.direct + self._mix.partial:
            steps = steps[: rng.randint(1, len(steps) - 1)]
            places = [place for place in places if "coarse" in task.stages(place, steps)]
        if rng.random() < 0.5:
            rng.shuffle(places)
        answers = task.answer(prompt)
        answer = template.answer_cue + "".join(f" {answers[place]}" for place in places)
        cue = CONTROL_CUE if control else template.reason_cue
        chain = cue + "".join(f"\n{step}" for step in steps) if steps else ""
        return question, chain + answer
