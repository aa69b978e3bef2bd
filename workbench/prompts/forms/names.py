"""What options are named by, so that a tokenizer tells the names apart.

Up to 26 options have letters. Beyond, a name is one token where the tokenizer has enough of them:
numbers of equal width, or two letters. Otherwise it is a number of equal width, of several tokens.
Names are of equal width, so that none begins another, be it in characters or in tokens.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise, product
from string import ascii_uppercase
from typing import Any

from workbench.errors import InputError
from workbench.prompts.forms.form import NameKind

Tokens = tuple[int, ...]
MOST_PAIRS = len(ascii_uppercase) ** 2


@dataclass(frozen=True)
class Names:
    """Names of options at a place of a text.

    Attributes:
        names: of the options, in order.
        tokens: that follow the place when an option is chosen.
        lead: text that all of them begin with, and that is put before the decision.
        kind: "letter", "letters" or "number".
    """

    names: tuple[str, ...]
    tokens: tuple[Tokens, ...]
    lead: str
    kind: str


def option_names(n: int, kind: NameKind, tokenizer: Any, place: str, gap: str) -> Names:
    """Names for `n` options.

    Args:
        n: how many.
        kind: of the form.
        tokenizer: a Hugging Face tokenizer of the fast kind.
        place: the text that ends where an option is chosen.
        gap: what stands between the place and a name.

    Raises:
        InputError: too many for letters, or names that merge with the place.
    """
    if n < 1:
        raise InputError("there are no options to ask about")
    try:
        return _named(n, kind, tokenizer, place, gap)
    except _MergeError:
        if not gap:
            raise
    return replace(_named(n, kind, tokenizer, place + gap, ""), lead=gap)


class _MergeError(InputError):
    """Names that change the tokens before them."""


def _named(n: int, kind: NameKind, tokenizer: Any, place: str, gap: str) -> Names:
    numbers = [f"{number:0{len(str(n))}d}" for number in range(1, n + 1)]
    letters = list(ascii_uppercase[:n])
    if kind == "numbers":
        return _placed(tokenizer, place, gap, numbers, "number")
    if n <= len(ascii_uppercase):
        return _placed(tokenizer, place, gap, letters, "letter")
    if kind == "auto" and _are_single(tokenizer, place, gap, numbers):
        return _placed(tokenizer, place, gap, numbers, "number")
    pairs = ["".join(pair) for pair in product(ascii_uppercase, repeat=2)]
    single = _single(tokenizer, place, gap, pairs)
    if len(single) >= n:
        return _placed(tokenizer, place, gap, single[:n], "letters")
    if kind == "auto":
        return _placed(tokenizer, place, gap, numbers, "number")
    if n > MOST_PAIRS:
        raise InputError(f"{n} options are too many for letters; set names to numbers or auto")
    return _placed(tokenizer, place, gap, pairs[:n], "letters")


def continuations(
    tokenizer: Any, place: str, gap: str, names: Iterable[str]
) -> list[tuple[Tokens, list[int]] | None]:
    """Tokens by which each name lengthens a text, with the characters of gap and name at which
    they begin; None where it merges with the text.
    """
    texts = [place, *(f"{place}{gap}{name}" for name in names)]
    encoding = tokenizer(texts, add_special_tokens=False, return_offsets_mapping=True)
    alone, *rows = encoding["input_ids"]
    found: list[tuple[Tokens, list[int]] | None] = []
    for row, offsets in zip(rows, encoding["offset_mapping"][1:], strict=True):
        merged = row[: len(alone)] != alone or len(row) == len(alone)
        starts = [begin - len(place) for begin, _ in offsets[len(alone) :]]
        found.append(None if merged else (tuple(row[len(alone) :]), starts))
    return found


def _single(tokenizer: Any, place: str, gap: str, names: Sequence[str]) -> list[str]:
    """Names of one token; of those that share a token the first."""
    found: dict[int, str] = {}
    for name, row in zip(names, continuations(tokenizer, place, gap, names), strict=True):
        if row is not None and len(row[0]) == 1:
            found.setdefault(row[0][0], name)
    return list(found.values())


def _are_single(tokenizer: Any, place: str, gap: str, names: Sequence[str]) -> bool:
    rows = [row for row in continuations(tokenizer, place, gap, names) if row is not None]
    shared = _shared(rows) if len(rows) > 1 else 0
    tokens = {row[0][shared:] for row in rows}
    return len(tokens) == len(names) and all(len(each) == 1 for each in tokens)


def _shared(rows: Sequence[tuple[Tokens, list[int]]]) -> int:
    """How many tokens all begin with, up to where the gap ends; each has more."""
    least = min(len(tokens) for tokens, _ in rows)
    return next((at for at in range(least) if len({row[0][at] for row in rows}) > 1), least - 1)


def _placed(tokenizer: Any, place: str, gap: str, names: Sequence[str], kind: str) -> Names:
    rows = [row for row in continuations(tokenizer, place, gap, names) if row is not None]
    tokens = [row[0] for row in rows]
    if len(rows) < len(names):
        raise _MergeError(
            "names of options merge with the end of the prompt for this tokenizer; let answer end "
            "in a line break"
        )
    ordered = sorted(tokens)  # what begins with a row stands right behind it
    if any(b[: len(a)] == a for a, b in pairwise(ordered)):
        raise InputError("this tokenizer does not tell the names of options apart")
    shared = _shared(rows) if len(rows) > 1 else 0
    # Only the gap is put before the decision, and only where a token ends with it.
    shared = next((at for at in range(shared, 0, -1) if _begins(rows, at) == len(gap)), 0)
    return Names(tuple(names), tuple(row[shared:] for row in tokens), gap if shared else "", kind)


def _begins(rows: Sequence[tuple[Tokens, list[int]]], at: int) -> int | None:
    """The character at which the tokens of this number begin in all rows."""
    places = {starts[at] for _, starts in rows}
    return places.pop() if len(places) == 1 else None
