"""Labels that come in left and right pairs: the same text but for the side of the body."""

import re
from collections.abc import Iterable

from workbench.labels.space import Label

SIDES = ("left", "right")
_SIDE = re.compile(r"\b(left|right)\b", re.IGNORECASE)


def side_of(text: str) -> str | None:
    """The side that a text names; None where it names none, or names sides twice."""
    found = _SIDE.findall(text)
    return found[0].lower() if len(found) == 1 else None


def opposite(side: str) -> str:
    """Right for left, and left for right."""
    return SIDES[1 - SIDES.index(side)]


def without_side(text: str) -> str:
    """The text without the word for the side."""
    return " ".join(_SIDE.sub(" ", text).replace(" ,", ",").split())


def mirror_pairs(labels: Iterable[Label]) -> list[tuple[Label, Label]]:
    """Labels that differ in the side alone, as (left, right), in the order given."""
    labels = list(labels)
    of_text = {label.text: label for label in labels}
    pairs = []
    for label in labels:
        if side_of(label.text) == "left":
            mirror = of_text.get(_SIDE.sub(_mirrored, label.text))
            if mirror is not None:
                pairs.append((label, mirror))
    return pairs


def _mirrored(found: re.Match[str]) -> str:
    other = opposite(found[0].lower())
    return other.capitalize() if found[0][0].isupper() else other
