"""Which sentence of a document supports a label, by the characters that they share.

A label's wordings become unit TF-IDF vectors of character n-grams within words, since clinical
notes shorten and inflect words. The *overlap* of a sentence and a label is the share of the label's
squared weight on n-grams that the sentence has: 1 where it has all of them, 0 where none; the best
wording counts.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn.feature_extraction.text import CountVectorizer, TfidfVectorizer

from workbench.errors import InputError
from workbench.labels.words import find_words, words

_NGRAMS = (3, 4)
# Their annotations refuse some of the values they document.
_TFIDF: Any = TfidfVectorizer
_COUNTS: Any = CountVectorizer
_STOPS = "。．！？｡।॥؟۔።။៕។"
_NO_STOPS = "\u0e01-\u0e4e\u0e81-\u0ece"
"""Thai and Lao have no full stops; a space stands between their sentences."""
_BREAK = re.compile(
    rf"(?<=[.!?…])\s+|(?<=[{_STOPS}])(?![{_STOPS}」』”’）)\]])\s*|(?<=[{_STOPS}][」』”’）])\s*"
    rf"|(?<=[{_NO_STOPS}])\s+(?=[{_NO_STOPS}])"
)
_OPENING = " \"'([«“„‘「『（¿¡"
_ABBREVIATED = re.compile(r"(?:^|\s)(?:Dr|Mr|Mrs|Ms|Prof|St|vs|No|[A-Z])\.$")
_LONGEST_ABBREVIATION = 6
"""Characters, with the space before."""


@dataclass(frozen=True)
class Support:
    """The sentence, by its place in the document, that supports a label, and how well it does."""

    sentence: int
    overlap: float


class SupportFinder:
    """Finds the sentence of a document that supports a label.

    Args:
        wordings: one or more texts of every label.

    Raises:
        InputError: no wording has a word.
    """

    def __init__(self, wordings: Sequence[Sequence[str]]) -> None:
        texts = [text for label in wordings for text in label]
        self._first = np.cumsum([0, *(len(label) for label in wordings)])
        grams: Any = {"analyzer": "char_wb", "ngram_range": _NGRAMS}
        tfidf = _TFIDF(**grams, preprocessor=_plain, sublinear_tf=True, dtype=np.float32)
        try:
            weights = tfidf.fit_transform(texts)
        except ValueError as error:  # scikit-learn's word for an empty vocabulary
            raise InputError(f"none of the {len(texts)} label texts has a word") from error
        self._weights: Any = weights.multiply(weights).tocsr()
        self._has: Any = _COUNTS(
            **grams,
            preprocessor=_plain_sentence,
            binary=True,
            dtype=np.float32,
            vocabulary=tfidf.vocabulary_,
        )

    def sentences(self, text: str) -> tuple[str, ...]:
        """Sentences of a text, each on one line: cut at line breaks and after a full stop.

        No small letter begins a sentence. Runs of spaces become one; pieces without a letter or
        digit are left out.
        """
        pieces: list[str] = []
        for line in text.splitlines():
            begun: list[str] = []
            for piece in _BREAK.split(line):
                ended = begun and not _ABBREVIATED.search(begun[-1][-_LONGEST_ABBREVIATION:])
                if ended and _begins_sentence(piece):
                    pieces.append(" ".join(begun))
                    begun = []
                begun.append(piece)
            pieces.append(" ".join(begun))
        cleaned = (" ".join(piece.split()) for piece in pieces)
        return tuple(piece for piece in cleaned if any(sign.isalnum() for sign in piece))

    def supports(
        self, sentences: Sequence[str], labels: Sequence[int], min_overlap: float
    ) -> dict[int, Support]:
        """The sentence with the largest overlap with each label; of equal ones the shortest.

        Labels whose overlap is below `min_overlap` are left out.
        """
        if not sentences or not labels:
            return {}
        found: dict[int, Support] = {}
        lengths = np.array([len(sentence) for sentence in sentences])
        overlaps = self._overlaps(sentences, labels)
        for column, label in enumerate(labels):
            rounded = overlaps[:, column].round(4)
            best = int(np.lexsort((lengths, -rounded))[0])
            if rounded[best] >= min_overlap:
                found[label] = Support(best, float(rounded[best]))
        return found

    def overlap(self, sentence: str, label: int) -> float:
        """Overlap of one sentence and one label, 0 to 1."""
        return float(self._overlaps([sentence], [label])[0, 0])

    def _overlaps(self, sentences: Sequence[str], labels: Sequence[int]) -> np.ndarray:
        """Overlaps `[sentence, label]`."""
        has = self._has.transform(sentences)
        best = []
        for label in labels:
            rows = self._weights[self._first[label] : self._first[label + 1]]
            best.append((has @ rows.T).toarray().max(axis=1))
        return np.stack(best, axis=1)


def _begins_sentence(piece: str) -> bool:
    first = piece.lstrip(_OPENING)[:1]
    return first.isalnum() and not first.islower()


def _plain(text: str) -> str:
    """Words alone: a full stop would change the n-grams of the word before it."""
    return " ".join(words(text))


def _plain_sentence(text: str) -> str:
    return " ".join(words(text, single=True))


def made_up(sentence: str, gold: str, option: str) -> str:
    """A sentence that quotes an option's text where this one has the gold label's.

    Where it does not quote the gold label's text, the option's text is the whole sentence.
    """
    text = " ".join(option.split())
    quoted = find_words(sentence, gold)
    return f"{sentence[: quoted[0]]}{text}{sentence[quoted[1] :]}" if quoted else f"{text}."
