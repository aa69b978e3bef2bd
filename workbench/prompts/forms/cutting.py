"""A document that is too long, shown by whole passages; `[…]` stands for what is left out."""

from bisect import bisect_left
from collections.abc import Container, Sequence
from itertools import pairwise

from workbench.labels.retrieving.passages import passage_spans
from workbench.prompts.templates import CharSpan

LEFT_OUT = "[…]"
LONGEST = 500
"""Characters of a piece; a passage without a space, such as a table of bytes, is cut, too."""


def pieces(document: str) -> list[CharSpan]:
    """The document in consecutive pieces of one passage each, with all that stands before it."""
    ends = [end for _, end in passage_spans(document)]
    ends = [*ends[:-1], len(document)]
    found, start = [], 0
    for end in ends:
        while end - start > LONGEST:
            space = document.rfind(" ", start + LONGEST // 2, start + LONGEST)
            middle = space if space > 0 else start + LONGEST
            found.append((start, middle))
            start = middle
        found.append((start, end))
        start = end
    return found


def sizes_of(parts: Sequence[CharSpan], begins: Sequence[int]) -> list[int]:
    """Tokens of each piece, by the characters at which the document's tokens begin."""
    borders = [0, *(bisect_left(begins, end) for _, end in parts)]
    return [end - start for start, end in pairwise(borders)]


def fewer(
    numbers: Sequence[int], sizes: Sequence[int], kept: Container[int], over: int
) -> list[int]:
    """The pieces that are left where the last ones go, until `over` tokens less are shown.

    Of those `kept` none goes; where all others are gone, there are none.
    """
    gone = set()
    for number in reversed(numbers):
        if over <= 0:
            break
        if number not in kept:
            gone.add(number)
            over -= sizes[number]
    return [] if over > 0 else [number for number in numbers if number not in gone]


def shown_text(
    document: str, parts: Sequence[CharSpan], numbers: Sequence[int]
) -> tuple[str, tuple[CharSpan, ...]]:
    """The text of some pieces, at least one, with the characters of the document that it shows."""
    spans: list[CharSpan] = []
    last = -1
    for number in numbers:
        start, end = parts[number]
        if spans and number == last + 1:
            spans[-1] = (spans[-1][0], end)
        else:
            spans.append((start, end))
        last = number
    shown = tuple(_bare(document, span) for span in spans)
    lines = [document[start:end] for start, end in shown]
    text = f"\n{LEFT_OUT}\n".join(lines)
    if numbers[0] > 0:
        text = f"{LEFT_OUT}\n{text}"
    if numbers[-1] < len(parts) - 1:
        text = f"{text}\n{LEFT_OUT}"
    return text, shown


def _bare(document: str, span: CharSpan) -> CharSpan:
    """Without the spaces at its ends, unless they are the document's; an indentation stays."""
    start, end = span
    text = document[start:end]
    if start > 0:
        first = len(text) - len(text.lstrip())
        start += text.rfind("\n", 0, first) + 1 or first
    if end < len(document):
        end -= len(text) - len(text.rstrip())
    return start, end
