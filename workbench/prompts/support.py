"""Which sentence of a document supports a label, by the characters that they share.

A label's wordings become unit TF-IDF vectors of character n-grams within words, since clinical
notes shorten and inflect words. The *overlap* of a sentence and a label is the share of the label's
squared weight on n-grams that the sentence has: 1 where it has all of them, 0 where none; the best
wording counts.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from sklearn.feature_extraction.text import CountVectorizer, TfidfVectorizer

from workbench.errors import InputError
from workbench.labels.words import find_words, words
from workbench.prompts.templates import CharSpan

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


class Cut(NamedTuple):
    """A document in sentences, each on one line.

    Attributes:
        sentences: in order.
        gaps: what stands before each, a space or nothing.
        begins: whether each is the beginning of a sentence, rather than the rest of one.
        apart: places among them of the spans that were to be sentences of their own.
    """

    sentences: tuple[str, ...]
    gaps: tuple[str, ...]
    begins: tuple[bool, ...]
    apart: tuple[int, ...]


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
        return self.cut(text).sentences

    def cut(self, text: str, apart: Sequence[CharSpan] = ()) -> Cut:
        """The sentences of a text, of which these spans are some.

        What is before and after a span in a sentence is a sentence, too.

        Args:
            text: of a document.
            apart: characters of the text, in order, without blanks at their ends, none in another.
        """
        whole = _sentences(text)
        spans = sorted([*_outside(whole, apart), *((*span, True) for span in apart)])
        starts = {end - len(text[start:end].lstrip()) for start, end in whole}
        pieces: list[str] = []
        gaps: list[str] = []
        begins: list[bool] = []
        places: list[int] = []
        reached, cut_before = -1, False
        for start, end, cut in spans:
            raw = text[start:end]
            if not raw.strip() or not (cut or any(sign.isalnum() for sign in raw)):
                continue
            if (start, end) in apart:
                places.append(len(pieces))
            first = end - len(raw.lstrip())
            pieces.append(" ".join(raw.split()))
            gaps.append("" if reached == first and (cut or cut_before) else " ")
            begins.append(first in starts)
            reached, cut_before = start + len(raw.rstrip()), cut
        return Cut(tuple(pieces), tuple(gaps), tuple(begins), tuple(places))

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


def _sentences(text: str) -> list[CharSpan]:
    """Characters of the sentences, with the spaces around them and what is only punctuation."""
    found: list[CharSpan] = []
    offset = 0
    for line in text.splitlines(keepends=True):
        begun = before = 0
        for cut in _BREAK.finditer(line.rstrip("\r\n\v\f\x1c\x1d\x1e\x85\u2028\u2029")):
            start, end = cut.span()
            piece = line[before:start]
            if not _ABBREVIATED.search(piece[-_LONGEST_ABBREVIATION:]) and _begins_sentence(
                line[end:]
            ):
                found.append((offset + begun, offset + start))
                begun = end
            before = end
        found.append((offset + begun, offset + len(line)))
        offset += len(line)
    return found


def _outside(
    sentences: Sequence[CharSpan], apart: Sequence[CharSpan]
) -> Iterator[tuple[int, int, bool]]:
    """What of the sentences is not apart, and whether anything of the sentence is."""
    for start, end in sentences:
        inside = [span for span in apart if span[0] < end and span[1] > start]
        for first, last in inside:
            yield start, max(start, first), True
            start = max(start, last)
        yield start, max(start, end), bool(inside)


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
