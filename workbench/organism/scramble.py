"""Invented labels: a family's words replaced, so that its descriptions cannot be known by heart.

A model that sees the same 65,000 descriptions again and again learns to recite them, and then
recites one instead of reading the options when a label is new to it. Training mixes in families in
which every telling word is swapped, the same way throughout the family, for another real word or
for a crossing of two. Words that shorthand has set forms for (left, initial, fracture) stay.
"""

import random
import re
from collections.abc import Sequence
from dataclasses import replace
from typing import TypeVar

from workbench.labels.space import Label, LabelSpace
from workbench.prompts.coding import CodingTask
from workbench.prompts.drawn import DrawnPrompt
from workbench.prompts.laterality import LateralityTask
from workbench.prompts.shorthand import SET_ABBREVIATIONS, content_words

_LONG_WORD = re.compile(r"[A-Za-z]{4,}")


Inventable = TypeVar("Inventable", CodingTask, LateralityTask)


def lexicon(task: CodingTask | LateralityTask) -> list[str]:
    """Words of a task's labels that may stand in for others, sorted."""
    words = {word for label in task.labels for word in task.words(label)}
    return sorted(word for word in words if _replaceable(word))


def scramble(
    task: Inventable, prompt: DrawnPrompt, words: Sequence[str], rng: random.Random, share: float
) -> tuple[Inventable, DrawnPrompt]:
    """The prompt with each family scrambled with probability `share`, and a task that knows it.

    Labels keep their ids; the returned task holds the prompt's candidates only.
    """
    labels: list[Label] = []
    for family in prompt.families:
        original = [task.space[label] for label in family]
        labels += _scrambled(original, words, rng) if rng.random() < share else original
    invented = task.with_labels(LabelSpace(task.space.name, labels))
    return invented, invented.reworded(prompt, rng)


def _scrambled(family: Sequence[Label], words: Sequence[str], rng: random.Random) -> list[Label]:
    old = sorted({w.lower() for label in family for w in _LONG_WORD.findall(label.text)})
    new: dict[str, str] = {}
    taken = {word for word in old if not _replaceable(word)}
    for word in filter(_replaceable, old):
        while (other := _invent(words, rng)) in taken:
            pass  # one word for two would make two labels of a family alike
        new[word] = other
        taken.add(other)

    def swap(match: re.Match[str]) -> str:
        word = match.group()
        other = new.get(word.lower(), word)
        return other.capitalize() if word[0].isupper() else other

    return [replace(label, text=_LONG_WORD.sub(swap, label.text), synonyms=()) for label in family]


def _invent(words: Sequence[str], rng: random.Random) -> str:
    first = rng.choice(words)
    if rng.random() < 0.5:
        return first
    second = rng.choice(words)
    return first[: max(2, len(first) // 2)] + second[len(second) // 2 :]


def _replaceable(word: str) -> bool:
    known = word in SET_ABBREVIATIONS or not content_words(word)
    return not known and _LONG_WORD.fullmatch(word) is not None
