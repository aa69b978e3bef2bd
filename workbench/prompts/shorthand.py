"""Clinical shorthand: how a label's official description is written in a hurried note.

1. Words that carry no meaning of their own are dropped.
2. Frequent words have set abbreviations (left → l, fracture → fx).
3. Other long words are cut short or lose their vowels, each with some probability.
4. Comma-separated clauses may change places.

A mention stays resolvable: no abbreviated word may also abbreviate another word that the caller
names, such as a word of a near-miss label.
"""

import random
import re
from collections.abc import Collection
from dataclasses import astuple, dataclass

from workbench.labels.lay_words import LAY
from workbench.labels.words import comparable

_DROPPED_WORDS = (
    "a an and any as at be by due encounter for from in into is it its of on or other's part "
    "specified the their this those to type use which"
)
_DROPPED = frozenset(_DROPPED_WORDS.split())
SET_ABBREVIATIONS: dict[str, tuple[str, ...]] = {
    "accident": ("acc",),
    "acute": ("ac",),
    "bilateral": ("bilat", "bil"),
    "chronic": ("chr",),
    "closed": ("cl",),
    "degree": ("deg",),
    "diabetes": ("dm",),
    "disease": ("dz", "dis"),
    "disorder": ("d/o",),
    "displaced": ("disp",),
    "fracture": ("fx", "frac"),
    "foreign": ("f",),
    "healing": ("heal",),
    "history": ("hx",),
    "initial": ("init", "1st visit"),
    "injury": ("inj",),
    "left": ("l", "lt"),
    "lower": ("low", "lwr"),
    "malignant": ("malig", "ca"),
    "neoplasm": ("neopl",),
    "nondisplaced": ("nondisp", "undisp"),
    "open": ("op",),
    "other": ("oth",),
    "pregnancy": ("preg",),
    "right": ("r", "rt"),
    "sequela": ("seq", "late eff"),
    "subsequent": ("subs", "f/u"),
    "syndrome": ("synd",),
    "unspecified": ("unsp", "nos"),
    "upper": ("up", "uppr"),
    "with": ("w",),
    "without": ("w/o", "s"),
}
_FURTHER = {
    "bowel": "intestine",
    "broken": "fracture",
    "bruises": "contusion",
    "cuts": "laceration",
    "flu": "influenza",
    "from birth": "congenital",
    "high sugar": "hyperglycemia",
    "kidneys": "renal",
    "lungs": "pulmonary",
    "rash": "dermatitis",
    "seizures": "convulsions epilepsy",
    "short of breath": "dyspnea",
    "stones": "calculus",
    "tumor": "neoplasm",
    "womb": "uterus",
}
"""Further words that people say, and what labels say for them."""


def _spelled() -> dict[str, str]:
    """What set abbreviations and lay words stand for; all of it where that is several things."""
    pairs = [(short, word) for word, some in SET_ABBREVIATIONS.items() for short in some]
    pairs += [(said, word) for word, said in LAY.items()]
    pairs += list(_FURTHER.items())
    found: dict[str, str] = {}
    for short, word in pairs:
        if len(short) > 1 and word not in _DROPPED:
            said = short.lower()
            found[said] = f"{found[said]} {word}" if said in found else word
    return found


_SPELLED = _spelled()
_LONGEST_FIRST = sorted(_SPELLED, key=len, reverse=True)
_SHORT = re.compile(rf"(?<![\w/])(?:{'|'.join(map(re.escape, _LONGEST_FIRST))})(?![\w/])")
_WORD = re.compile(r"[a-z0-9]+(?:[-'./][a-z0-9]+)*")
_VOWELS = re.compile(r"(?<!^)[aeiou]")


@dataclass(frozen=True)
class ShorthandConfig:
    """How hard a mention is to read. All are probabilities of a change to one word or clause."""

    set_abbreviation: float = 0.85
    cut: float = 0.35
    drop_vowels: float = 0.35
    reorder: float = 0.5

    def scaled(self, factor: float) -> "ShorthandConfig":
        """All probabilities times `factor`: 0 writes every content word out."""
        return ShorthandConfig(*(factor * probability for probability in astuple(self)))


def content_words(text: str) -> list[str]:
    """The lower-case words of a description that carry meaning, in order."""
    return [word for word in _WORD.findall(text.lower()) if word not in _DROPPED]


def write_shorthand(
    text: str,
    rng: random.Random,
    config: ShorthandConfig = ShorthandConfig(),
    confusable: Collection[str] = (),
) -> str:
    """One random shorthand form of a description.

    `confusable` are words of other labels that the mention must not be mistaken for: a word whose
    abbreviation would fit one of them is written out.
    """
    clauses = [content_words(clause) for clause in text.split(",")]
    clauses = [clause for clause in clauses if clause]
    if len(clauses) > 1 and rng.random() < config.reorder:
        rng.shuffle(clauses)
    words = [word for clause in clauses for word in clause]
    return " ".join(_abbreviate(word, rng, config, confusable) for word in words)


def _abbreviate(
    word: str, rng: random.Random, config: ShorthandConfig, confusable: Collection[str]
) -> str:
    short = _draw_form(word, rng, config)
    if short == word or word in SET_ABBREVIATIONS:
        return short
    clash = any(other != word and short in (other, *_forms(other)) for other in confusable)
    clash = clash or any(other != word and other.startswith(short) for other in confusable)
    return word if clash else short


def _draw_form(word: str, rng: random.Random, config: ShorthandConfig) -> str:
    if word in SET_ABBREVIATIONS:
        if rng.random() < config.set_abbreviation:
            return rng.choice(SET_ABBREVIATIONS[word])
        return word
    draw = rng.random()
    if len(word) < 6 or any(c.isdigit() for c in word) or draw >= config.cut + config.drop_vowels:
        return word
    return word[: rng.randint(4, 6)] if draw < config.cut else _without_vowels(word)


def _without_vowels(word: str) -> str:
    return _VOWELS.sub("", word)


def _forms(word: str) -> tuple[str, ...]:
    return (*SET_ABBREVIATIONS.get(word, ()), _without_vowels(word))


def spelled_out(text: str) -> str:
    """The text, and behind it what abbreviations and lay words in it stand for in labels."""
    found = [_SPELLED[short[0]] for short in _SHORT.finditer(comparable(text))]
    return " ".join([text, *found])
