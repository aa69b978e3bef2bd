"""The laterality task: which code, and on which side, where the side is found by reference.

Labels are ICD-10-CM codes that come in left and right pairs. A note has numbered mentions in
shorthand; a mention states its side or refers to another mention's, and may take the whole
diagnosis from there (see `references`). The candidates are families of four: a code, its mirror
image, a sibling and the sibling's mirror image. The deeper a reference, the more a model needs its
chain of thought: it decides about the mentions in order of reference (see `laterality_chain`).

Counterfactuals: *far* has the words of a family that nobody mentions in place of the mention's own,
or of those it refers to; *near* has a side turned round, where it is stated or at the mention. So
the evidence of the two phases are different places of the note.
"""

import random
from collections import defaultdict
from collections.abc import Iterable, Sequence
from copy import copy
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from workbench.errors import InputError
from workbench.labels.icd10cm import category
from workbench.labels.space import LabelSpace
from workbench.prompts.drawn import Counterfactuals, DrawnPrompt, Mention
from workbench.prompts.laterality_chain import laterality_stages, side_steps, write_chain
from workbench.prompts.prompt import Role
from workbench.prompts.references import (
    SidedMention,
    depth,
    side_path,
    sided,
    turned,
    words_path,
    write_mention,
)
from workbench.prompts.shorthand import ShorthandConfig
from workbench.prompts.sided_families import Pair, SidedFamilies
from workbench.prompts.task import Posed, Task
from workbench.prompts.templates import PlainTemplate, RenderedPrompt

NAME = "laterality"
REASONED = "laterality-chain"


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
        wanted, most = set(categories), config.max_description_words
        self._families = SidedFamilies(
            space, [x for x in space if category(x.id) in wanted and len(x.text.split()) <= most]
        )
        if len(self.categories) < config.n_families:
            raise InputError(
                f"only {len(self.categories)} categories have two left and right pairs that share "
                f"a word, need {config.n_families}"
            )

    @property
    def name(self) -> str:
        """See `Task.name`."""
        return NAME

    @property
    def categories(self) -> list[str]:
        """Categories with codes for a family, sorted."""
        return self._families.categories

    @property
    def labels(self) -> list[str]:
        """Ids of all labels of these categories that come in pairs."""
        return list(self._families.mirror)

    def words(self, label: str) -> list[str]:
        """Telling words of a label's description, without its side."""
        return self._families.words(label)

    def with_labels(self, space: LabelSpace) -> "LateralityTask":
        """The same task over other texts of the same labels; it cannot draw prompts."""
        other = copy(self)
        other.space = space
        other._families = SidedFamilies(space, space)
        return other

    def reworded(self, prompt: DrawnPrompt, rng: random.Random) -> DrawnPrompt:
        """The prompt with the words of its mentions written anew."""
        mentions = [
            mention.reworded(self._shorthand(mention.label, prompt.family_of(mention.label), rng))
            if mention.words_of is None
            else mention
            for mention in sided(prompt.mentions)
        ]
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
            family = self._families.draw(rng)
            taken = {category(pair[0]) for pair, _ in families}
            if family is not None and category(family[0][0]) not in taken:
                families.append(family)
        candidates = [label for family in families for pair in family for label in pair]
        rng.shuffle(candidates)
        mentions = self._draw_mentions(families[: config.n_mentioned], rng)
        rng.shuffle(families)
        as_labels = tuple(tuple(x for pair in family for x in pair) for family in families)
        return DrawnPrompt(prompt_id, tuple(mentions), as_labels, tuple(candidates))

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
                label = self._families.mirror[source.label] if flips else source.label
            else:
                family = fresh.pop()
                pair, sibling = family if rng.random() < 0.5 else family[::-1]
                words = self._shorthand(pair[0], (*pair, *sibling), rng)
                side = rng.choice((0, 1))
                if to is not None:
                    source = mentions[to]
                    assert source is not None
                    side = (self._families.side(source.label) == "right") ^ flips
                label = pair[int(side)]
            mentions[place] = write_mention(
                label, words, self._families.side(label), rng, refers_to=to, flips=flips
            )
            depths[place] = 0 if to is None else 1 + depths[to]
        return [mention for mention in mentions if mention is not None]

    def _shorthand(self, label: str, family: Sequence[str], rng: random.Random) -> str:
        return self._families.shorthand(label, family, rng, self.config.shorthand)

    def mention(self, prompt: DrawnPrompt, label: str, rng: random.Random) -> Mention:
        """The candidate with its side stated."""
        words = self._shorthand(label, prompt.family_of(label), rng)
        return write_mention(label, words, self._families.side(label), rng)

    def counterfactuals(self, prompt: DrawnPrompt, event: int, rng: random.Random) -> Turned:
        """See the module's text; what refers to a changed mention changes with it."""
        mentions = sided(prompt.mentions)
        words_at = words_path(mentions, event)[-1]
        side_at = rng.choice([event, side_path(mentions, event)[-1]])
        near = list(mentions)
        for place in range(len(near)):
            if side_at in side_path(mentions, place):
                near[place] = replace(near[place], label=self._families.mirror[near[place].label])
        near[side_at] = turned(near[side_at], self._families.side(mentions[side_at].label), rng)

        free = [family for family in prompt.families if not set(prompt.golds) & set(family)]
        family = rng.choice(free)
        pair = self._families.pair(family[0 if rng.random() < 0.5 else 2])
        far = list(mentions)
        for place in range(len(far)):
            if words_at in words_path(mentions, place):
                label = pair[self._families.side(far[place].label) == "right"]
                far[place] = replace(far[place], label=label)
        far[words_at] = far[words_at].reworded(self._shorthand(pair[0], family, rng))
        variants = (replace(prompt, mentions=tuple(each)) for each in (far, near))
        return Turned(event, prompt, *variants, words_at=words_at, side_at=side_at)

    def pose(self, drawn: Counterfactuals, rendered: Sequence[RenderedPrompt]) -> Posed:
        """Ask by number, as earlier answers would tell what the mention refers to.

        The words are the evidence of the coarse phase, the side is that of the fine phase.
        """
        assert isinstance(drawn, Turned)
        if any(start == end for text in rendered for start, end in text.mentions):
            raise InputError(
                f"task {NAME}: mentions refer to one another, so none can be shown alone; use "
                "--template chat"
            )
        words, sides = [], []
        for prompt, text in zip((drawn.clean, drawn.far, drawn.near), rendered, strict=True):
            starts = [start for start, _ in text.mentions]
            mentions = sided(prompt.mentions)
            words.append(_moved(mentions[drawn.words_at].words_span, starts[drawn.words_at]))
            sides.append(_moved(mentions[drawn.side_at].side_span, starts[drawn.side_at]))
        behind = max(words[0], sides[0], key=lambda span: span[1])
        texts = [text.asking(f" {drawn.event + 1}") for text in rendered]
        return Posed(texts, [behind, words[1], sides[2]], words[0], sides[0])

    def evidence(self, prompt: DrawnPrompt, rendered: RenderedPrompt) -> list[tuple[int, int]]:
        """The words of each mention, where they are stated."""
        mentions = sided(prompt.mentions)
        places = [words_path(mentions, event)[-1] for event in range(len(mentions))]
        return [_moved(mentions[at].words_span, rendered.mentions[at][0]) for at in places]

    def roles(self, prompt: DrawnPrompt, event: int) -> list[Role]:
        """Labels of other mentions are wrong as any other, since a number is asked about."""
        gold = prompt.golds[event]
        family = prompt.family_of(gold)
        return [
            "gold" if label == gold else "near" if label in family else "far"
            for label in prompt.candidates
        ]

    def chain(self, prompt: DrawnPrompt) -> list[str]:
        """The correct chain of thought, shortlists first."""
        return write_chain(self._families, prompt, control=False)

    def control_chain(self, prompt: DrawnPrompt) -> list[str]:
        """The same with all sides first."""
        return write_chain(self._families, prompt, control=True)

    def depth(self, prompt: DrawnPrompt, event: int) -> int:
        """References from a mention to a stated side."""
        return depth(sided(prompt.mentions), event)

    def stages(self, event: int, steps: Sequence[str]) -> list[str]:
        """See `laterality_stages`."""
        return laterality_stages(event, steps)

    def telling(self, event: int, steps: Sequence[str]) -> list[int]:
        """The steps that say the side."""
        return side_steps(event, steps)

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


def _moved(span: tuple[int, int], start: int) -> tuple[int, int]:
    return span[0] + start, span[1] + start
