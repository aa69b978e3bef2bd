"""Chains of thought of the laterality task, in two formats.

    2 in fracture shaft femur A F K P                      shortlists, in order of reference
    5 as 2 in fracture shaft femur A F K P
    2 side left                                            then for each mention the side,
    2 not Displaced fracture of shaft of right femur K     a near miss that it rules out,
    2 is Displaced fracture of shaft of left femur A       and the label
    5 side opposite of left at 2 : right

The control format says all sides first and opens with another cue: what comes first in a chain
could be an artefact of how chains are written.
"""

import re
from collections.abc import Sequence

from workbench.labels.sides import opposite
from workbench.prompts.chain import Stage
from workbench.prompts.drawn import DrawnPrompt
from workbench.prompts.references import in_order, sided
from workbench.prompts.sided_families import SidedFamilies

CONTROL_CUE = "\nsides first:"
"""Opens a chain in the control format."""

_STAGE_OF: dict[str, Stage] = {"in": "coarse", "side": "other", "not": "fine", "is": "fine"}
_STEP = re.compile(r"\s*(\d+) (?:as \d+ )?(in|side|not|is)\b")


def write_chain(families: SidedFamilies, prompt: DrawnPrompt, *, control: bool) -> list[str]:
    """The correct chain of thought, a line a step."""
    order = in_order(sided(prompt.mentions))
    listed = [_shortlist(families, prompt, place) for place in order]
    sides = [_side(families, prompt, place) for place in order]
    decided = [_decided(families, prompt, place) for place in order]
    if control:
        return [*sides, *(x for one, two in zip(listed, decided, strict=True) for x in (one, *two))]
    return [*listed, *(x for one, two in zip(sides, decided, strict=True) for x in (one, *two))]


def _shortlist(families: SidedFamilies, prompt: DrawnPrompt, place: int) -> str:
    mention = sided(prompt.mentions)[place]
    family, letters = prompt.family_of(mention.label), prompt.letters
    source = "" if mention.words_of is None else f" as {mention.words_of + 1}"
    listed = " ".join(sorted(letters[label] for label in family))
    return f" {place + 1}{source} in {' '.join(families.shared_words(family))} {listed}"


def _side(families: SidedFamilies, prompt: DrawnPrompt, place: int) -> str:
    mention = sided(prompt.mentions)[place]
    side, to = families.side(mention.label), mention.side_of
    if to is None:
        return f" {place + 1} side {side}"
    there = opposite(side) if mention.flips else side
    how = "opposite of" if mention.flips else "same as"
    return f" {place + 1} side {how} {there} at {to + 1} : {side}"


def _decided(families: SidedFamilies, prompt: DrawnPrompt, place: int) -> list[str]:
    gold, letters = prompt.golds[place], prompt.letters
    miss = families.mirror[gold]
    return [
        f" {place + 1} not {families.space[miss].text} {letters[miss]}",
        f" {place + 1} is {families.space[gold].text} {letters[gold]}",
    ]


def laterality_stages(event: int, steps: Sequence[str]) -> list[str]:
    """What steps are to the decision about mention `event` (from 0).

    `k in …` is the coarse step of mention k, counted from 1; `k not …` and `k is …` are its fine
    steps. `k side …` is "other": it says what the fine steps need, and rules nothing out. Of the
    steps of other mentions, those before its first step are "before", those after its last "after",
    and those between "other".
    """
    own: list[Stage | None] = []
    for step in steps:
        found = _STEP.match(step)
        mine = found is not None and int(found[1]) == event + 1
        own.append(_STAGE_OF[found[2]] if found and mine else None)
    places = [place for place, stage in enumerate(own) if stage]
    first, last = (places[0], places[-1]) if places else (len(own), len(own))
    return [
        stage or ("before" if place < first else "after" if place > last else "other")
        for place, stage in enumerate(own)
    ]


def side_steps(event: int, steps: Sequence[str]) -> list[int]:
    """Which steps say the side of mention `event` (from 0)."""
    found = [_STEP.match(step) for step in steps]
    return [
        place
        for place, match in enumerate(found)
        if match and int(match[1]) == event + 1 and match[2] == "side"
    ]
