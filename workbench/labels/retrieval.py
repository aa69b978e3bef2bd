"""Candidate labels for a text, from the whole label set, by BM25 (Robertson & Zaragoza 2009).

The scores are bm25s' (Lù 2024), which keeps every word's score for every label that has it in a
sparse matrix; that matrix is kept in the user's cache folder under a hash of the texts. Each word
of a query counts once: a query is a whole document here, and what it repeats says little about
which labels are its own.
"""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from workbench.errors import InputError
from workbench.labels.cache import cache_name, cached
from workbench.labels.words import words

_K1, _B = 1.5, 0.75
_ARRAYS = ("data", "indices", "indptr")


class LabelRetriever:
    """The labels that share the words that tell most with a query.

    A label goes by its position in `texts`. The index is kept in `cache_dir`, the user's
    by default.

    Raises:
        InputError: no texts or none with a word.
    """

    def __init__(self, texts: Sequence[str], cache_dir: Path | None = None) -> None:
        if not texts:
            raise InputError("a retriever needs at least one label text")
        self.n_labels = len(texts)
        self._score = _bm25(texts, cache_dir)

    def top(self, queries: Iterable[str], k: int) -> Int[np.ndarray, "query k"]:
        """Positions of the `k` best labels of every query, best first; equal ones by position.

        -1 where fewer labels have anything in common with the query (a score above 0).

        Raises:
            InputError: `k` below 1.
        """
        if k < 1:
            raise InputError(f"k is {k}, must be at least 1")
        rows = [self._best(self._score(query), k) for query in queries]
        return np.array(rows, dtype=np.int64).reshape(len(rows), k)

    def _best(self, scores: Float[np.ndarray, " label"], k: int) -> Int[np.ndarray, " k"]:
        found = np.flatnonzero(scores > 0)
        if len(found) > k:  # all that tie with the last one stay, for the order of positions
            least = np.partition(scores[found], len(found) - k)[len(found) - k]
            found = found[scores[found] >= least]
        order = found[np.argsort(-scores[found], kind="stable")][:k]
        return np.pad(order, (0, k - len(order)), constant_values=-1)


def bm25_arrays(
    texts: Sequence[str], cache_dir: Path | None = None, *, keep: bool = True
) -> dict[str, np.ndarray]:
    """Every word's score for every text that has it, and the words.

    `data`, `indices` and `indptr` are a sparse matrix `[word, text]`. `keep` writes them to the
    cache, and reads them from it: not for texts that are private.

    Raises:
        InputError: none of the texts has a word.
    """
    import bm25s

    def make() -> dict[str, np.ndarray]:
        label_words = [words(text) for text in texts]
        if not any(label_words):
            raise InputError(f"none of the {len(texts)} label texts has a word to retrieve by")
        made = bm25s.BM25(k1=_K1, b=_B)
        made.index(label_words, show_progress=False, create_empty_token=False)
        vocabulary = "\n".join(sorted(made.vocab_dict, key=made.vocab_dict.__getitem__))
        arrays = {name: np.asarray(made.scores[name]) for name in _ARRAYS}
        return {**arrays, "vocabulary": np.frombuffer(vocabulary.encode(), dtype=np.uint8)}

    if not keep:
        return make()
    settings = {"k1": _K1, "b": _B, "bm25s": bm25s.__version__}
    name = cache_name("bm25", texts, settings)
    return cached(name, cache_dir, (*_ARRAYS, "vocabulary"), make)


def numbered_words(stored: dict[str, np.ndarray]) -> dict[str, int]:
    """The row of every word."""
    vocabulary = stored["vocabulary"].tobytes().decode().split("\n")
    return {word: position for position, word in enumerate(vocabulary)}


def _bm25(texts: Sequence[str], cache_dir: Path | None) -> Callable[[str], Any]:
    import bm25s

    stored = bm25_arrays(texts, cache_dir)
    index = bm25s.BM25(k1=_K1, b=_B)
    index.scores = {**{key: stored[key] for key in _ARRAYS}, "num_docs": len(texts)}
    index.nonoccurrence_array = None  # only BM25 variants other than Lucene's have one
    number = numbered_words(stored)

    def score(query: str) -> np.ndarray:
        asked = dict.fromkeys(words(query, single=True))
        known = [number[word] for word in asked if word in number]
        if not known:
            return np.zeros(len(texts), dtype=np.float32)
        return index.get_scores_from_ids(known)

    return score
