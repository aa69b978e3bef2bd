"""Families of left and right pairs: a code, its mirror image, a sibling and the sibling's own."""

import random
from collections import defaultdict
from collections.abc import Iterable, Sequence
from functools import cached_property

from workbench.labels.icd10cm import category
from workbench.labels.sides import mirror_pairs, side_of, without_side
from workbench.labels.space import Label, LabelSpace
from workbench.prompts.shorthand import ShorthandConfig, content_words, write_shorthand

Pair = tuple[str, str]
"""Ids of a label on the left and of its mirror image on the right."""


class SidedFamilies:
    """Labels that come in left and right pairs, and the families that can be made of them.

    Args:
        space: texts of the labels.
        labels: which of them; those whose mirror image is missing are left out.
    """

    def __init__(self, space: LabelSpace, labels: Iterable[Label]) -> None:
        self.space = space
        self._words = {
            (left.id, right.id): _telling(content_words(without_side(left.text)))
            for left, right in mirror_pairs(labels)
        }
        self.mirror = {a: b for pair in self._words for a, b in (pair, pair[::-1])}
        self._by_category: defaultdict[str, list[Pair]] = defaultdict(list)
        for pair in self._words:
            self._by_category[category(pair[0])].append(pair)

    @cached_property
    def categories(self) -> list[str]:
        """Categories with codes for a family, sorted."""
        return sorted(
            node
            for node, pairs in self._by_category.items()
            if any(self._siblings(pair) for pair in pairs[:50])
        )

    @cached_property
    def _codes(self) -> list[Pair]:
        return [pair for node in self.categories for pair in self._by_category[node]]

    def side(self, label: str) -> str:
        """Left or right."""
        side = side_of(self.space[label].text)
        assert side is not None
        return side

    def pair(self, label: str) -> Pair:
        """The label and its mirror image, left one first."""
        mirror = self.mirror[label]
        return (label, mirror) if self.side(label) == "left" else (mirror, label)

    def words(self, label: str) -> list[str]:
        """Telling words of a label's description, without its side."""
        return self._words[self.pair(label)]

    def shared_words(self, family: Sequence[str]) -> list[str]:
        """Words that both pairs of a family have, in the order of the first."""
        first, second = (self.words(label) for label in family[::2])
        return [word for word in dict.fromkeys(first) if word in second]

    def draw(self, rng: random.Random) -> tuple[Pair, Pair] | None:
        """A pair and a sibling; None where the pair has none.

        Evenly over categories or over codes: injuries have most codes, and few categories.
        """
        if rng.random() < 0.5:
            first = rng.choice(self._by_category[rng.choice(self.categories)])
        else:
            first = rng.choice(self._codes)
        siblings = self._siblings(first)
        return (first, rng.choice(siblings)) if siblings else None

    def _siblings(self, pair: Pair) -> list[Pair]:
        """Pairs of the same category with other words, of which some are shared."""
        words = set(self._words[pair])
        return [
            other
            for other in self._by_category[category(pair[0])]
            if words & set(self._words[other]) and words != set(self._words[other])
        ]

    def shorthand(
        self, label: str, family: Sequence[str], rng: random.Random, config: ShorthandConfig
    ) -> str:
        """The words of a label in shorthand, told apart from the other pair of its family."""
        pair = self.pair(label)
        (sibling,) = {self.pair(other) for other in family} - {pair}
        text = without_side(self.space[pair[0]].text)
        return write_shorthand(text, rng, config, set(self._words[sibling]))


def _telling(words: Sequence[str]) -> list[str]:
    """Without the plural of "toe(s)" and other fragments."""
    return [word for word in words if len(word) > 2]
