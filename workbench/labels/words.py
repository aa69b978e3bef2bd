"""Words of texts of any script, and the one form in which texts are compared.

Two texts that look alike may differ: accents as one character or two (NFC, NFD), full-width
letters, soft hyphens, no-break and zero-width spaces. All matching of labels and documents is done
on `comparable` text; what models read, and where spans lie in it, stays as it was given.

Chinese, Japanese, Thai and their like have no spaces between words. Runs of their characters are
cut into overlapping pairs, as Lucene's CJKAnalyzer does.
"""

import re
import unicodedata
from collections.abc import Iterator
from functools import cache

_NO_SPACES = (
    "\u0e01-\u0e3a\u0e40-\u0e4e\u0e81-\u0ece"  # Thai, Lao
    "\u1000-\u103f\u1780-\u17d3"  # Burmese, Khmer
    "\u3005-\u3007\u3041-\u309f\u30a1-\u30fa\u30fc-\u30ff\u31f0-\u31ff"  # Japanese
    "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"  # Chinese
    "\uac00-\ud7a3"  # Korean, whose endings are written with the word
)
_RUN = re.compile(f"[{_NO_SPACES}]+")
_UNSEEN = re.compile(  # soft hyphen, zero-width and direction marks, variants of a character
    "[\u00ad\u034f\u061c\u180b-\u180f\u200b-\u200f\u202a-\u202e\u2060-\u206f"
    "\ufe00-\ufe0f\ufeff\U000e0000-\U000e0fff]+"
)


def comparable(text: str) -> str:
    """A text as it is compared: NFKC, without case and without what is not seen."""
    if text.isascii():
        return text.lower()
    folded = unicodedata.normalize("NFKC", text).casefold()
    return unicodedata.normalize("NFKC", _UNSEEN.sub("", folded))


def has_no_spaces(text: str) -> bool:
    """Whether some of the text is of a script that puts no spaces between words."""
    return _RUN.search(text) is not None


def words(text: str, *, single: bool = False) -> list[str]:
    """Words of a text in comparable form; where there are no spaces, pairs of characters.

    A run of one such character is a word itself. With `single` all of them are words beside their
    pairs: a document has a label of one character wherever it has the character.
    """
    return word_pattern().findall(spaced(text, single=single))


def spaced(text: str, *, single: bool = False) -> str:
    """The text in comparable form, with spaces around pairs of characters that have none."""
    text = comparable(text)
    return text if text.isascii() else _RUN.sub(lambda run: _pairs(run[0], single), text)


def _pairs(run: str, single: bool) -> str:
    alone = [*run] if single or len(run) == 1 else []
    pairs = [run[at : at + 2] for at in range(len(run) - 1)]
    return f" {' '.join(pairs + alone)} "


@cache
def marks() -> str:
    """Characters that belong to the one before them, to be put into a set of `re`."""
    found = [chr(code) for code in range(0x300, 0x10000)]
    found = [one for one in found if unicodedata.category(one).startswith("M")]
    return "".join(found) + "\uff9e\uff9f"  # of half-width katakana


@cache
def word_pattern() -> re.Pattern[str]:
    """A word in comparable form; vowel signs of Indian scripts are no word characters to `re`."""
    return re.compile(rf"[\w{marks()}]+")


@cache
def _unit_pattern() -> re.Pattern[str]:
    """Characters that are normalised together: with their marks, and a Korean syllable in parts."""
    syllable = "[\u1100-\u115f][\u1160-\u11a7]?[\u11a8-\u11ff]?"
    return re.compile(rf"(?:{syllable}|.)[{marks()}]*", re.DOTALL)


def find_words(text: str, wanted: str) -> tuple[int, int] | None:
    """Characters of `text`, half-open, that say the same words as `wanted`; None if none do.

    Case, kind of spaces and way of writing accents do not matter. A word of a script with spaces is
    found whole only.
    """
    return next(Searchable(text).all(wanted), None)


class Searchable:
    """A text that is searched for words several times; see `find_words`."""

    def __init__(self, text: str) -> None:
        parts: list[str] = []
        self._origin: list[tuple[int, int]] = []
        for unit in _unit_pattern().finditer(text):
            part = comparable(unit[0])
            parts.append(part)
            self._origin += [unit.span()] * len(part)
        self._folded = "".join(parts)

    def all(self, wanted: str) -> Iterator[tuple[int, int]]:
        """Every place, half-open in characters, that says the same words; in order."""
        sought = comparable(wanted).split()
        if not sought:
            return
        pattern = r"\s+".join(map(re.escape, sought))
        before = "" if _RUN.match(sought[0][0]) else r"(?<!\w)"
        after = "" if _RUN.match(sought[-1][-1]) else r"(?!\w)"
        for found in re.finditer(before + pattern + after, self._folded):
            yield self._origin[found.start()][0], self._origin[found.end() - 1][1]
