"""The ICD-10-CM coding task: a note with several mentions, and candidates to pick their codes from.

A prompt is drawn in two steps:
1. *Families*: a code, then its siblings by taxonomy parent, filled up from its category. The
   families of one prompt come from different categories, so near misses are the options of the
   gold label's own family and far options those of the others.
2. *Mentions*: some families' codes are mentioned in the note, in shorthand or by an official
   inclusion term. Another member of the same family may be mentioned too.
"""

import random
from collections import defaultdict
from collections.abc import Iterable, Sequence
from copy import copy
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from typing import Any

from workbench.errors import InputError
from workbench.labels.icd10cm import category
from workbench.labels.space import LabelSpace
from workbench.prompts.drawn import DrawnPrompt, Mention
from workbench.prompts.shorthand import ShorthandConfig, content_words, write_shorthand
from workbench.prompts.task import Task

SIZES = {"n_mentions": 1, "n_families": 2, "family_size": 2}
"""Ranges of a task's configuration, each with the smallest number it may hold."""


@dataclass(frozen=True)
class TaskConfig:
    """Size and difficulty of the prompts.

    Attributes:
        n_mentions: how many labels a note mentions. This and the next two are inclusive ranges
            from which every prompt draws evenly.
        n_families: families among the candidates; at least one more than mentions leaves a
            distractor family.
        family_size: candidates of each family.
        same_family: probability that a mention is of a family that is already mentioned.
        inclusion_term: probability that a mention uses an official inclusion term, if the label
            has one that points to it and to no other candidate.
        max_description_words: labels with longer descriptions are left out.
        shorthand: how hard mentions are to read.
    """

    n_mentions: tuple[int, int] = (3, 3)
    n_families: tuple[int, int] = (4, 4)
    family_size: tuple[int, int] = (5, 5)
    same_family: float = 0.1
    inclusion_term: float = 0.25
    max_description_words: int = 20
    shorthand: ShorthandConfig = field(default_factory=ShorthandConfig)

    def __post_init__(self) -> None:
        for name, smallest in SIZES.items():
            low, high = getattr(self, name)
            if not smallest <= low <= high:
                raise InputError(f"{name} {(low, high)} is not a range of numbers from {smallest}")

    def at_full_size(self) -> "TaskConfig":
        """The same with every range at its upper end, as prompts for evaluation have it."""
        largest = {name: (getattr(self, name)[1],) * 2 for name in SIZES}
        return replace(self, **largest)


class CodingTask(Task):
    """Draws coding prompts over a set of categories of a label space.

    Args:
        space: ICD-10-CM labels.
        categories: three-character categories whose codes may occur, as gold or as option.
        config: size and difficulty.

    Raises:
        InputError: too few families of the wanted size in these categories.
    """

    def __init__(
        self, space: LabelSpace, categories: Iterable[str], config: TaskConfig = TaskConfig()
    ) -> None:
        self.space = space
        self.config = config
        self.most_decisions = config.n_mentions[1]
        wanted = set(categories)
        self._words = {
            label.id: content_words(label.text) for label in space if category(label.id) in wanted
        }
        self._by_node: defaultdict[str, list[str]] = defaultdict(list)
        for label_id, words in self._words.items():
            n_words = len(space[label_id].text.split())
            if words and n_words <= config.max_description_words:
                for node in space[label_id].ancestors:
                    self._by_node[node].append(label_id)
        n_families = config.n_families[1]
        if len(self.categories) < n_families:
            raise InputError(
                f"only {len(self.categories)} categories have {config.family_size[1]} codes, "
                f"need {n_families}"
            )

    @cached_property
    def categories(self) -> list[str]:
        """Categories with enough codes for a family, sorted."""
        nodes = self._by_node.items()
        return sorted(
            node for node, ids in nodes if len(node) == 3 and len(ids) >= self.config.family_size[1]
        )

    @cached_property
    def _codes(self) -> list[str]:
        return [code for node in self.categories for code in self._by_node[node]]

    @property
    def labels(self) -> list[str]:
        """Ids of all labels of these categories."""
        return list(self._words)

    def words(self, label: str) -> list[str]:
        """Content words of a label's description."""
        return self._words[label]

    def with_labels(self, space: LabelSpace) -> "CodingTask":
        """The same task over other labels, for wording mentions; it cannot draw prompts."""
        other = copy(self)
        other.space = space
        other._words = {label.id: content_words(label.text) for label in space}
        return other

    def reworded(self, prompt: DrawnPrompt, rng: random.Random) -> DrawnPrompt:
        """The prompt with its mentions worded anew."""
        mentions = tuple(self.mention(prompt, old.label, rng) for old in prompt.mentions)
        return replace(prompt, mentions=mentions)

    def settings(self) -> dict[str, Any]:
        """See `Task.settings`."""
        return {"task": asdict(self.config), "categories": len(self.categories)}

    def eased(self, ease: float) -> "CodingTask":
        """Mentions with `ease` times the shorthand: at 0 they are written out."""
        return self if ease >= 1 else self._with(shorthand=self.config.shorthand.scaled(ease))

    def with_options(self, n_options: int, rng: random.Random) -> "CodingTask":
        """The same task with so many candidates; any number where its families do not allow it."""
        (least, most), (small, large) = self.config.n_families, self.config.family_size
        ways = [
            (n_families, n_options // n_families)
            for n_families in range(least, most + 1)
            if n_options % n_families == 0 and small <= n_options // n_families <= large
        ]
        if not ways:
            return self
        n_families, size = rng.choice(ways)
        return self._with(n_families=(n_families,) * 2, family_size=(size,) * 2)

    def sized(self, n_options: int) -> "CodingTask":
        """So many candidates in every prompt, in about as many families as there are.

        Raises:
            InputError: they make no families of one size, two at least of two or more.
        """
        wanted = self.config.n_families[1]
        ways = [n for n in range(2, n_options // 2 + 1) if n_options % n == 0]
        if not ways:
            raise InputError(
                f"{n_options} options make no families of one size; try {n_options - 1} or "
                f"{n_options + 1}"
            )
        n_families = min(ways, key=lambda n: (abs(n - wanted), n))
        sizes = {"n_families": n_families, "family_size": n_options // n_families}
        config = replace(self.config, **{name: (size, size) for name, size in sizes.items()})
        return CodingTask(self.space, {category(label) for label in self._words}, config)

    def smallest(self) -> "CodingTask":
        """The same task with the fewest and smallest families."""
        (n_families, _), (size, _) = self.config.n_families, self.config.family_size
        return self._with(n_families=(n_families,) * 2, family_size=(size,) * 2)

    def _with(self, **settings: Any) -> "CodingTask":
        """The same labels with other settings."""
        other = copy(self)
        other.config = replace(self.config, **settings)
        return other

    def draw(
        self, prompt_id: str, rng: random.Random, sizes: random.Random | None = None
    ) -> DrawnPrompt:
        """See `Task.draw`."""
        sizes = sizes or rng
        n_families = sizes.randint(*self.config.n_families)
        size = sizes.randint(*self.config.family_size)
        families: list[tuple[str, ...]] = []
        taken: set[str] = set()
        while len(families) < n_families:
            node = self._draw_category(rng)
            family = None if node in taken else self._draw_family(node, size, rng)
            if family is not None:
                families.append(family)
                taken.add(node)
        candidates = [label for family in families for label in family]
        rng.shuffle(candidates)
        golds = self._draw_golds(families, rng)
        bare = DrawnPrompt(prompt_id, (), tuple(families), tuple(candidates))
        mentions = tuple(self.mention(bare, gold, rng) for gold in golds)
        return replace(bare, mentions=mentions)

    def mention(self, prompt: DrawnPrompt, label: str, rng: random.Random) -> Mention:
        """The candidate in shorthand, or by an inclusion term that points to it alone."""
        if rng.random() < self.config.inclusion_term:
            terms = self._telling_terms(prompt, label)
            if terms:
                text = write_shorthand(rng.choice(terms), rng, self.config.shorthand)
                return Mention(label, text)
        others = prompt.family_of(label)
        confusable = {word for other in others if other != label for word in self._words[other]}
        text = self.space[label].text
        return Mention(label, write_shorthand(text, rng, self.config.shorthand, confusable))

    def _draw_category(self, rng: random.Random) -> str:
        """Evenly over categories or over codes: injuries have most codes, and few categories."""
        if rng.random() < 0.5:
            return rng.choice(self.categories)
        return category(rng.choice(self._codes))

    def _draw_family(self, node: str, size: int, rng: random.Random) -> tuple[str, ...] | None:
        """A code with its siblings; None where fewer than `size` differ in words."""
        anchor = rng.choice(self._by_node[node])
        family, seen = [anchor], {frozenset(self._words[anchor])}
        for ancestor in self.space[anchor].ancestors:
            # Half from the closest parents and half from the category: siblings by parent alone
            # often differ in nothing but the encounter.
            wanted = size if ancestor == node else max(len(family), 1 + size // 2)
            pool = self._by_node[ancestor]
            for label in rng.sample(pool, min(len(pool), 8 * size)):
                if len(family) >= wanted:
                    break
                words = frozenset(self._words[label])
                if words not in seen:
                    family.append(label)
                    seen.add(words)
        return tuple(family) if len(family) == size else None

    def _draw_golds(self, families: Sequence[tuple[str, ...]], rng: random.Random) -> list[str]:
        """Labels to mention; one member of each family stays unmentioned, as a near miss."""
        golds: list[str] = []
        fresh = list(families)
        used: list[tuple[str, ...]] = []
        most = sum(len(family) - 1 for family in families)
        for _ in range(min(most, rng.randint(*self.config.n_mentions))):
            again = [f for f in used if sum(label in golds for label in f) < len(f) - 1]
            if again and (not fresh or rng.random() < self.config.same_family):
                family = rng.choice(again)
            else:
                family = fresh.pop(rng.randrange(len(fresh)))
                used.append(family)
            golds.append(rng.choice([label for label in family if label not in golds]))
        return golds

    def _telling_terms(self, prompt: DrawnPrompt, label: str) -> list[str]:
        """Inclusion terms that share more words with this label than with any other candidate."""
        telling = []
        for term in self.space[label].synonyms:
            words = set(content_words(term))
            shared = {x: len(words.intersection(self._words[x])) for x in prompt.candidates}
            if shared[label] > max(n for x, n in shared.items() if x != label):
                telling.append(term)
        return telling


def split_categories(
    space: LabelSpace, *, held_out: float = 0.1, seed: int = 0
) -> tuple[list[str], list[str]]:
    """Three-character categories as (seen, unseen): the unseen ones never occur in training."""
    categories = sorted({category(label.id) for label in space})
    random.Random(seed).shuffle(categories)
    n_unseen = round(held_out * len(categories))
    return sorted(categories[n_unseen:]), sorted(categories[:n_unseen])
