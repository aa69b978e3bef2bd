"""The chain of thought of the coding task: one coarse and one fine step for each mention.

For mention k, in order of the note:
- coarse, `k in B F K P`: the letters of the candidates in the family that the mention points to;
- fine, `k is Cyst of spleen F`: the description of the mentioned label, word for word, which
  parts it from its near misses where they differ, and its letter.
"""

from collections.abc import Mapping

from workbench.labels.space import LabelSpace
from workbench.prompts.tasks import CodingPrompt


def chain_steps(space: LabelSpace, prompt: CodingPrompt, letter_of: Mapping[str, str]) -> list[str]:
    """The correct chain, a line a step: coarse and fine for each mention in turn."""
    steps = []
    for number, mention in enumerate(prompt.mentions, start=1):
        family = sorted(letter_of[label] for label in prompt.family_of(mention.label))
        steps.append(f" {number} in {' '.join(family)}")
        text = space[mention.label].text
        steps.append(f" {number} is {text} {letter_of[mention.label]}")
    return steps
