"""Which option a free reply names: by its letter, or by its text."""

import re
from collections.abc import Mapping

_MARKUP = re.compile(r"[*_`$\"“”]|\\(?:boxed|text)|[{}]")
_WORDS = ("A", "I")
"""Letters that are words, too: "A fever" names no option."""


def read_choice(reply: str, options: Mapping[str, str], number: int = 0) -> str | None:
    """The letter of the option that a reply names; None where it names none, or several.

    In this order: the letters that the reply starts with, of which the one of this `number` counts;
    the last letter behind the word "answer"; the one letter behind "option", "choice" or "letter";
    the one option whose text stands in the reply; the one letter that stands alone.

    Args:
        reply: what the model wrote in place of the answer, without its thoughts.
        options: text of every option by its letter, or by the word that selects it.
        number: which of several answers is wanted, from 0.
    """
    text = _MARKUP.sub("", reply).strip()
    names = "|".join(map(re.escape, sorted(options, key=len, reverse=True)))
    letter = rf"({names})(?![\w'])"
    start, at, listed = re.compile(rf"\W*{letter}"), 0, []
    while (found := start.match(text, at)) and not _is_word(found[1], text[found.end() :]):
        listed.append(found[1])
        at = found.end()
    if listed or number:
        return listed[number] if number < len(listed) else None
    answers = re.findall(rf"\b(?i:answer(?:\s+is|\s+would be)?)\W*{letter}", text)
    behind = re.findall(rf"\b(?i:option|choice|letter)\W*{letter}", text)
    alone = [each for each in re.findall(rf"(?<![\w']){letter}", text) if each not in _WORDS]
    for named in (answers[-1:], behind, _by_text(text, options), alone):
        if named:
            return named[0] if len(set(named)) == 1 else None
    return None


def _is_word(letter: str, rest: str) -> bool:
    return letter in _WORDS and re.match(r" +[a-z]", rest) is not None


def _by_text(reply: str, options: Mapping[str, str]) -> list[str]:
    """Letters of the options whose text stands in a reply, but not within another's."""
    folded = {letter: " ".join(text.casefold().split()) for letter, text in options.items()}
    reply = " ".join(reply.casefold().split())
    found = [letter for letter, text in folded.items() if text and text in reply]
    return [
        letter
        for letter in found
        if not any(folded[letter] in folded[other] for other in found if other != letter)
    ]
