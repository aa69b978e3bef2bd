"""Names of options as a tree of tokens, and its nodes as branches behind a question."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

Path = tuple[int, ...]
"""Tokens of a name from its start; of an inner node, those that lead to it."""


@dataclass(frozen=True)
class NameTree:
    """The names of one question: tokens that go on at each inner node, those above first.

    The first node, the empty one, is the decision.
    """

    children: dict[Path, list[int]]
    names: tuple[Path, ...]

    @classmethod
    def of(cls, names: Sequence[Sequence[int]]) -> "NameTree":
        """The tree of names, each with one token at least."""
        children: dict[Path, list[int]] = {(): []}
        for name in names:
            for end, token in enumerate(name):
                after = children.setdefault(tuple(name[:end]), [])
                if token not in after:
                    after.append(token)
        ordered = {node: children[node] for node in sorted(children, key=lambda n: (len(n), n))}
        return cls(ordered, tuple(tuple(name) for name in names))

    @property
    def below(self) -> list[Path]:
        """All nodes but the decision."""
        return list(self.children)[1:]

    @property
    def depth(self) -> int:
        """Tokens that lead to the deepest node."""
        return max(map(len, self.children))

    def log_probs(self, steps: dict[Path, float]) -> Float[np.ndarray, " option"]:
        """Of the names, by the log-probability of each step of the tree, named by where it ends."""
        return np.array(
            [sum(steps[name[:end]] for end in range(1, len(name) + 1)) for name in self.names]
        )


def branches(
    nodes: Sequence[Sequence[Path]], lengths: Sequence[int]
) -> tuple[Int[Tensor, "row node"], Int[Tensor, "row node"], Bool[Tensor, "row node seen"]]:
    """Last tokens of nodes, their positions, and what each sees of its row and of the nodes."""
    most, width = max(map(len, nodes)), max(lengths)
    tokens = torch.zeros(len(nodes), most, dtype=torch.long)
    positions = torch.zeros(len(nodes), most, dtype=torch.long)
    seen = torch.zeros(len(nodes), most, width + most, dtype=torch.bool)
    seen[:, :, width:] = torch.eye(most, dtype=torch.bool)  # padding sees itself
    for row, (some, length) in enumerate(zip(nodes, lengths, strict=True)):
        place = {node: at for at, node in enumerate(some)}
        seen[row, :, :length] = True
        positions[row] = length
        for node, at in place.items():
            tokens[row, at] = node[-1]
            positions[row, at] = length + len(node) - 1
            seen[row, at, [width + place[node[:end]] for end in range(1, len(node))]] = True
    return tokens, positions, seen
