"""What the spans and option tokens of an event hold, and whether it can be meant.

A prompt file can be right in form and still say something else than its writer meant: letters
without the space that the model writes before them, evidence inside an option, spans in another
order than their labels. Such an event is measured like any other, and its numbers mean nothing.

Without a tokenizer only places are checked. Nothing here shows text of a prompt.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any

from workbench.errors import InputError
from workbench.labels.as_text import control_tokens
from workbench.labels.words import comparable, has_no_spaces, words
from workbench.prompts.prompt import DecisionEvent, Span, Variant

_TAIL = (8, 32, 128, 1_000_000)
"""Last tokens that are read as text and back, tried until they come back the same."""
_BESIDE = 6
"""Tokens beside a span in which the letter of an option is looked for."""
_CUE = re.compile(r"[A-Za-z0-9)\]\"'*] ?[:?]\Z")
"""A prompt after which the next word begins with a space, in scripts that have spaces."""
_MARKS = ".:()[]*"
"""Signs around the letter of an option."""
COUNTERFACTUALS: tuple[Variant, ...] = ("far", "near")
_SHORTEST_LABEL = 4
"""Characters of a label that is looked for in the spans, with a space at either end."""


@dataclass(frozen=True)
class Meaning:
    """The words of one event, which has a tokenizer."""

    event: DecisionEvent

    @property
    def tokenizer(self) -> Any:
        """The model's."""
        return self.event.tokenizer

    def text(self, tokens: Sequence[int]) -> str:
        """Tokens as text."""
        return self.tokenizer.decode(list(tokens), clean_up_tokenization_spaces=False)

    @cached_property
    def spans(self) -> list[str]:
        """What every option's span holds."""
        return [self.event.pieces().of(one.span) for one in self.event.options]

    @cached_property
    def tail(self) -> tuple[int, ...] | None:
        """Last tokens of the prompt that are made of their own text; None where none are."""
        for size in _TAIL:
            tokens = self.event.clean[-size:]
            if self._tokens(self.text(tokens)) == list(tokens):
                return tokens
        return None

    @cached_property
    def ending(self) -> str:
        """The end of the prompt."""
        return self.text(self.event.clean[-_TAIL[1] :])

    @cached_property
    def continuations(self) -> list[str | None]:
        """What every option's token adds to the prompt; None where it is no text of its own."""
        before = self.event.clean[-_TAIL[1] :]
        wholes = (self.text((*before, token)) for token in self.event.option_tokens)
        return [
            whole.removeprefix(self.ending) if whole.startswith(self.ending) else None
            for whole in wholes
        ]

    def next_token(self, continuation: str) -> int | None:
        """The one token by which these words lengthen the prompt; None if it is not one."""
        if self.tail is None:
            return None
        row = self._tokens(self.text(self.tail) + continuation)
        return row[-1] if row[:-1] == list(self.tail) else None

    def _tokens(self, text: str) -> list[int]:
        return self.tokenizer(text, add_special_tokens=False)["input_ids"]


def check_meaning(event: DecisionEvent) -> None:
    """Refuse an event whose spans or option tokens hold what cannot be meant.

    Of an event without a tokenizer, only the places of spans are checked.

    Raises:
        InputError: options' spans that overlap; evidence that overlaps an option, reaches into the
            aligned suffix, or is the same in a counterfactual. With a tokenizer also: a prompt that
            ends in a space, a blank span, an option token that the tokenizer does not write there
            or whose space before it is missing or too much, spans in another order than their
            labels or letters, two options of one text. Names the field, not the prompt.
    """
    _check_places(event)
    _check_change(event)
    if event.tokenizer is None:
        return
    held = Meaning(event)
    _check_blanks(held)
    _check_tokens(held)
    _check_order(held)
    check_texts(held)


def _check_places(event: DecisionEvent) -> None:
    spans = sorted((one.span, f"options[{at}].span") for at, one in enumerate(event.options))
    for (first, name), (second, other) in pairwise(spans):
        if second[0] < first[1]:
            raise InputError(
                f"{other} [{second[0]}, {second[1]}] overlaps {name} [{first[0]}, {first[1]}]; "
                "each option has tokens of its own"
            )
    start = len(event.clean) - event.aligned_suffix
    for field, span in _evidences(event):
        for place, name in spans:
            if span[0] < place[1] and place[0] < span[1]:
                inside = place[0] <= span[0] and span[1] <= place[1]
                raise InputError(
                    f"{field} [{span[0]}, {span[1]}] {'lies in' if inside else 'overlaps'} {name} "
                    f"[{place[0]}, {place[1]}]; evidence is what the text says outside the options"
                )
        if span[1] > start:
            raise InputError(
                f"{field} [{span[0]}, {span[1]}] reaches into the aligned suffix, which begins at "
                f"{start} and is the same in all variants; it must end there or before"
            )


def _evidences(event: DecisionEvent) -> Iterator[tuple[str, Span]]:
    yield "evidence", event.evidence
    if event.fine_evidence is not None:
        yield "fine_evidence", event.fine_evidence


def changed(event: DecisionEvent, name: Variant) -> tuple[Span, Span]:
    """Where clean and another variant differ: the tokens of clean, and of the other.

    One of them is empty where tokens are only left out or put in.
    """
    other = event.variant(name)
    most = min(len(event.clean), len(other))
    first = next((at for at in range(most) if event.clean[at] != other[at]), most)
    after = next((at for at in range(most) if event.clean[-1 - at] != other[-1 - at]), most)
    after = min(after, most - first)
    return (first, len(event.clean) - after), (first, len(other) - after)


def _check_change(event: DecisionEvent) -> None:
    for name in COUNTERFACTUALS:
        (first, last), _ = changed(event, name)
        if all(last < span[0] or first > span[1] for _, span in _evidences(event)):
            raise InputError(
                f"evidence is the same tokens in 'clean' and in {name!r}, which differ in "
                f"[{first}, {last}] of 'clean' alone; it must hold what is replaced"
            )


def _check_blanks(held: Meaning) -> None:
    places = [*_evidences(held.event)]
    places += [(f"options[{at}].span", one.span) for at, one in enumerate(held.event.options)]
    for name, span in places:
        if not held.event.pieces().of(span).strip():
            raise InputError(f"{name} [{span[0]}, {span[1]}] holds only blanks; it must hold words")
    check_ending(held.ending)


def check_ending(text: str) -> None:
    """Refuse a prompt whose last sign is of the word that is asked for.

    Raises:
        InputError: it ends in a space.
    """
    if text.endswith(" "):
        raise InputError(
            "'clean' ends in a space, after which the model writes a word in another way; end it "
            "before the space, and give option tokens that begin with it"
        )


def _check_tokens(held: Meaning) -> None:
    found = held.continuations
    for at, (option, text) in enumerate(zip(held.event.options, found, strict=True)):
        written = held.next_token(text) if text else None
        if written not in (None, option.token):
            raise InputError(
                f"options[{at}].token is {option.token}, but this tokenizer writes its text "
                f"there as token {written}"
            )
    cued = _is_cued(held)
    control = held.event.clean[-1] in control_tokens(held.tokenizer)
    broken = held.ending.endswith("\n") or control
    if not (cued or broken) or not all(text and text.strip() for text in found):
        return
    spaced = [str(text).startswith(" ") for text in found]
    if any(spaced) if cued else not all(spaced):
        return
    twins = [held.next_token(f" {text}" if cued else str(text).strip(" ")) for text in found]
    own, clean = held.event.option_tokens, set(held.event.clean)
    if None in twins:
        return
    if broken and (not clean.issuperset(twins) or 2 * len(clean & {*own}) > len(own)):
        return
    if cued:
        what = "begin without a space, but after this prompt's last sign a word begins with one"
    else:
        ends = "a control token" if control else "a line break"
        what = f"begin with a space, but the prompt ends in {ends} and shows them without it"
    raise InputError(f"option tokens {what}; options[0].token must be {twins[0]}, not {own[0]}")


def _is_cued(held: Meaning) -> bool:
    """Whether a word that comes next begins with a space.

    Not where the line asks in a script without spaces, nor where the prompt itself shows answers
    without one behind its last sign.
    """
    found, clean = held.continuations, held.event.clean
    letters = all(text and len(text) == 1 and text.isupper() for text in found)
    line = held.ending.rpartition("\n")[2]
    if has_no_spaces(line) or not {*pairwise(clean)}.isdisjoint(
        (clean[-1], token) for token in held.event.option_tokens
    ):
        return False
    return bool(_CUE.search(line)) or (letters and line[-1:].isalnum())


def _check_order(held: Meaning) -> None:
    names = [comparable(str(text)).strip() for text in held.continuations]
    orders = [[look(held, at) for at in range(len(names))] for look in _PLACES]
    if names not in orders:
        for order in orders:
            if sorted(map(str, order)) == sorted(names):
                at = next(at for at, name in enumerate(names) if order[at] != name)
                other = names.index(str(order[at]))
                raise InputError(
                    f"options[{at}].span holds the option that options[{other}].token selects; "
                    "spans or tokens are exchanged"
                )
        _check_letters(names, orders)
    labels = [_spoken(one.label) for one in held.event.options]
    shown = [_spoken(text) for text in held.spans]
    lost = [at for at, label in enumerate(labels) if label not in shown[at]]
    for at in lost:
        for other in lost:
            if other != at and len(labels[at]) > _SHORTEST_LABEL and labels[at] in shown[other]:
                raise InputError(
                    f"options[{other}].span holds the label of options[{at}]; labels or spans are "
                    "exchanged"
                )


def _check_letters(names: Sequence[str], orders: Sequence[Sequence[str | None]]) -> None:
    """Refuse letters, or digits, other than those that the options show."""
    if not all(len(name) == 1 and name.isalnum() for name in names):
        return
    for order in orders:
        shown = [str(one) for one in order if one is not None and len(one) == 1]
        if len({*shown}) == len(names) and all(one.isalpha() for one in shown) == all(
            name.isalpha() for name in names
        ):
            at = next(at for at, name in enumerate(names) if order[at] != name)
            raise InputError(
                f"options[{at}].token selects another letter than options[{at}].span shows"
            )


def _spoken(text: str) -> str:
    """Words between spaces, so that whole words are found in others."""
    return f" {' '.join(words(text))} "


def _first(text: str) -> str | None:
    return next(iter(words(text)), None)


def _last(text: str) -> str | None:
    return next(reversed(words(text)), None)


def _before(held: Meaning, at: int) -> str | None:
    start = held.event.options[at].span[0]
    return _last(held.event.pieces().of((max(0, start - _BESIDE), start)))


def _after(held: Meaning, at: int) -> str | None:
    end = held.event.options[at].span[1]
    most = len(held.event.clean)
    return _first(held.event.pieces().of((end, min(most, end + _BESIDE))))


_PLACES: tuple[Callable[[Meaning, int], str | None], ...] = (
    lambda held, at: _first(held.spans[at]),
    lambda held, at: _last(held.spans[at]),
    _before,
    _after,
)
"""Where the letter of an option may stand, as first or last word of its span or beside it."""


def check_texts(held: Meaning) -> None:
    """Refuse options that say the same.

    Raises:
        InputError: naming both.
    """
    earlier: dict[tuple[str, ...], int] = {}
    for at, (text, token) in enumerate(zip(held.spans, held.continuations, strict=True)):
        shown = comparable(text).split()  # signs count: C and C++, 1.5 and 15
        name = comparable(str(token)).strip()
        if len(shown) > 1:
            shown = shown[1:] if shown[0].strip(_MARKS) == name else shown
            shown = shown[:-1] if shown[-1].strip(_MARKS) == name else shown
        first = earlier.setdefault(tuple(shown), at)
        if first != at and words(text):
            raise InputError(
                f"options[{first}] and options[{at}] have one text; each option is another label"
            )
