"""The laterality task: which code, and on which side, where the side is found by reference.

Labels are ICD-10-CM codes that come in left and right pairs. A note has numbered mentions in
shorthand; a mention states its side or refers to another mention's, and may take the whole
diagnosis from there (see `references`). The candidates are families of four: a code, its mirror
image, a sibling and the sibling's mirror image. The deeper a reference, the more a model needs its
chain of thought: it decides about the mentions in order of reference.

    reason:
     2 in fracture shaft femur A F K P                  shortlists, in order of reference
     5 as 2 in fracture shaft femur A F K P
     2 side left                                        then for each mention the side,
     2 not Displaced fracture of shaft of right femur K     a near miss that it rules out,
     2 is Displaced fracture of shaft of left femur A       and the label
     5 side opposite of left at 2 : right
     …
    answer: 1 C 2 A 3 …

The control format says all sides first and opens with another cue: what comes first in a chain
could be an artefact of how chains are written.

Counterfactuals: *far* has the words of a family that nobody mentions in place of the mention's own,
or of those it refers to; *near* has a side turned round, where it is stated or at the mention. So
the evidence of the two phases are different places of the note.
"""

import random
import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from copy import copy
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from typing import Any

from workbench.errors import InputError
from workbench.labels.icd10cm import category
from workbench.labels.sides import mirror_pairs, opposite, side_of, without_side
from workbench.labels.space import LabelSpace
from workbench.prompts.chain import Stage
from workbench.prompts.drawn import Counterfactuals, DrawnPrompt, Mention
from workbench.prompts.prompt import Role
from workbench.prompts.references import (
    SidedMention,
    depth,
    in_order,
    side_path,
    turned,
    words_path,
    write_mention,
)
from workbench.prompts.shorthand import ShorthandConfig, content_words, write_shorthand
from workbench.prompts.task import Posed, Task
from workbench.prompts.templates import PlainTemplate, RenderedPrompt

NAME = "laterality"
REASONED = "laterality-chain"
CONTROL_CUE = "\nsides first:"
"""Opens a chain in the control format."""

_STAGE_OF: dict[str, Stage] = {"in": "coarse", "side": "other", "not": "fine", "is": "fine"}
_STEP = re.compile(r"\s*(\d+) (?:as \d+ )?(in|side|not|is)\b")


@dataclass(frozen=True)
class LateralityConfig:
    """Size and difficulty of the prompts.

    Attributes:
        n_mentions: of a note.
        n_families: families of four among the candidates.
        n_mentioned: families that a note mentions, each with words of its own once; at least one
            family stays unmentioned.
        relative: probability that a mention with words of its own refers to another for its side;
            one mention at least states it.
        deepest: probability that a reference is to a mention of the greatest depth so far.
        flips: probability that a reference is to the other side.
        max_description_words: labels with longer descriptions are left out.
        shorthand: how hard mentions are to read.
    """

    n_mentions: int = 6
    n_families: int = 5
    n_mentioned: int = 3
    relative: float = 0.4
    deepest: float = 0.85
    flips: float = 0.7
    max_description_words: int = 14
    shorthand: ShorthandConfig = field(default_factory=ShorthandConfig)

    def __post_init__(self) -> None:
        if not 1 <= self.n_mentioned < self.n_families or self.n_mentioned > self.n_mentions:
            raise InputError(
                f"n_mentioned is {self.n_mentioned}, must be at least 1, below n_families "
                f"({self.n_families}), and not above n_mentions ({self.n_mentions})"
            )


@dataclass(frozen=True)
class Turned(Counterfactuals):
    """Counterfactuals with the places of the mentions that were changed."""

    words_at: int = 0
    side_at: int = 0


Pair = tuple[str, str]
"""Ids of a label on the left and of its mirror image on the right."""


class LateralityTask(Task):
    """Draws laterality prompts over a set of categories of a label space.

    Args:
        space: labels of which some come in left and right pairs.
        categories: three-character categories whose codes may occur, as gold or as option.
        config: size and difficulty.

    Raises:
        InputError: too few categories with two pairs that share a word.
    """

    def __init__(
        self,
        space: LabelSpace,
        categories: Iterable[str],
        config: LateralityConfig = LateralityConfig(),
    ) -> None:
        self.space = space
        self.config = config
        self.most_decisions = config.n_mentions
        wanted = set(categories)
        pairs = mirror_pairs(label for label in space if category(label.id) in wanted)
        self._words = {
            (left.id, right.id): _telling(content_words(without_side(left.text)))
            for left, right in pairs
            if len(left.text.split()) <= config.max_description_words
        }
        self._mirror = {a: b for pair in self._words for a, b in (pair, pair[::-1])}
        self._by_category: defaultdict[str, list[Pair]] = defaultdict(list)
        for pair in self._words:
            self._by_category[category(pair[0])].append(pair)
        if len(self.categories) < config.n_families:
            raise InputError(
                f"only {len(self.categories)} categories have two left and right pairs that share "
                f"a word, need {config.n_families}"
            )

    @property
    def name(self) -> str:
        """See `Task.name`."""
        return NAME

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

    @property
    def labels(self) -> list[str]:
        """Ids of all labels of these categories that come in pairs."""
        return list(self._mirror)

    def words(self, label: str) -> list[str]:
        """Telling words of a label's description, without its side."""
        return self._words[self._pair(label)]

    def with_labels(self, space: LabelSpace) -> "LateralityTask":
        """The same task over other texts of the same labels; it cannot draw prompts."""
        other = copy(self)
        other.space = space
        other._words = {
            (left.id, right.id): _telling(content_words(without_side(left.text)))
            for left, right in mirror_pairs(space)
        }
        return other

    def reworded(self, prompt: DrawnPrompt, rng: random.Random) -> DrawnPrompt:
        """The prompt with the words of its mentions written anew."""
        mentions = []
        for mention in _sided(prompt):
            if mention.words_of is None:
                pair = self._pair(mention.label)
                (sibling,) = {self._pair(x) for x in prompt.family_of(mention.label)} - {pair}
                mention = mention.reworded(self._shorthand(pair, sibling, rng))
            mentions.append(mention)
        return replace(prompt, mentions=tuple(mentions))

    def settings(self) -> dict[str, Any]:
        """See `Task.settings`."""
        return {"task": {"name": NAME, **asdict(self.config)}, "categories": len(self.categories)}

    def eased(self, ease: float) -> "LateralityTask":
        """Mentions with `ease` times the shorthand: at 0 they are written out."""
        if ease >= 1:
            return self
        other = copy(self)
        other.config = replace(self.config, shorthand=self.config.shorthand.scaled(ease))
        return other

    def draw(
        self, prompt_id: str, rng: random.Random, sizes: random.Random | None = None
    ) -> DrawnPrompt:
        """See `Task.draw`; all prompts have the same size."""
        config = self.config
        families: list[tuple[Pair, Pair]] = []
        while len(families) < config.n_families:
            family = self._draw_family(rng)
            taken = {category(pair[0]) for pair, _ in families}
            if family is not None and category(family[0][0]) not in taken:
                families.append(family)
        candidates = [label for family in families for pair in family for label in pair]
        rng.shuffle(candidates)
        mentions = self._draw_mentions(families[: config.n_mentioned], rng)
        rng.shuffle(families)
        as_labels = tuple(tuple(x for pair in family for x in pair) for family in families)
        return DrawnPrompt(prompt_id, tuple(mentions), as_labels, tuple(candidates))

    def _draw_family(self, rng: random.Random) -> tuple[Pair, Pair] | None:
        """Evenly over categories or over codes: injuries have most codes, and few categories."""
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

    def _draw_mentions(
        self, families: Sequence[tuple[Pair, Pair]], rng: random.Random
    ) -> list[SidedMention]:
        """Mentions in order of reference are drawn, then put into places of the note at random."""
        config = self.config
        kinds = ["words"] * len(families) + ["whole"] * (config.n_mentions - len(families))
        rest = kinds[1:]
        rng.shuffle(rest)
        place_of = rng.sample(range(config.n_mentions), config.n_mentions)
        mentions: list[SidedMention | None] = [None] * config.n_mentions
        depths: dict[int, int] = {}
        fresh = list(families)
        for number, kind in enumerate([kinds[0], *rest]):
            place, to = place_of[number], None
            whole = kind == "whole"
            stated = [at for at, found in depths.items() if found == 0]
            if whole:
                deepest = [at for at, found in depths.items() if found == max(depths.values())]
                to = rng.choice(deepest if rng.random() < config.deepest else list(depths))
            elif stated and rng.random() < config.relative:
                to = rng.choice(stated)
            flips = to is not None and rng.random() < config.flips
            words = None
            if whole:
                assert to is not None
                source = mentions[to]
                assert source is not None
                label = self._mirror[source.label] if flips else source.label
            else:
                family = fresh.pop()
                pair, sibling = family if rng.random() < 0.5 else family[::-1]
                words = self._shorthand(pair, sibling, rng)
                side = rng.choice((0, 1))
                if to is not None:
                    source = mentions[to]
                    assert source is not None
                    side = (self._side(source.label) == "right") ^ flips
                label = pair[int(side)]
            mentions[place] = write_mention(
                label, words, self._side(label), rng, refers_to=to, flips=flips
            )
            depths[place] = 0 if to is None else 1 + depths[to]
        return [mention for mention in mentions if mention is not None]

    def _shorthand(self, pair: Pair, sibling: Pair, rng: random.Random) -> str:
        text = without_side(self.space[pair[0]].text)
        return write_shorthand(text, rng, self.config.shorthand, set(self._words[sibling]))

    def _side(self, label: str) -> str:
        side = side_of(self.space[label].text)
        assert side is not None
        return side

    def _pair(self, label: str) -> Pair:
        return (label, self._mirror[label])[:: 1 if self._side(label) == "left" else -1]  # type: ignore[return-value]

    def mention(self, prompt: DrawnPrompt, label: str, rng: random.Random) -> Mention:
        """The candidate with its side stated."""
        pair = self._pair(label)
        (sibling,) = {self._pair(other) for other in prompt.family_of(label)} - {pair}
        return write_mention(label, self._shorthand(pair, sibling, rng), self._side(label), rng)

    def counterfactuals(self, prompt: DrawnPrompt, event: int, rng: random.Random) -> Turned:
        """See the module's text; what refers to a changed mention changes with it."""
        mentions = _sided(prompt)
        words_at = words_path(mentions, event)[-1]
        side_at = rng.choice([event, side_path(mentions, event)[-1]])
        near = list(mentions)
        for place in range(len(near)):
            if side_at in side_path(mentions, place):
                near[place] = replace(near[place], label=self._mirror[near[place].label])
        near[side_at] = turned(near[side_at], self._side(mentions[side_at].label), rng)

        free = [family for family in prompt.families if not set(prompt.golds) & set(family)]
        pairs = [self._pair(label) for label in rng.choice(free)[::2]]
        pair, sibling = pairs if rng.random() < 0.5 else pairs[::-1]
        far = list(mentions)
        for place in range(len(far)):
            if words_at in words_path(mentions, place):
                label = pair[self._side(far[place].label) == "right"]
                far[place] = replace(far[place], label=label)
        far[words_at] = far[words_at].reworded(self._shorthand(pair, sibling, rng))
        variants = (replace(prompt, mentions=tuple(each)) for each in (far, near))
        return Turned(event, prompt, *variants, words_at=words_at, side_at=side_at)

    def pose(self, drawn: Counterfactuals, rendered: Sequence[RenderedPrompt]) -> Posed:
        """Ask by number, as earlier answers would tell what the mention refers to.

        The words are the evidence of the coarse phase, the side is that of the fine phase.
        """
        assert isinstance(drawn, Turned)
        words, sides = [], []
        for prompt, text in zip((drawn.clean, drawn.far, drawn.near), rendered, strict=True):
            starts = [start for start, _ in text.mentions]
            mentions = _sided(prompt)
            words.append(_moved(mentions[drawn.words_at].words_span, starts[drawn.words_at]))
            sides.append(_moved(mentions[drawn.side_at].side_span, starts[drawn.side_at]))
        behind = max(words[0], sides[0], key=lambda span: span[1])
        texts = [text.asking(f" {drawn.event + 1}") for text in rendered]
        return Posed(texts, [behind, words[1], sides[2]], words[0], sides[0])

    def roles(self, prompt: DrawnPrompt, event: int) -> list[Role]:
        """Labels of other mentions are wrong as any other, since a number is asked about."""
        gold = prompt.golds[event]
        family = prompt.family_of(gold)
        return [
            "gold" if label == gold else "near" if label in family else "far"
            for label in prompt.candidates
        ]

    def chain(self, prompt: DrawnPrompt) -> list[str]:
        """The correct chain of thought, in order of reference; see the module's text."""
        order = in_order(_sided(prompt))
        decided = [step for place in order for step in self._decided(prompt, place, side=True)]
        return [*(self._shortlist(prompt, place) for place in order), *decided]

    def control_chain(self, prompt: DrawnPrompt) -> list[str]:
        """The same with all sides first."""
        order = in_order(_sided(prompt))
        steps = [self._side_step(prompt, place) for place in order]
        for place in order:
            steps += [self._shortlist(prompt, place), *self._decided(prompt, place, side=False)]
        return steps

    def _shortlist(self, prompt: DrawnPrompt, place: int) -> str:
        mention = _sided(prompt)[place]
        family, letters = prompt.family_of(mention.label), prompt.letters
        first, second = (self._words[self._pair(label)] for label in family[::2])
        shared = " ".join(word for word in dict.fromkeys(first) if word in second)
        source = "" if mention.words_of is None else f" as {mention.words_of + 1}"
        listed = " ".join(sorted(letters[label] for label in family))
        return f" {place + 1}{source} in {shared} {listed}"

    def _side_step(self, prompt: DrawnPrompt, place: int) -> str:
        mention = _sided(prompt)[place]
        side, to = self._side(mention.label), mention.side_of
        if to is None:
            return f" {place + 1} side {side}"
        there = opposite(side) if mention.flips else side
        how = "opposite of" if mention.flips else "same as"
        return f" {place + 1} side {how} {there} at {to + 1} : {side}"

    def _decided(self, prompt: DrawnPrompt, place: int, *, side: bool) -> list[str]:
        gold, letters = prompt.golds[place], prompt.letters
        miss = self._mirror[gold]
        steps = [self._side_step(prompt, place)] if side else []
        steps.append(f" {place + 1} not {self.space[miss].text} {letters[miss]}")
        return [*steps, f" {place + 1} is {self.space[gold].text} {letters[gold]}"]

    def depth(self, prompt: DrawnPrompt, event: int) -> int:
        """References from a mention to a stated side."""
        return depth(_sided(prompt), event)

    def stages(self, event: int, steps: Sequence[str]) -> list[str]:
        """See `laterality_stages`."""
        return laterality_stages(event, steps)

    def answer(self, prompt: DrawnPrompt) -> list[str]:
        """Number and letter of every mention."""
        letters = prompt.letters
        return [f"{place + 1} {letters[label]}" for place, label in enumerate(prompt.golds)]

    def read_answer(self, prompt: DrawnPrompt, words: Sequence[str]) -> list[str]:
        """Labels in order of the numbers; "?" for a mention without one or with two."""
        given: defaultdict[str, list[str]] = defaultdict(list)
        for number, letter in zip(words[::2], words[1::2], strict=False):
            given[number].append(letter)
        numbers = [str(place + 1) for place in range(len(prompt.mentions))]
        found = [given[number][0] if len(given[number]) == 1 else "" for number in numbers]
        extra = [number for number in given if number not in numbers]
        return super().read_answer(prompt, [*found, *extra])


class ReasonedLaterality(LateralityTask):
    """The same decisions in the middle of a chain: after the mention has ruled out its near miss.

    Each variant goes on with the chain that belongs to it up to there, and the number is asked
    about. So the evidence is in the chain: of the coarse phase the mention's shortlist, of the fine
    phase the step that names the near miss. What the variants share is the question's cue alone.
    """

    @property
    def name(self) -> str:
        """See `Task.name`."""
        return REASONED

    @classmethod
    def of(cls, task: LateralityTask) -> "ReasonedLaterality":
        """The task of the same labels and settings."""
        other = copy(task)
        other.__class__ = cls
        assert isinstance(other, cls)
        return other

    def pose(self, drawn: Counterfactuals, rendered: Sequence[RenderedPrompt]) -> Posed:
        """See the class."""
        texts, lists, misses = [], [], []
        for prompt, text in zip((drawn.clean, drawn.far, drawn.near), rendered, strict=True):
            cue = PlainTemplate.answer_cue
            if not text.text.endswith(cue):
                raise InputError(f"task {REASONED} has chains for --template plain alone")
            written = text.text.removesuffix(cue) + PlainTemplate.reason_cue
            steps = self.chain(prompt)
            own = self.stages(drawn.event, steps)
            spans = []
            for step in steps[: own.index("fine") + 1]:
                written += "\n"
                spans.append((len(written), len(written) + len(step)))
                written += step
            lists.append(spans[own.index("coarse")])
            misses.append(spans[-1])
            texts.append(f"{written}{cue} {drawn.event + 1}")
        return Posed(texts, misses, lists[0], misses[0])


def laterality_stages(event: int, steps: Sequence[str]) -> list[str]:
    """What steps are to the decision about mention `event` (from 0).

    `k in …` is the coarse step of mention k, counted from 1; `k not …` and `k is …` are its fine
    steps. `k side …` is "other": it says what the fine steps need, and rules nothing out. Of the
    steps of other mentions, those before its first step are "before", those after its last "after",
    and those between "other".
    """
    own: list[Stage | None] = []
    for step in steps:
        found = _STEP.match(step)
        mine = found is not None and int(found[1]) == event + 1
        own.append(_STAGE_OF[found[2]] if found and mine else None)
    places = [place for place, stage in enumerate(own) if stage]
    first, last = (places[0], places[-1]) if places else (len(own), len(own))
    return [
        stage or ("before" if place < first else "after" if place > last else "other")
        for place, stage in enumerate(own)
    ]


def _telling(words: Sequence[str]) -> list[str]:
    """Without the plural of "toe(s)" and other fragments."""
    return [word for word in words if len(word) > 2]


def _sided(prompt: DrawnPrompt) -> tuple[SidedMention, ...]:
    mentions = prompt.mentions
    assert all(isinstance(mention, SidedMention) for mention in mentions)
    return mentions  # type: ignore[return-value]


def _moved(span: tuple[int, int], start: int) -> tuple[int, int]:
    return span[0] + start, span[1] + start
