"""A document cut into passages, each a query of its own: the sentences and the items of its lists.

A long document tells many things, and what is told once drowns among its other words: a query for
each passage finds the labels that one of them names.
"""

import re

_STOP = re.compile(r"(?<=[.!?;…])\s+(?=[^\s\W_a-z])|(?<=[。．！？｡।॥؟۔።៕])\s*")
_ITEM = re.compile(r"\s*(?:[-*•+#>]|\(?\d{1,3}[.)]|\(?[a-zA-Z][.)])\s")
_WRAPPED = 55
"""Characters of a line that may go on in the next one; shorter ones end with what they say."""
MOST_WORDS = 60
"""Of a passage; a longer sentence is cut."""


def passages(text: str) -> list[str]:
    """Passages in the order of the text, each once; empty for a text without a letter or digit."""
    found = [
        part
        for line in _unwrapped(text)
        for sentence in _STOP.split(_without_mark(line))
        for part in _short(sentence)
        if any(sign.isalnum() for sign in part)
    ]
    return list(dict.fromkeys(found))


def _without_mark(line: str) -> str:
    mark = _ITEM.match(line)
    return line[mark.end() :] if mark else line


def _unwrapped(text: str) -> list[str]:
    """Lines as they were before they were broken to a width: lists and headings stay lines."""
    lines: list[str] = []
    goes_on = False
    for line in text.splitlines():
        if goes_on and line.strip() and not _ITEM.match(line):
            lines[-1] = f"{lines[-1]} {line.strip()}"
        else:
            lines.append(line.strip())
        goes_on = len(line.rstrip()) >= _WRAPPED
    return lines


def _short(sentence: str) -> list[str]:
    words = sentence.split()
    return [" ".join(words[at : at + MOST_WORDS]) for at in range(0, len(words), MOST_WORDS)]
