"""All sentences of a document that tell a label.

A sentence tells a label where it says one of its wordings word by word, or an abbreviation of one,
or where it has enough of its characters (`SupportFinder`), with vowels or, as in shorthand, without
them. Where another label that is at hand, right for the document too, has more of its own there,
only characters count that are not that label's as well.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from jaxtyping import Float

from workbench.labels.corpus import LabelledCorpus
from workbench.labels.wordings import abbreviations, names, wordings
from workbench.labels.words import words
from workbench.prompts.support import SupportFinder

_UPPER = re.compile(r"\b(?=[A-Z0-9]*[A-Z])[A-Z0-9]{3,8}\b")
_VOWELS = re.compile(r"(?i)(?<=[a-z])[aeiou]+")
_BARE = 1.5
"""Times the threshold that a sentence without vowels must have: more words look alike."""
_SAME = 0.95
"""Of a rival's overlap, from which on a sentence tells a label as well as the rival."""


@dataclass(frozen=True)
class Told:
    """A sentence, by its place in the document, that tells a label, and how well it does."""

    sentence: int
    overlap: float


class Teller:
    """Finds what tells the labels of a corpus.

    Args:
        corpus: its labels.
        threshold: share of a label's TF-IDF weight that a sentence has which tells it in other
            words.

    Raises:
        InputError: no label text has a word.
    """

    def __init__(self, corpus: LabelledCorpus, threshold: float) -> None:
        self.wordings = wordings(corpus)
        self._ids, self._threshold = corpus.label_ids, threshold
        self._finder = SupportFinder(self.wordings)
        self._bare = SupportFinder([[_without_vowels(one) for one in row] for row in self.wordings])
        self._names: dict[int, list[str]] = {}
        self._short: dict[int, set[str]] = {}

    def told(
        self, sentences: Sequence[str], label: int, rivals: Sequence[int] = ()
    ) -> tuple[Told, ...]:
        """The sentences that tell a label, in order.

        Args:
            sentences: of a document.
            label: by position.
            rivals: other labels that a sentence may tell in its place.
        """
        labels = list(dict.fromkeys([label, *rivals]))
        overlaps = self._overlaps(sentences, labels)
        return self._of_label(sentences, labels, 0, overlaps)

    def told_of_all(
        self, sentences: Sequence[str], labels: Sequence[int]
    ) -> dict[int, tuple[Told, ...]]:
        """The sentences that tell each of some labels, which are each other's rivals."""
        overlaps = self._overlaps(sentences, labels)
        return {
            label: self._of_label(sentences, labels, column, overlaps)
            for column, label in enumerate(labels)
        }

    def _of_label(
        self,
        sentences: Sequence[str],
        labels: Sequence[int],
        column: int,
        overlaps: Float[np.ndarray, "sentence label"],
    ) -> tuple[Told, ...]:
        label, rivals = labels[column], [*labels[:column], *labels[column + 1 :]]
        own = overlaps[:, column]
        best = overlaps.max(axis=1, initial=0.0)
        alike = own >= self._threshold
        for at in np.flatnonzero(alike & (own < _SAME * best)).tolist():
            better = [labels[x] for x in np.flatnonzero(own[at] < _SAME * overlaps[at]).tolist()]
            alike[at] = self._beside(sentences[at], label, better) >= self._threshold
        return tuple(
            Told(at, float(own[at]))
            for at, sentence in enumerate(sentences)
            if alike[at] or self._named(sentence, label, rivals)
        )

    def _overlaps(
        self, sentences: Sequence[str], labels: Sequence[int]
    ) -> Float[np.ndarray, "sentence label"]:
        bare = self._bare.overlaps([_without_vowels(one) for one in sentences], labels)
        return np.maximum(self._finder.overlaps(sentences, labels), bare / _BARE)

    def says(self, text: str, label: int) -> bool:
        """Whether a text says one of a label's wordings word by word."""
        said = _spoken(text)
        return any(name in said for name in self._names_of(label))

    def _beside(self, sentence: str, label: int, others: Sequence[int]) -> float:
        bare = self._bare.overlap_beside(_without_vowels(sentence), label, others)
        return max(self._finder.overlap_beside(sentence, label, others), bare / _BARE)

    def _named(self, sentence: str, label: int, rivals: Sequence[int]) -> bool:
        short = set(_UPPER.findall(sentence)) & self._short_of(label)
        if short and not any(short & self._short_of(rival) for rival in rivals):
            return True
        return self.says(sentence, label)

    def _names_of(self, label: int) -> list[str]:
        if label not in self._names:
            some = (words(name) for name in names(self.wordings[label], self._ids[label]))
            self._names[label] = [f" {' '.join(one)} " for one in some if one]
        return self._names[label]

    def _short_of(self, label: int) -> set[str]:
        if label not in self._short:
            self._short[label] = abbreviations(self.wordings[label])
        return self._short[label]


@lru_cache(maxsize=256)
def _spoken(text: str) -> str:
    """Words between spaces, so that whole words are found in it."""
    return f" {' '.join(words(text, single=True))} "


def _without_vowels(text: str) -> str:
    return _VOWELS.sub("", text)
