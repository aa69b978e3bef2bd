"""A document cut into passages, each a query of its own: the sentences and the items of its lists.

A long document tells many things, and what is told once drowns among its other words: a query for
each passage finds the labels that one of them names. What a note denies is no passage: "no evidence
of …" names labels that are wrong (the idea is NegEx's; Chapman et al. 2001).
"""

import re

_STOP = re.compile(r"(?<=[.!?;…])\s+(?=[^\s\W_a-z])|(?<=[。．！？｡।॥؟۔።៕])\s*")
_ITEM = re.compile(r"\s*(?:[-*•+#>]|\(?\d{1,3}[.)]|\(?[a-zA-Z][.)])\s")
_WORD, _SIGN = re.compile(r"\S+"), re.compile(r"\S")
_WRAPPED = 55
"""Characters of a line that may go on in the next one; shorter ones end with what they say."""
_CLAUSE = re.compile(r"[,;:)]+\s|\s\(|\s[-–—]{1,2}\s")
_DENIED = re.compile(
    r"\b(?:den(?:y|ied|ies)|no (?:evidence|signs?|history|indication) of|negative for|ruled out"
    r"|did not (?:show|reveal|suggest|support|have)|at no time|free of|not consistent with)\b",
    re.IGNORECASE,
)
_YET = re.compile(r"\b(?:but|however|except|although|though|yet|other than)\b", re.IGNORECASE)
MOST_WORDS = 60
"""Of a passage; a longer sentence is cut."""


Span = tuple[int, int]


def passages(text: str) -> list[str]:
    """Passages in the order of the text, each once; empty for a text without a letter or digit.

    Sentences that deny are left out, unless they go on with what they do not deny.
    """
    found = [" ".join(text[start:end].split()) for start, end in passage_spans(text)]
    told = [one for one in found if not _DENIED.search(one) or _YET.search(one)]
    return list(dict.fromkeys(told))


def clauses(text: str) -> list[str]:
    """Each passage, and where it has several clauses, these after it; each once."""
    found = []
    for passage in passages(text):
        parts = [part.strip() for part in _CLAUSE.split(passage)]
        parts = [part for part in parts if any(sign.isalnum() for sign in part)]
        found += [passage, *(parts if len(parts) > 1 else ())]
    return list(dict.fromkeys(found))


def passage_spans(text: str) -> list[Span]:
    """Where the passages are, in order: first and last sign of each, without marks of lists."""
    return [
        part
        for line in _unwrapped(text)
        for sentence in _sentences(text, _without_mark(text, line))
        for part in _short(text, sentence)
        if any(sign.isalnum() for sign in text[slice(*part)])
    ]


def _without_mark(text: str, line: Span) -> Span:
    start, end = line
    mark = _ITEM.match(text, start, end)
    return (mark.end() if mark else start), end


def _unwrapped(text: str) -> list[Span]:
    """Lines as they were before they were broken to a width: lists and headings stay lines."""
    lines: list[Span] = []
    goes_on, start = False, 0
    for line, whole in zip(text.splitlines(), text.splitlines(keepends=True), strict=True):
        told = line.strip()
        end = start + len(line.rstrip())
        if goes_on and told and not _ITEM.match(line):
            lines[-1] = (lines[-1][0], end)
        elif told:
            lines.append((end - len(told), end))
        goes_on = len(line.rstrip()) >= _WRAPPED
        start += len(whole)
    return lines


def _sentences(text: str, line: Span) -> list[Span]:
    start, end = line
    found = []
    for stop in _STOP.finditer(text, start, end):
        found.append((start, stop.start()))
        start = stop.end()
    return [*found, (start, end)]


def _short(text: str, sentence: Span) -> list[Span]:
    start, end = sentence
    if end - start < 2 * MOST_WORDS:  # too short to hold more words
        sign = _SIGN.search(text, start, end)
        return [(sign.start(), end)] if sign else []
    words = [word.span() for word in _WORD.finditer(text, start, end)]
    chunks = [words[at : at + MOST_WORDS] for at in range(0, len(words), MOST_WORDS)]
    return [(chunk[0][0], chunk[-1][1]) for chunk in chunks]
