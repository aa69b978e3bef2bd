"""Indexes of label texts, that take queries: words, characters, vectors, training documents."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float, Int
from scipy.sparse import csr_matrix, vstack
from sklearn.feature_extraction.text import TfidfVectorizer

from workbench.errors import InputError
from workbench.labels.corpus import Document
from workbench.labels.retrieval import bm25_arrays, numbered_words
from workbench.labels.retrieving.pooling import Pool, Tops, best_rows, pooled, ranked
from workbench.labels.words import spaced, words

# Its annotations refuse some of the values it documents.
_TFIDF: Any = TfidfVectorizer
NGRAMS, NAME_NGRAMS = (3, 4), (3, 5)
MOST_COMMON = 3000
"""Texts that an n-gram may be in, or a twentieth of all: more common ones tell little and cost
most."""
PER_PASSAGE = 200
"""Labels that one of several passages may bring."""
LONGEST_EXAMPLE = 4000
"""Characters of a training document that are read, to bound memory."""
NEAREST, SHARPNESS = 200, 3
"""Training documents that count for one, and the power of their score."""
_AT_ONCE = 512
"""Queries whose cosines with all labels are in memory together."""
Embed = Callable[[Sequence[str]], Float[np.ndarray, "text d"]]


@dataclass(frozen=True)
class Wordings:
    """Texts of labels, one or more each, and which label each is of."""

    texts: Sequence[str]
    label: Int[np.ndarray, " row"]
    n_labels: int


@dataclass(frozen=True)
class Queries:
    """Texts of documents, and which document each is of."""

    texts: Sequence[str]
    document: Int[np.ndarray, " query"]
    documents: Sequence[Document]


@runtime_checkable
class Index(Protocol):
    """Takes queries to the best labels of their documents."""

    def find(self, queries: Queries, k: int, pool: Pool) -> Tops:
        """The `k` best labels of every document."""
        ...


class SparseIndex:
    """Rows that are found by the features they share with a query; `of_words` or `of_characters`.

    Args:
        rows: weights `[feature, row]`, sparse.
        vectors: makes sparse rows `[query, feature]` of texts.
        wordings: what the rows are.
        n_threads: for the products.
    """

    def __init__(
        self, rows: Any, vectors: Callable[[Sequence[str]], Any], wordings: Wordings, n_threads: int
    ) -> None:
        self._rows, self._vectors = rows, vectors
        self._label, self._n_labels = wordings.label, wordings.n_labels
        self._per_label = -(-len(wordings.texts) // max(1, wordings.n_labels))
        self._threads = n_threads

    @classmethod
    def of_words(
        cls, wordings: Wordings, n_threads: int, cache_dir: Path | None = None, *, keep: bool = True
    ) -> "SparseIndex":
        """By BM25; `cache_dir` and `keep` as in `bm25_arrays`.

        Raises:
            InputError: none of the texts has a word.
        """
        stored = bm25_arrays(wordings.texts, cache_dir, keep=keep)
        number = numbered_words(stored)
        shape = (len(number), len(wordings.texts))
        rows = csr_matrix((stored["data"], stored["indices"], stored["indptr"]), shape)

        def vectors(texts: Sequence[str]) -> Any:
            asked = [dict.fromkeys(words(text, single=True)) for text in texts]
            known = [[number[word] for word in some if word in number] for some in asked]
            starts = np.cumsum([0, *map(len, known)])
            column = np.array([word for some in known for word in some], dtype=np.int32)
            weight = np.ones(len(column), dtype=np.float32)
            return csr_matrix((weight, column, starts), (len(texts), shape[0]))

        return cls(rows.astype(np.float32), vectors, wordings, n_threads)

    @classmethod
    def of_characters(
        cls, wordings: Wordings, n_threads: int, ngrams: tuple[int, int] = NGRAMS
    ) -> "SparseIndex":
        """By cosine of TF-IDF vectors of characters within words.

        Raises:
            InputError: the texts share no n-grams.
        """
        n = len(wordings.texts)
        vectorizer = _TFIDF(
            analyzer="char_wb",
            ngram_range=ngrams,
            max_df=max(MOST_COMMON, n // 20),
            sublinear_tf=True,
            dtype=np.float32,
            preprocessor=spaced,
        )
        try:
            rows = vectorizer.fit_transform(wordings.texts)
        except ValueError as error:  # scikit-learn's word for an empty vocabulary
            what = f"{n} label texts share no n-grams of {ngrams[0]} to {ngrams[1]} characters"
            raise InputError(what) from error
        return cls(rows.T.tocsr(), vectorizer.transform, wordings, n_threads)

    def scores(self, texts: Sequence[str], n: int) -> Any:
        """The `n` best rows of each text, sparse `[text, row]`."""
        return best_rows(self._vectors(texts), self._rows, n, self._threads)

    def find(self, queries: Queries, k: int, pool: Pool) -> Tops:
        """See `Index`."""
        n_documents = len(queries.documents)
        many = len(queries.texts) > n_documents
        found = self.scores(queries.texts, (min(k, PER_PASSAGE) if many else k) * self._per_label)
        shape = (n_documents, self._n_labels)
        return pooled(found, queries.document, self._label, shape, k, pool)


class DenseIndex:
    """Labels by the cosine of vectors of their texts, `embed` making vectors."""

    def __init__(self, wordings: Wordings, embed: Embed) -> None:
        self._embed, self._wordings = embed, wordings
        self._rows = _units(embed(wordings.texts))

    def find(self, queries: Queries, k: int, pool: Pool) -> Tops:
        """See `Index`; cosines below 0 do not count."""
        n_rows = len(self._wordings.texts)
        many = len(queries.texts) > len(queries.documents)
        n = min(min(k, PER_PASSAGE) if many else k, n_rows)
        parts = []
        for start in range(0, len(queries.texts), _AT_ONCE):
            cosines = _units(self._embed(queries.texts[start : start + _AT_ONCE])) @ self._rows.T
            best = np.argpartition(-cosines, n - 1, axis=1)[:, :n]
            value = np.take_along_axis(cosines, best, axis=1).clip(0)
            starts = np.arange(len(best) + 1) * n
            parts.append(csr_matrix((value.ravel(), best.ravel(), starts), cosines.shape))
        found: Any = vstack(parts, format="csr") if parts else csr_matrix((0, n_rows))
        shape = (len(queries.documents), self._wordings.n_labels)
        return pooled(found, queries.document, self._wordings.label, shape, k, pool)


def _units(vectors: Float[np.ndarray, "text d"]) -> Float[np.ndarray, "text d"]:
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True).clip(1e-12)


class ExampleIndex:
    """Labels by the training documents that have them and share words with a query.

    A label's score is Σ (s / s_best)^`SHARPNESS` over the `NEAREST` training documents with it, s
    being BM25's score: k nearest neighbours. A document does not count for itself, nor for those of
    its own group.

    Args:
        documents: of the training split.
        n_labels: of the corpus.
        n_threads: for the products.
        groups: of documents, by id; one that is in none is alone.

    Raises:
        InputError: no document has a label and a word.
    """

    def __init__(
        self,
        documents: Iterable[Document],
        n_labels: int,
        n_threads: int,
        *,
        groups: Mapping[str, int] | None = None,
    ) -> None:
        kept = [document for document in documents if document.labels]
        if not kept:
            raise InputError("no training document has a label to learn from")
        texts = [document.full_text[:LONGEST_EXAMPLE] for document in kept]
        wordings = Wordings(texts, np.arange(len(kept)), len(kept))
        self._index = SparseIndex.of_words(wordings, n_threads, keep=False)
        self._groups = groups or {}
        self._own = np.array([self._group(document) for document in kept])
        self._left_out = int(np.unique(self._own, return_counts=True)[1].max())
        has = [document.labels for document in kept]
        starts = np.cumsum([0, *map(len, has)])
        column = np.array([label for some in has for label in some], dtype=np.int64)
        shape = (len(kept), n_labels)
        self._has: Any = csr_matrix((np.ones(len(column)), column, starts), shape)

    def _group(self, document: Document) -> str:
        group = self._groups.get(document.id)
        return f"id {document.id}" if group is None else f"group {group}"

    def find(self, queries: Queries, k: int, pool: Pool) -> Tops:
        """See `Index`; each query is a document."""
        found = self._index.scores(queries.texts, NEAREST + self._left_out).astype(np.float64)
        row = np.repeat(np.arange(found.shape[0]), np.diff(found.indptr))
        own = np.array([self._group(document) for document in queries.documents])
        found.data[self._own[found.indices] == own[row]] = 0
        if self._groups:
            _keep_best(found, NEAREST)
        best = found.max(axis=1).toarray().ravel()
        found.data = (found.data / best[row].clip(1e-12)) ** SHARPNESS
        scores: Any = (found @ self._has).tocoo()
        some = scores.data > 0
        document, label = scores.row[some], scores.col[some]
        return ranked(document, label, scores.data[some], len(queries.documents), k)


def _keep_best(found: Any, n: int) -> None:
    """Set all but the `n` largest entries of each sparse row to 0, in place."""
    for start, end in zip(found.indptr[:-1], found.indptr[1:], strict=True):
        if end - start > n:
            row = found.data[start:end]
            row[np.argpartition(-row, n)[n:]] = 0
