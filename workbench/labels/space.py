"""A label space: labels with id, text and a place in a taxonomy, from which clusters follow."""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property

from workbench.errors import InputError


@dataclass(frozen=True)
class Label:
    """One label. `ancestors` are the taxonomy nodes above it, nearest first; at least one."""

    id: str
    text: str
    ancestors: tuple[str, ...]
    synonyms: tuple[str, ...] = ()


class LabelSpace:
    """Labels by id, and the clusters that the taxonomy gives them.

    A taxonomy node with fewer than `min_cluster_size` labels below it is too small to be a cluster:
    the label falls back to the next node up.

    Raises:
        InputError: no labels, the same id twice, or a label without an ancestor.
    """

    def __init__(self, name: str, labels: Iterable[Label], *, min_cluster_size: int = 4) -> None:
        self.name = name
        self.min_cluster_size = min_cluster_size
        self._labels: dict[str, Label] = {}
        for label in labels:
            if label.id in self._labels:
                raise InputError(f"label space {name!r}: label {label.id!r} occurs twice")
            if not label.ancestors:
                raise InputError(f"label space {name!r}: label {label.id!r} has no taxonomy parent")
            self._labels[label.id] = label
        if not self._labels:
            raise InputError(f"label space {name!r} holds no labels")

    def __len__(self) -> int:
        return len(self._labels)

    def __iter__(self) -> Iterator[Label]:
        return iter(self._labels.values())

    def __contains__(self, label_id: object) -> bool:
        return label_id in self._labels

    def __getitem__(self, label_id: str) -> Label:
        try:
            return self._labels[label_id]
        except KeyError:
            raise InputError(f"label space {self.name!r} has no label {label_id!r}") from None

    @property
    def ids(self) -> list[str]:
        """Label ids, in the order given."""
        return list(self._labels)

    @cached_property
    def _members(self) -> dict[str, tuple[str, ...]]:
        below: defaultdict[str, list[str]] = defaultdict(list)
        for label in self:
            for node in label.ancestors:
                below[node].append(label.id)
        return {node: tuple(ids) for node, ids in below.items()}

    def members(self, node: str) -> tuple[str, ...]:
        """Ids of all labels below a taxonomy node."""
        try:
            return self._members[node]
        except KeyError:
            raise InputError(f"label space {self.name!r} has no taxonomy node {node!r}") from None

    def cluster(self, label_id: str) -> str:
        """The nearest taxonomy node with `min_cluster_size` labels below it, else the top one."""
        ancestors = self[label_id].ancestors
        for node in ancestors:
            if len(self._members[node]) >= self.min_cluster_size:
                return node
        return ancestors[-1]
