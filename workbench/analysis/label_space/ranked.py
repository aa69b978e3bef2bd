"""Right and listed labels of many documents as flat arrays, and parts of them."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from workbench.analysis.label_space.frequency import PerLabel
from workbench.errors import InputError

Labels = Collection[int] | Int[np.ndarray, " _"]
"""Label numbers of a document."""
Scores = Collection[float] | Collection[int] | Float[np.ndarray, " _"]
"""Of its labels, as many."""


class Hits(NamedTuple):
    """The listed labels that are right, in order of the documents and, in each, of the places."""

    document: Int[np.ndarray, " hit"]
    label: Int[np.ndarray, " hit"]
    place: Int[np.ndarray, " hit"]
    score: Float[np.ndarray, " hit"]


@dataclass(frozen=True)
class Rankings:
    """Right and listed labels of many documents, in order of the documents.

    Of a pair that is ignored nothing is right and nothing wrong; it is in no other array.

    Attributes:
        n: documents, be they counted or not.
        n_labels: labels that there are, listed or not; None where that is not known.
        counted: whether a document counts: not where it is outside this part.
        gold_document: document of each right label.
        gold_label: its number.
        ignored_document: document of each pair that is ignored.
        ignored_label: its label.
        document: document of each listed label.
        label: its number.
        place: its place in the document's list, from 0.
        score: the higher, the earlier it stands; comparable between documents.
        right: whether it is right.
    """

    n: int
    n_labels: int | None
    counted: Bool[np.ndarray, " document"]
    gold_document: Int[np.ndarray, " gold"]
    gold_label: Int[np.ndarray, " gold"]
    ignored_document: Int[np.ndarray, " ignored"]
    ignored_label: Int[np.ndarray, " ignored"]
    document: Int[np.ndarray, " listed"]
    label: Int[np.ndarray, " listed"]
    place: Int[np.ndarray, " listed"]
    score: Float[np.ndarray, " listed"]
    right: Bool[np.ndarray, " listed"]

    @classmethod
    def of(
        cls,
        gold: Sequence[Labels],
        listed: Sequence[Labels],
        *,
        scores: Sequence[Scores] | None = None,
        ignored: Sequence[Labels] | None = None,
        n_labels: int | None = None,
    ) -> "Rankings":
        """From label numbers of each document, listed best first.

        Labels in `ignored` are taken out of a document's right and listed labels before places are
        counted. Without `scores`, that of a label is 1 / place.

        Raises:
            InputError: as many right as listed or ignored rows are not given, not as many scores
                as listed labels, or a label is no number from 0 to `n_labels` - 1.
        """
        rows = {"gold": gold, "listed": listed, "ignored": ignored or [()] * len(gold)}
        flat = {name: _flat(name, of, len(gold), n_labels) for name, of in rows.items()}
        width = 1 + max((int(label.max()) for _, label in flat.values() if len(label)), default=0)
        keys = {name: document * width + label for name, (document, label) in flat.items()}
        out = np.unique(keys["ignored"])
        right = np.setdiff1d(keys["gold"], out)
        key = keys["listed"]
        kept = np.sort(np.unique(key, return_index=True)[1])
        kept = kept[~_among(key[kept], out)]
        key = key[kept]
        document, label = (part[kept].astype(np.int32) for part in flat["listed"])
        place = places(document)
        if scores is None:
            score = 1 / (place + 1)
        else:
            score = _joined(scores, float)
            if [*map(len, scores)] != [*map(len, listed)]:
                raise InputError("not as many scores as listed labels of a document")
            score = score[kept]
        return cls(
            len(gold),
            n_labels,
            np.ones(len(gold), bool),
            *_apart(right, width),
            *_apart(out, width),
            document,
            label,
            place,
            score,
            _among(key, right),
        )

    @classmethod
    def of_names(
        cls, gold: Sequence[Collection[str]], listed: Sequence[Sequence[str]]
    ) -> "Rankings":
        """From labels by name, numbered in order of first appearance."""
        number: dict[str, int] = {}

        def numbered(rows: Sequence[Collection[str]]) -> list[list[int]]:
            return [[number.setdefault(name, len(number)) for name in row] for row in rows]

        return cls.of(numbered(gold), numbered(listed))

    def within(self, kept: Bool[np.ndarray, " label"]) -> "Rankings":
        """Of some labels only; the listed ones keep their places among all."""
        part = self._part(*(kept[x] for x in (self.gold_label, self.ignored_label, self.label)))
        return replace(part, n_labels=int(kept.sum()))

    def of_documents(self, kept: Bool[np.ndarray, " document"]) -> "Rankings":
        """Of some documents only, which keep their numbers."""
        of = (self.gold_document, self.ignored_document, self.document)
        return replace(self._part(*(kept[x] for x in of)), counted=self.counted & kept)

    def given(self, kept: Bool[np.ndarray, " listed"]) -> "Rankings":
        """With some of the listed labels only; what is right and ignored stays."""
        gold, ignored = (np.ones(len(x), bool) for x in (self.gold_document, self.ignored_document))
        return self._part(gold, ignored, kept)

    def first(self, k: int) -> "Rankings":
        """With the first `k` listed labels of each document only."""
        return self.given(self.place < k) if k < self.longest else self

    def best(self, worth: PerLabel) -> "Rankings":
        """The right labels as the list, those of most worth first."""
        order = np.lexsort((-worth[self.gold_label], self.gold_document))
        document, label = self.gold_document[order], self.gold_label[order]
        return replace(
            self,
            document=document,
            label=label,
            place=places(document),
            score=worth[label],
            right=np.ones(len(order), bool),
        )

    @property
    def n_gold(self) -> Int[np.ndarray, " document"]:
        """Right labels of each document."""
        return np.bincount(self.gold_document, minlength=self.n)

    @property
    def longest(self) -> int:
        """Labels of the longest list."""
        return int(self.place.max(initial=-1)) + 1

    @cached_property
    def hits(self) -> Hits:
        """The listed labels that are right."""
        at = np.flatnonzero(self.right)
        return Hits(self.document[at], self.label[at], self.place[at], self.score[at])

    def _part(self, gold: np.ndarray, ignored: np.ndarray, listed: np.ndarray) -> "Rankings":
        return replace(
            self,
            gold_document=self.gold_document[gold],
            gold_label=self.gold_label[gold],
            ignored_document=self.ignored_document[ignored],
            ignored_label=self.ignored_label[ignored],
            document=self.document[listed],
            label=self.label[listed],
            place=self.place[listed],
            score=self.score[listed],
            right=self.right[listed],
        )


def places(document: Int[np.ndarray, " entry"]) -> Int[np.ndarray, " entry"]:
    """Places from 0 in each run of the same document; documents ascend."""
    begins = np.flatnonzero(np.diff(document, prepend=-1))
    lengths = np.diff(begins, append=len(document))
    return (np.arange(len(document)) - np.repeat(begins, lengths)).astype(np.int32)


def _among(key: np.ndarray, some: np.ndarray) -> np.ndarray:
    """Which keys are among some that ascend."""
    if not len(some):
        return np.zeros(len(key), bool)
    return some[np.minimum(np.searchsorted(some, key), len(some) - 1)] == key


def _apart(key: np.ndarray, width: int) -> tuple[np.ndarray, np.ndarray]:
    document, label = np.divmod(key, width)
    return document.astype(np.int32), label.astype(np.int32)


def _flat(
    name: str, rows: Sequence[Labels], n: int, n_labels: int | None
) -> tuple[np.ndarray, np.ndarray]:
    """Document and label of every entry."""
    if len(rows) != n:
        raise InputError(f"{len(rows)} rows of {name} labels for {n} documents; one each is needed")
    document = np.repeat(np.arange(n), np.fromiter(map(len, rows), np.int64, n))
    label = _joined(rows, np.int64)
    wrong = label < 0 if n_labels is None else (label < 0) | (label >= n_labels)
    if wrong.any():
        at = int(wrong.argmax())
        rule = "from 0" if n_labels is None else f"from 0 to {n_labels - 1}"
        raise InputError(
            f"document {document[at]}: {name} has label {label[at]}, but labels go {rule}"
        )
    return document, label


def _joined(rows: Sequence[Labels] | Sequence[Scores], kind: type) -> np.ndarray:
    """All entries in one array of a kind."""
    arrays = (
        row if isinstance(row, np.ndarray) else np.fromiter(row, kind, len(row)) for row in rows
    )
    return np.concatenate([*arrays, np.zeros(0, kind)], dtype=kind, casting="same_kind")
