"""One variant of a prompt with some of its text replaced, and where its tokens are then.

Only the text around the edit is tokenized again, in the largest piece that the tokenizer gives
back as it was: what stands between two control tokens, else the words that are touched. So tokens
that were made otherwise than from one text (a chain that a model wrote) stay.
"""

from bisect import bisect_left
from collections.abc import Iterable, Iterator
from itertools import takewhile
from typing import Any

from workbench.errors import InputError
from workbench.labels.as_text import control_tokens
from workbench.models.pieces import Pieces
from workbench.prompts.prompt import Span

_LOSSY = (
    "this tokenizer does not give the text at the edit back as it was; write the changed prompt "
    "into a prompt file"
)


class Change:
    """One variant before and after its text was changed from character `start` to `end`."""

    def __init__(
        self, tokenizer: Any, where: str, before: Pieces, start: int, end: int, new: str
    ) -> None:
        self.where, self.before = where, before
        self.start, self.end, self.new = start, end, new
        self.tokens = retokenized(tokenizer, where, before, start, end, new)
        self.after = Pieces(tokenizer, self.tokens)
        left, right = before.text[:start], before.text[end:]
        text = self.after.text
        if not (text.startswith(left) and text.endswith(right)) or len(text) < len(left + right):
            raise InputError(f"{where}: {_LOSSY}")
        kept = zip(self.tokens, before.tokens, before.borders[1:], strict=False)
        self._left = count(a == b and border <= start for a, b, border in kept)
        kept = zip(self.tokens[::-1], before.tokens[::-1], before.borders[-2::-1], strict=False)
        self._right = count(a == b and border >= end for a, b, border in kept)

    def span(self, name: str, span: Span) -> Span:
        """The tokens that a span has now."""
        moved = [self._border(border) for border in span]
        if None in moved or moved[0] == moved[1]:
            raise InputError(
                f"{self.where}: after the edit {name} would begin or end inside a token; "
                "keep the space before it"
            )
        return moved[0] or 0, moved[1] or 0

    def suffix(self, length: int) -> int:
        """How many of the last tokens are there still, or come after the edit."""
        border = len(self.before.tokens) - length
        moved = self._border(border)
        if moved is None:
            moved = bisect_left(self.after.borders, self._place(border))
        return len(self.tokens) - moved

    def _place(self, border: int) -> int:
        """The character, after the edit, of a border between tokens before it."""
        place = self.before.borders[border]
        if place < self.start or place == self.start < self.end:
            return place
        return len(self.after.text) - len(self.before.text) + max(place, self.end)

    def _border(self, border: int) -> int | None:
        """The border between tokens that has become of one; None where there is none."""
        place, left = self._place(border), self.before.borders[border] < self.end
        rest = len(self.before.tokens) - border
        if left and border <= self._left:
            return border
        if not left and rest <= self._right:
            return len(self.tokens) - rest
        text, borders = self.after.text, self.after.borders
        near = [place + 1] * (text[place : place + 1] == " ")
        near += [place - 1] * (text[max(0, place - 1) : place] == " ")
        for at in (place, *near):  # a space may be a token of its own, or of the word after it
            index = bisect_left(borders, at)
            if index < len(borders) and borders[index] == at:
                return index
        return None


def count(kept: Iterable[bool]) -> int:
    """How many there are before the first that is false."""
    return sum(1 for _ in takewhile(bool, kept))


def retokenized(
    tokenizer: Any, where: str, row: Pieces, start: int, end: int, new: str
) -> tuple[int, ...]:
    """The tokens of a variant with characters `start` to `end` replaced.

    Raises:
        InputError: the tokenizer does not give these tokens for the text around the edit.
    """
    for first, last, as_text in _windows(tokenizer, row, start, end):
        begin, stop = row.chars((first, last))
        old = row.text[begin:stop]
        changed = old[: start - begin] + new + old[end - begin :]
        # SentencePiece adds a space before the first word of what it is given.
        for spaces in (0, 1):
            both = [text[spaces:] for text in (old, changed)]
            if spaces and not (old.startswith(" ") and changed.startswith(" ")):
                continue
            same, made = tokenizer(both, add_special_tokens=False, split_special_tokens=as_text)[
                "input_ids"
            ]
            if tuple(same) == row.tokens[first:last]:
                return (*row.tokens[:first], *made, *row.tokens[last:])
    raise InputError(f"{where}: {_LOSSY}")


def _windows(tokenizer: Any, row: Pieces, start: int, end: int) -> Iterator[tuple[int, int, bool]]:
    """Tokens that may be made anew, and whether what looks like a control token there is text."""
    borders, n, known = row.borders, len(row.tokens), control_tokens(tokenizer)
    controls = [i for i, token in enumerate(row.tokens) if token in known]
    first = max((i + 1 for i in controls if borders[i + 1] <= start), default=0)
    last = min((i for i in controls if borders[i] >= end), default=n)
    if any(first <= i < last for i in controls):
        yield 0, n, False
        return
    yield first, last, True
    words = [i for i in range(first, last) if row.strings[i][:1].isspace()]
    low = max((i for i in words if borders[i] < start), default=first)
    high = min((i for i in words if borders[i] > end), default=last)
    yield low, high, True
