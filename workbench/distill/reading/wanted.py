"""What is to be read of a model in a forward; settings and terms name it without loading torch."""

from collections.abc import Collection
from dataclasses import dataclass, fields
from typing import Literal

from workbench.heads import Head

Looks = Literal["rows", "decisions", "options", "early", "late"]
"""Whose attention is wanted: the rows that losses are taken over, the decisions, the options'
tokens, or the rows of chains that shortlist or weigh candidates."""


@dataclass(frozen=True)
class Wanted:
    """What is to be read in a forward; `|` joins two.

    Attributes:
        patterns: heads whose attention patterns are wanted.
        looks: from which queries; "rows" unless anything else is said.
        writes: heads of which is wanted what they write to the residual stream.
        hidden: layers whose output is wanted.
        scale: whether the final norm's factor is wanted, where writing is read.
        logits: whether logits are wanted.
    """

    patterns: frozenset[Head] = frozenset()
    looks: frozenset[Looks] = frozenset()
    writes: frozenset[Head] = frozenset()
    hidden: frozenset[int] = frozenset()
    scale: bool = False
    logits: bool = False

    def __post_init__(self) -> None:
        if self.patterns and not self.looks:
            object.__setattr__(self, "looks", frozenset({"rows"}))

    def __or__(self, other: "Wanted") -> "Wanted":
        names = [field.name for field in fields(self)]
        return Wanted(**{name: getattr(self, name) | getattr(other, name) for name in names})

    @property
    def maps(self) -> bool:
        """Whether anything is read besides logits."""
        return bool(self.patterns or self.writes or self.hidden or self.scale)

    @property
    def last_layer(self) -> int:
        """The last layer of which anything besides logits is wanted; -1 for none."""
        layers = [layer for layer, _ in self.patterns | self.writes]
        return max([*layers, *self.hidden], default=-1)


def all_heads(layers: Collection[int], n_heads: int) -> frozenset[Head]:
    """Every head of some layers."""
    return frozenset((layer, head) for layer in layers for head in range(n_heads))
