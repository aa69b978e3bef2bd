"""Which sentence of a document supports a label, by the characters that they share.

A label's wordings become unit TF-IDF vectors of character n-grams within words, since clinical
notes shorten and inflect words. The *overlap* of a sentence and a label is the share of the label's
squared weight on n-grams that the sentence has: 1 where it has all of them, 0 where none; the best
wording counts.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float
from sklearn.feature_extraction.text import CountVectorizer, TfidfVectorizer

from workbench.errors import InputError
from workbench.labels.words import words
from workbench.prompts.shorthand import spelled_out

_NGRAMS = (3, 4)
# Their annotations refuse some of the values they document.
_TFIDF: Any = TfidfVectorizer
_COUNTS: Any = CountVectorizer


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

    def overlap_beside(self, sentence: str, label: int, others: Sequence[int]) -> float:
        """Overlap of one sentence and one label by n-grams that no wording of the others has."""
        theirs = np.unique(np.concatenate([self._rows(other).indices for other in others]))
        has = self._has.transform([spelled_out(sentence)])
        left = has.indices[~np.isin(has.indices, theirs)]
        return float(self._rows(label)[:, left].sum(axis=1).max().round(4)) if len(left) else 0.0

    def _rows(self, label: int) -> Any:
        return self._weights[self._first[label] : self._first[label + 1]]

    def overlaps(
        self, sentences: Sequence[str], labels: Sequence[int]
    ) -> Float[np.ndarray, "sentence label"]:
        """Overlap of every sentence with every label, 0 to 1."""
        if not sentences or not labels:
            return np.zeros((len(sentences), len(labels)), dtype=np.float32)
        has = self._has.transform([spelled_out(sentence) for sentence in sentences])
        best = []
        for label in labels:
            best.append((has @ self._rows(label).T).toarray().max(axis=1))
        return np.stack(best, axis=1).round(4)


def _plain(text: str) -> str:
    """Words alone: a full stop would change the n-grams of the word before it."""
    return " ".join(words(text))


def _plain_sentence(text: str) -> str:
    return " ".join(words(text, single=True))
