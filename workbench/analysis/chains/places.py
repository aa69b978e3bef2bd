"""Where a text, or tokens, say some words: places of several things at once.

Each thing is given by one or more texts, and found wherever one of them stands as whole words;
case, Unicode form and kind of spaces do not matter (`workbench.labels.words`). Of places that
overlap the longest counts: "cyst" is not found inside "cyst of spleen". A place that two things
claim with texts of the same length is neither's.
"""

from collections.abc import Sequence
from typing import Any

from workbench.labels.words import Searchable, comparable
from workbench.prompts.chain import decoded
from workbench.prompts.prompt import Span
from workbench.prompts.templates import CharSpan


def find_all(text: str, wanted: Sequence[Sequence[str]]) -> list[list[CharSpan]]:
    """Places of each of several things in a text, in order; each is given by one or more texts."""
    searched = Searchable(text)
    found: dict[CharSpan, set[int]] = {}
    for number, texts in enumerate(wanted):
        for one in dict.fromkeys(map(comparable, texts)):
            for place in searched.all(one):
                found.setdefault(place, set()).add(number)
    places: list[list[CharSpan]] = [[] for _ in wanted]
    taken: list[CharSpan] = []
    for place in sorted(found, key=lambda at: (at[0] - at[1], at)):
        if not any(place[0] < end and start < place[1] for start, end in taken):
            taken.append(place)
            if len(found[place]) == 1:
                places[found[place].pop()].append(place)
    return [sorted(each) for each in places]


def tokens_over(ends: Sequence[int], span: CharSpan) -> Span:
    """Tokens that overlap some characters; `ends` are the characters behind each token."""
    first = next((i for i, end in enumerate(ends) if end > span[0]), len(ends) - 1)
    last = next((i for i, end in enumerate(ends) if end >= span[1]), len(ends) - 1)
    return first, max(first, last) + 1


def listed_in(
    tokenizer: Any, tokens: Sequence[int], start: int, wanted: Sequence[Sequence[str]]
) -> list[list[Span]]:
    """Where the tokens from `start` on say each of several things."""
    text, ends = decoded(tokenizer, list(tokens[start:]))
    found = [[tokens_over(ends, place) for place in places] for places in find_all(text, wanted)]
    return [[(start + first, start + last) for first, last in spans] for spans in found]
