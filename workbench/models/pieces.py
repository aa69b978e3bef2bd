"""From text to tokens, and back: one string a token, which together are the text."""

from collections.abc import Sequence
from functools import cached_property
from itertools import accumulate, pairwise
from typing import Any

_BROKEN = "\ufffd"
"""What decoders write for bytes that are no whole character."""


def added_start(tokenizer: Any, text: str, *, as_text: bool = False) -> list[int]:
    """The beginning-of-sequence token, where a tokenizer adds one before this text.

    It does not where the text begins with that token, unless its start is to be read `as_text`.
    """
    start = tokenizer.bos_token_id
    if start is None or (text.startswith(tokenizer.bos_token) and not as_text):
        return []
    return [start] if start in tokenizer("", add_special_tokens=True)["input_ids"][:1] else []


def tokens_of(tokenizer: Any, text: str) -> list[int]:
    """The tokens of a text, as prompts have them: with `added_start`, and no other added token."""
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    return [*added_start(tokenizer, text), *ids]


class Pieces:
    """Tokens with the text of each; control tokens are written out.

    Of tokens that share the bytes of one character the last holds it, the others are empty.
    """

    def __init__(self, tokenizer: Any, tokens: Sequence[int]) -> None:
        self.tokens = tuple(tokens)
        self.strings = _strings(tokenizer, self.tokens)

    @cached_property
    def text(self) -> str:
        """All of them in a row."""
        return "".join(self.strings)

    @cached_property
    def borders(self) -> list[int]:
        """Character at which each token begins, and where the last one ends."""
        places = [0]
        for string in self.strings:
            places.append(places[-1] + len(string))
        return places

    def chars(self, span: tuple[int, int]) -> tuple[int, int]:
        """The characters of some tokens."""
        return self.borders[span[0]], self.borders[span[1]]

    def of(self, span: tuple[int, int]) -> str:
        """The text of some tokens."""
        return self.text[slice(*self.chars(span))]


def _strings(tokenizer: Any, tokens: tuple[int, ...]) -> list[str]:
    text = _decode(tokenizer, tokens)
    if getattr(tokenizer, "is_fast", False):  # many times as quick, where it is the same
        encoding = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
        if tuple(encoding["input_ids"]) == tokens:
            return _cut(text, encoding["offset_mapping"])
    return _one_by_one(tokenizer, tokens)


def _cut(text: str, offsets: Sequence[tuple[int, int]]) -> list[str]:
    """The text cut where tokens end; what offsets leave out goes to the token after it."""
    begins = [begin for begin, _ in offsets[1:]]
    cuts = [min(end, begin) for (_, end), begin in zip(offsets, begins, strict=False)]
    borders = [*accumulate([0, *cuts], max), len(text)]
    return [text[a:b] for a, b in pairwise(borders)] if offsets else []


def _one_by_one(tokenizer: Any, tokens: tuple[int, ...]) -> list[str]:
    """What each token adds to the text of those just before it.

    A decoder may drop the space before the first token that it is given, so none is decoded alone.
    """
    strings, before, read = [], 0, 0
    for at in range(len(tokens)):
        known = _decode(tokenizer, tokens[before:read])
        whole = _decode(tokenizer, tokens[before : at + 1])
        if whole.endswith(_BROKEN) and at + 1 < len(tokens):
            strings.append("")
            continue
        strings.append(whole[len(known) :])
        before, read = read, at + 1
    return strings


def _decode(tokenizer: Any, tokens: Sequence[int]) -> str:
    return tokenizer.decode(
        list(tokens), skip_special_tokens=False, clean_up_tokenization_spaces=False
    )
