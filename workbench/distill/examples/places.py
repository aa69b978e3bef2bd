"""Places in a chain that the terms of a phase look at: where it shortlists, and where it weighs.

Every token that holds a character of a span, blanks at its ends aside, belongs to it: chains are
free text, and where their tokens end is the tokenizer's matter. Positions are those of *queries*,
whose next token is the one that is meant (the paper's: just before each early chain token).
"""

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from typing import Any

from workbench.distill.examples.rows import Place, Row, Settled, Weighed
from workbench.distill.examples.stream import NO_DECISION, NO_OPTION
from workbench.errors import InputError
from workbench.prompts.templates import CharSpan
from workbench.prompts.text import TokenizedText

EARLY_TOKENS = 30
"""Tokens of a chain that are early where a row does not say which: the paper's 10 to 30."""


def chain_places(
    row: Row,
    tokens: TokenizedText,
    turn: CharSpan,
    chain: CharSpan,
    n_decisions: int,
    option_spans: Sequence[tuple[int, int]] | None,
) -> dict[str, Any]:
    """What a row says, or leaves to the defaults, about its chain; see `examples_from_chats`.

    Args:
        row: with places in characters of the chain or the prompt.
        tokens: of prompt and reply.
        turn: characters of the prompt that its spans count in.
        chain: characters of the chain in prompt and reply; empty for none.
        n_decisions: of the row.
        option_spans: tokens of the options, None for no options.

    Raises:
        InputError: a span that is not there, a decision or option that is none.
    """
    where = _Where(tokens, {"chain": chain, "prompt": turn}, n_decisions, option_spans)
    found: dict[str, Any] = {}
    if chain[1] > chain[0]:
        written = where.tokens("chain", "the chain", (0, chain[1] - chain[0]))
        middle = -(-len(written) // 2)
        early, late = written[: min(EARLY_TOKENS, middle)], written[middle:]
        for name, given, unless in (("early", row.early, early), ("late", row.late, late)):
            rows = where.queries(name, given, unless)
            found[name] = [place for place, *_ in rows]
            found[f"{name}_decision"] = [decision for _, decision, _ in rows]
            if name == "late":
                found["late_option"] = [option for *_, option in rows]
    elif row.early or row.late or row.shortlist:
        raise InputError("early, late and shortlist are places of a chain, and there is none")
    if row.shortlist is not None:
        found["shortlist"] = [
            where.named("chain", f"shortlist[{i}]", one.span, one.decision)
            for i, one in enumerate(row.shortlist)
        ]
    if row.gold is not None:
        _check_length("gold", row.gold, n_decisions)
        found["gold"] = [
            NO_DECISION if one is None else _option(f"gold[{i}]", one, option_spans)
            for i, one in enumerate(row.gold)
        ]
    if row.near_options is not None:
        _check_length("near_options", row.near_options, n_decisions)
        found["near_options"] = [
            (i, _option(f"near_options[{i}]", one, option_spans))
            for i, options in enumerate(row.near_options)
            for one in options
        ]
    if row.near is not None:
        found["near"] = [
            where.named(one.where, f"near[{i}]", one.span, one.decision)
            for i, one in enumerate(row.near)
        ]
    elif row.near_options is not None and option_spans is not None:
        found["near"] = [(i, *option_spans[one]) for i, one in found["near_options"]]
    return found


def char_span(text: str, name: str, given: Place) -> CharSpan:
    """A span of a text that is given as such, or as words that occur once.

    Raises:
        InputError: it is outside the text or empty; its words occur never, or more than once.
    """
    if not isinstance(given, str):
        start, end = given
        if not 0 <= start < end <= len(text):
            raise InputError(
                f"{name} [{start}, {end}] is outside the text of {len(text)} characters or empty"
            )
        return start, end
    times = text.count(given) if given else 0
    if times != 1:
        raise InputError(f"{name}: its words occur {times} times; give [first, end] instead")
    return text.index(given), text.index(given) + len(given)


class _Where:
    """Finds tokens of spans that count from the start of some part of the text."""

    def __init__(
        self,
        tokens: TokenizedText,
        parts: dict[str, CharSpan],
        n_decisions: int,
        option_spans: Sequence[Any] | None,
    ) -> None:
        self._text, self._offsets = tokens.text, tokens.offsets
        self._ends = [end for _, end in tokens.offsets]
        self._parts, self._n_decisions, self._options = parts, n_decisions, option_spans

    def tokens(self, part: str, name: str, one: Place) -> list[int]:
        """Tokens that hold a character of a span, without the blanks at its ends."""
        first, end = self._parts[part]
        start, stop = (at + first for at in char_span(self._text[first:end], name, one))
        inside = self._text[start:stop]
        start, stop = stop - len(inside.lstrip()), start + len(inside.rstrip())
        found = []
        for i in range(bisect_right(self._ends, start), len(self._ends)):
            if self._offsets[i][0] >= stop:
                break
            found.append(i)
        if not found:
            raise InputError(f"{name} holds no token")
        return found

    def queries(
        self, name: str, given: Iterable[Place | Weighed] | None, unless: Sequence[int]
    ) -> list[tuple[int, int, int]]:
        """Positions before the tokens of some parts of the chain, each once, decision and option.

        No option where a part says none.
        """
        only = 0 if self._n_decisions == 1 else NO_DECISION
        if given is None:
            return [(token - 1, only, NO_OPTION) for token in unless]
        found: dict[int, tuple[int, int]] = {}
        for i, one in enumerate(given):
            part = one if isinstance(one, Weighed) else Weighed(span=one)
            decision = only
            if part.decision is not None:
                decision = self.decision(f"{name}[{i}]", part.decision)
            option = NO_OPTION
            if isinstance(part, Settled) and part.option is not None:
                option = _option(f"{name}[{i}]: option", part.option, self._options)
                if decision == NO_DECISION:
                    raise InputError(f"{name}[{i}]: option {option} of which decision? say it, too")
            for token in self.tokens("chain", f"{name}[{i}]", part.span):
                found.setdefault(token - 1, (decision, option))
        return [(place, *about) for place, about in sorted(found.items())]

    def named(self, part: str, name: str, one: Place, decision: int) -> tuple[int, int, int]:
        """Decision, first token and end of a span."""
        found = self.tokens(part, name, one)
        return self.decision(name, decision), found[0], found[-1] + 1

    def decision(self, name: str, number: int) -> int:
        """A decision that there is."""
        if number >= self._n_decisions:
            raise InputError(
                f"{name}: decision {number} is none of the {self._n_decisions}, from 0"
            )
        return number


def _check_length(name: str, given: Sequence[Any], n_decisions: int) -> None:
    if len(given) != n_decisions:
        raise InputError(
            f"{name} has {len(given)} entries, must have one for each of the {n_decisions} "
            "decisions"
        )


def _option(name: str, number: int, option_spans: Sequence[Any] | None) -> int:
    n = len(option_spans or ())
    if not 0 <= number < n:
        raise InputError(f"{name}: {number} is none of the {n} options, from 0")
    return number
