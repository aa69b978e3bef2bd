"""A document cut into sentences, with the place of each.

A sentence ends at a full stop, or with its line; lines that were broken to a width are one. The
mark of a list's item and a heading before a colon are not of the sentence.
"""

import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from workbench.prompts.templates import CharSpan

_STOPS = "。．！？｡।॥؟۔።៕។"
_NO_STOPS = "\u0e01-\u0e4e\u0e81-\u0ece"
"""Thai and Lao have no full stops; a space stands between their sentences."""
_BREAK = re.compile(
    rf"(?<=[.!?…])\s+|(?<=[{_STOPS}])(?![{_STOPS}」』”’）)\]])\s*|(?<=[{_STOPS}][」』”’）])\s*"
    rf"|(?<=[{_NO_STOPS}])\s+(?=[{_NO_STOPS}])"
)
_OPENING = " \"'([«“„‘「『（¿¡\n\r\t"
_ABBREVIATED = re.compile(r"(?:^|\s)(?:Dr|Mr|Mrs|Ms|Prof|St|vs|No|[A-Z])\.$")
_LONGEST_ABBREVIATION = 6
"""Characters, with the space before."""
_ITEM = re.compile(r"\s*(?:[-*•+#>]+|\(?\d{1,3}[.)]|\(?[a-zA-Z][.)])\s+(?=\S)")
_HEADING = re.compile(
    r"(?i)\s*[\w#/&' -]{0,40}\b(?:diagnos[ie]s|complaints?|history|illness|course|impression"
    r"|findings|assessment|plan|procedures?|condition|problems?|indication|reason|results|[cfhp]pi|pmhx?|pshx?"
    r"|cc|hx)\s*:\s+(?=\S)"
)
"""What a section is called, before the sentence that begins on the same line."""
_ENDS = "\r\n\v\f\x1c\x1d\x1e\x85\u2028\u2029"
_WRAPPED = 55
"""Characters of a line that may go on in the next one; shorter ones end with what they say."""


class Cut(NamedTuple):
    """A document in sentences, each on one line.

    Attributes:
        sentences: in order.
        spans: the characters of each in the document.
        gaps: what stands before each where the document is told on one line: a space or nothing,
            and the mark or heading before it.
        begins: whether each is the beginning of a sentence, rather than the rest of one.
        apart: places among them of the spans that were to be sentences of their own.
    """

    sentences: tuple[str, ...]
    spans: tuple[CharSpan, ...]
    gaps: tuple[str, ...]
    begins: tuple[bool, ...]
    apart: tuple[int, ...]


def cut(text: str, apart: Sequence[CharSpan] = ()) -> Cut:
    """The sentences of a text, of which these spans are some.

    What is before and after a span in a sentence is a sentence, too. No small letter begins a
    sentence. Runs of spaces become one; pieces without a letter or digit are left out.

    Args:
        text: of a document.
        apart: characters of the text, in order, without blanks at their ends, none in another.
    """
    whole = list(_sentences(text))
    pieces = sorted([*_outside(whole, apart), *((*span, True) for span in apart)])
    marks = {end - len(text[start:end].lstrip()): mark for mark, start, end in whole}
    sentences: list[str] = []
    spans: list[CharSpan] = []
    gaps: list[str] = []
    begins: list[bool] = []
    places: list[int] = []
    reached, cut_before = -1, False
    for start, end, is_cut in pieces:
        raw = text[start:end]
        if not raw.strip() or not (is_cut or any(sign.isalnum() for sign in raw)):
            continue
        if (start, end) in apart:
            places.append(len(sentences))
        first, last = end - len(raw.lstrip()), start + len(raw.rstrip())
        sentences.append(" ".join(raw.split()))
        spans.append((first, last))
        joined = reached == first and (is_cut or cut_before)
        mark = " ".join(text[marks.get(first, first) : first].split())
        gaps.append(("" if joined else " ") + (f"{mark} " if mark else ""))
        begins.append(first in marks)
        reached, cut_before = last, is_cut
    return Cut(tuple(sentences), tuple(spans), tuple(gaps), tuple(begins), tuple(places))


def without(text: str, span: CharSpan) -> CharSpan:
    """What is to go with a sentence: its line where nothing else is on it, else the space before.

    The mark of an item goes with it; a heading stays, and so does what follows it.
    """
    start, end = span
    line = text.rfind("\n", 0, start) + 1
    after = text.find("\n", end)
    after = len(text) if after < 0 else after
    before, rest = text[line:start], text[end:after]
    item = _ITEM.match(f"{before}x")
    if not rest.strip() and (not before.strip() or (item and item.end() == len(before))):
        return line, min(after + 1, len(text))
    spaces = len(before) - len(before.rstrip())
    if spaces and before.strip():
        return start - spaces, end
    return start, end + len(rest) - len(rest.lstrip())


def _sentences(text: str) -> Iterator[tuple[int, int, int]]:
    """Start of its mark, start and end of every sentence, with the spaces around it."""
    for begin, stop in _unwrapped(text):
        line = text[begin:stop]
        begun = before = 0
        content = _after_mark(line)
        for found in _BREAK.finditer(line.rstrip(), content):
            start, end = found.span()
            piece = line[before:start]
            if not _ABBREVIATED.search(piece[-_LONGEST_ABBREVIATION:]) and _begins_sentence(
                line[end:]
            ):
                yield begin + begun, begin + max(begun, content), begin + start
                begun = end
            before = end
        yield begin + begun, begin + max(begun, content), stop


def _after_mark(line: str) -> int:
    found = _ITEM.match(line) or _HEADING.match(line)
    return found.end() if found else 0


def _unwrapped(text: str) -> Iterator[CharSpan]:
    """Lines as they were before they were broken to a width: lists and headings stay lines."""
    begin, reached, goes_on = 0, 0, False
    for line in text.splitlines(keepends=True):
        said = line.strip()
        joins = goes_on and said and not _ITEM.match(line) and not _HEADING.match(line)
        if reached > begin and not joins:
            yield begin, reached
            begin = reached
        reached += len(line)
        goes_on = len(line.rstrip()) >= _WRAPPED
    if reached > begin:
        yield begin, reached


def _outside(
    sentences: Sequence[tuple[int, int, int]], apart: Sequence[CharSpan]
) -> Iterator[tuple[int, int, bool]]:
    """What of the sentences is not apart, and whether anything of the sentence is."""
    for mark, start, end in sentences:
        inside = [span for span in apart if span[0] < end and span[1] > mark]
        start = mark if any(span[0] < start for span in inside) else start
        for first, last in inside:
            yield start, max(start, first), True
            start = max(start, last)
        yield start, max(start, end), bool(inside)


def _begins_sentence(piece: str) -> bool:
    first = piece.lstrip(_OPENING)[:1]
    return first.isalnum() and not first.islower()
