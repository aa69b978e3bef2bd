"""A diagnosis in other words: official text rephrased, shortened, in shorthand, in lay words.

A wording is *whole* where it keeps what tells the code from its siblings, as far as words can.
"""

import random
import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from workbench.bench.note_words import CLINICAL
from workbench.labels.lay_words import in_lay_words, pattern
from workbench.labels.space import Label, LabelSpace
from workbench.labels.words import words
from workbench.prompts.shorthand import (
    SET_ABBREVIATIONS,
    ShorthandConfig,
    content_words,
    write_shorthand,
)

WordingWay = Literal["official", "turned", "clinical", "shorthand", "inclusion", "partial", "lay"]
VERBATIM = 0.25
"""Share of the diagnoses of which one telling may be the label's own words."""
_SHORTHANDS = (0.3, 0.8)
"""How hard the shorthand is to read, as shares of the default probabilities."""
_DRAWS = 20
_COMMON = {"other", *SET_ABBREVIATIONS, *(f"{word}s" for word in SET_ABBREVIATIONS)}
"""Words of too many labels to tell one."""
_ABBREVIATED = pattern(CLINICAL)
_ENCOUNTER = re.compile(r",? (initial encounter|subsequent encounter|sequela)(?: for (.*))?$")
_VISITS = {
    "initial encounter": ("{}, now treated for the first time", "{}, under active treatment"),
    "subsequent encounter": ("follow-up of {}", "{}, in aftercare", "return visit for {}"),
    "sequela": ("late effects of {}", "what remained of {}", "residuals after {}"),
}
_TRIMMED = re.compile(
    r" ?\([^)]*\)| ?\[[^\]]*\]|,? not elsewhere classified|,? in diseases classified elsewhere"
    r"|,? unspecified whether [^,]*|(?:,| of| in)? unspecified(?: [a-z]+)?(?=,|$)|\bunspecified "
    r"|^other (?:specified )?|^encounter for (?:other )?|,? in (?:non)?traffic accident"
)
_INVERTED = re.compile(
    r"^([\w' -]+?) of (?:the )?((?:(?! of | with | due | in | and )[^,])+)(?=,|$)"
)
_NOT_INVERTED = re.compile(
    r"history|encounter|presence|absence|effect|driver|passenger|person|occupant|poisoning|contact"
)
_SIDE = re.compile(r"^(.+), ((?:right|left|unspecified|bilateral)[\w ]*)$")
_JOINTS = {
    " with or without ": (" with/without ",),
    " collision with ": (" crash against ", " collision against "),
    " contact with ": (" being touched by ",),
    " with ": (" complicated by ", " together with ", " plus "),
    " due to ": (" caused by ", " from ", " secondary to "),
    " without ": (" and no ", " in the absence of "),
    " following ": (" after ",),
    " injured in ": (" hurt in ",),
    " complicating ": (" affecting ",),
}
_NO_TERM = re.compile(r"\b(?:code|codes|listed|classifiable|conditions? in)\b", re.IGNORECASE)


@dataclass(frozen=True)
class Wording:
    """One way to tell a diagnosis."""

    way: WordingWay
    text: str
    whole: bool


class Wordings:
    """Wordings of the labels of one space."""

    def __init__(self, space: LabelSpace) -> None:
        self._names = _proper_names(space)

    def of(self, label: Label, rng: random.Random) -> list[Wording]:
        """Wordings of a label in random order, each of other words than the rest.

        One is the official text in a share `VERBATIM` of the labels; no other has its words.
        """
        official = self._plain(label.text)
        own = frozenset(words(official))
        found = {} if rng.random() >= VERBATIM else {own: Wording("official", official, True)}
        tried = self._tried(official, label, rng)
        rng.shuffle(tried)
        for one in tried:
            told = frozenset(words(one.text))
            verbatim = words(one.text) == words(official)
            if not verbatim and len(max(told, key=len, default="")) > 3:
                found.setdefault(told, one)
        made = list(found.values())
        rng.shuffle(made)
        return made

    def brief(self, label: Label, rng: random.Random) -> str:
        """A label as it is named in passing, in lay words or not."""
        short = _trimmed(self._plain(label.text))
        return in_lay_words(short) if rng.random() < 0.5 else short

    def _tried(self, official: str, label: Label, rng: random.Random) -> list[Wording]:
        base, visited = _visit(official, rng)
        turned, trimmed = _turned(base, rng), _trimmed(base)
        found = [
            Wording("turned", visited(turned), True),
            Wording("clinical", _abbreviated(visited(rng.choice((base, turned)))), True),
            Wording("partial", trimmed, False),
            Wording("partial", _trimmed(turned), False),
        ]
        if (lay := in_lay_words(trimmed)) != trimmed:
            found.append(Wording("lay", lay, False))
        for hard in _SHORTHANDS:
            short = _shortened(label.text, rng, ShorthandConfig().scaled(hard))
            found += [Wording("shorthand", short, True)] if short else []
        for term in label.synonyms:
            if _NO_TERM.search(term) is None:
                term = self._plain(" ".join(term.split()))
                found.append(Wording("inclusion", visited(term), True))
                found.append(Wording("inclusion", _abbreviated(term), False))
        return found

    def _plain(self, text: str) -> str:
        """A text as inside a sentence: the first letter is small, unless it is of a name."""
        first = re.match(r"\w+", text)
        named = first and (first[0] in self._names or re.match(r"'s|-[A-Z]", text[first.end() :]))
        small = first and not named and first[0][1:].islower()
        return text[0].lower() + text[1:] if small else text


def _proper_names(space: LabelSpace) -> frozenset[str]:
    """Words that mostly begin with a capital where they are not first."""
    capital, small = Counter[str](), Counter[str]()
    for label in space:
        for text in (label.text, *label.synonyms):
            for word in re.findall(r"(?<=\s)\w+", text):
                (capital if word[0].isupper() else small)[word.capitalize()] += 1
    return frozenset(word for word, n in capital.items() if n > small[word])


def _visit(text: str, rng: random.Random) -> tuple[str, Callable[[str], str]]:
    """A text without its kind of encounter, and what puts it back in other words."""
    found = _ENCOUNTER.search(text)
    if found is None:
        return text, str
    form = rng.choice(_VISITS[found[1]])
    rest = f" ({found[2]})" if found[2] else ""
    return text[: found.start()], lambda told: form.format(told) + rest


def _trimmed(text: str) -> str:
    """A text without its kind of encounter and what says that nothing is said."""
    base, _ = _visit(text, random.Random(0))
    short = _TRIMMED.sub("", base).strip(" ,")
    return short or base


def _turned(text: str, rng: random.Random) -> str:
    """A text with its parts in another order, and other words between them."""
    for joint, others in _JOINTS.items():
        text = f" {text}".replace(joint, rng.choice(others))[1:]
    side = _SIDE.match(text)
    if side:
        text = f"{side[2]} {side[1]}"
    inverted = _INVERTED.match(text)
    if inverted and not _NOT_INVERTED.search(inverted[1]):
        return f"{inverted[2]} {inverted[1]}{text[inverted.end() :]}"
    head, comma, rest = text.partition(", ")
    return f"{rest}: {head}" if comma and not side and rng.random() < 0.7 else text


def _shortened(text: str, rng: random.Random, config: ShorthandConfig) -> str:
    """A text in shorthand; empty where no draw keeps a whole word of what the label is about.

    "Other card" would be any disease of the heart.
    """
    content = content_words(text)
    own = {word for word in content if len(word) > 2 and word.isalpha() and word not in _COMMON}
    for _ in range(_DRAWS):
        short = write_shorthand(text, rng, config, content)
        if not own or own.intersection(words(short)):
            return short
    return ""


def _abbreviated(text: str) -> str:
    """A text in the ward's abbreviations."""
    return _ABBREVIATED.sub(lambda word: CLINICAL[word[0].lower()], text)
