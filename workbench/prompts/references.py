"""Mentions that refer to other mentions, and what each comes to mean.

A mention has words and a side. It states either, or takes it from an earlier mention (earlier in
order of reference; in the note it may stand later):

    fx shaft femur , lt                     both stated: depth 0
    burn forearm , opposite side to 2       words stated, side by reference
    as 4 , other side                       both by reference

The *depth* of a mention is the number of references from it to a stated side.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace

from workbench.labels.sides import opposite
from workbench.prompts.drawn import Mention
from workbench.prompts.shorthand import SET_ABBREVIATIONS

_SAME, _OTHER = ("same side", "ipsilateral"), ("other side", "opposite side", "contralateral")
_JOINED = " , "


@dataclass(frozen=True)
class SidedMention(Mention):
    """A mention in two parts.

    Attributes:
        words: how it says what there is; "as 3" where another mention says it.
        side: how it says on which side.
        words_of: place of the mention that its words are those of; None if they are its own.
        side_of: place of the mention that its side is relative to; None if it is stated.
        flips: whether its side is the other side from that mention's.
    """

    words: str = ""
    side: str = ""
    words_of: int | None = None
    side_of: int | None = None
    flips: bool = False

    @property
    def words_span(self) -> tuple[int, int]:
        """Characters of the words, in a text that starts at the space before the mention."""
        return 0, 1 + len(self.words)

    @property
    def side_span(self) -> tuple[int, int]:
        """Characters of the side, likewise, from the space before it."""
        start = len(self.words) + len(_JOINED)
        return start, start + 1 + len(self.side)

    def reworded(self, words: str) -> "SidedMention":
        """The same with other words."""
        return replace(self, words=words, text=words + _JOINED + self.side)

    def resided(self, side: str, *, flips: bool) -> "SidedMention":
        """The same with another side."""
        return replace(self, side=side, flips=flips, text=self.words + _JOINED + side)


def write_mention(
    label: str,
    words: str | None,
    side: str,
    rng: random.Random,
    *,
    refers_to: int | None = None,
    flips: bool = False,
) -> SidedMention:
    """A mention of a label, whose side is this one.

    `words` are None where they are those of the mention `refers_to` (a place, from 0) as well.
    """
    shown = f"as {refers_to + 1}" if words is None and refers_to is not None else words or ""
    words_of = refers_to if words is None else None
    text = write_side(side, rng, refers_to, words is None, flips=flips)
    whole = shown + _JOINED + text
    return SidedMention(label, whole, shown, text, words_of, refers_to, flips)


def write_side(
    side: str, rng: random.Random, refers_to: int | None, whole: bool, *, flips: bool
) -> str:
    """How a mention says its side: by itself, or relative to the mention that it refers to."""
    if refers_to is None:
        return rng.choice((side, *SET_ABBREVIATIONS[side]))
    phrase = rng.choice(_OTHER if flips else _SAME)
    if whole:
        return phrase
    joined = "to" if phrase.endswith("lateral") or phrase.startswith("opposite") else "as"
    if phrase == "other side":
        joined = "from"
    return f"{phrase} {joined} {refers_to + 1}"


def depth(mentions: Sequence[SidedMention], place: int) -> int:
    """References from a mention to a stated side."""
    return len(side_path(mentions, place)) - 1


def side_path(mentions: Sequence[SidedMention], place: int) -> list[int]:
    """The mention, the one that its side is relative to, and so on to a stated side."""
    return _path([mention.side_of for mention in mentions], place)


def words_path(mentions: Sequence[SidedMention], place: int) -> list[int]:
    """The mention, the one that its words are those of, and so on to stated words."""
    return _path([mention.words_of for mention in mentions], place)


def in_order(mentions: Sequence[SidedMention]) -> list[int]:
    """Places of the mentions in order of reference: what refers comes after what it refers to."""
    return sorted(range(len(mentions)), key=lambda place: (depth(mentions, place), place))


def _path(refers: Sequence[int | None], place: int) -> list[int]:
    path = [place]
    while (following := refers[path[-1]]) is not None:
        path.append(following)
    return path


def turned(mention: SidedMention, side: str, rng: random.Random) -> SidedMention:
    """The mention with its own statement of the side turned round; `side` is what it says now."""
    flips = not mention.flips if mention.side_of is not None else False
    text = write_side(
        opposite(side), rng, mention.side_of, mention.words_of is not None, flips=flips
    )
    return mention.resided(text, flips=flips)


def sided(mentions: Sequence[Mention]) -> tuple[SidedMention, ...]:
    """The same mentions, all of which are of the kind with two parts."""
    found = tuple(mention for mention in mentions if isinstance(mention, SidedMention))
    assert len(found) == len(mentions)
    return found
