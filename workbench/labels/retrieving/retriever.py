"""Labels of documents in one way or several, fused.

What a way needs is made when it is first used, so that only asked-for ways cost anything.
"""

import os
import random
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int

from workbench.errors import InputError
from workbench.labels.corpus import Document, LabelledCorpus
from workbench.labels.retrieving.fusing import fused
from workbench.labels.retrieving.indexes import (
    NAME_NGRAMS,
    NGRAMS,
    DenseIndex,
    Embed,
    ExampleIndex,
    Index,
    Queries,
    SparseIndex,
    Wordings,
)
from workbench.labels.retrieving.passages import clauses, passages
from workbench.labels.retrieving.pooling import Pool, Tops
from workbench.labels.retrieving.ways import WAYS, Query
from workbench.labels.space import LabelSpace

LONGEST = 4000
"""Characters of a label's long text that are read."""
TITLE = 100
"""Characters that stand for the title of a document without one."""
MOST_EXAMPLES = 200_000
"""Training documents that are examples; of more of them a random part."""


def sampled(documents: Iterable[Document], n: int, seed: int = 0) -> list[Document]:
    """A random `n` of the documents, or all where there are fewer, in their order.

    Memory holds only those (reservoir sampling; Vitter 1985).
    """
    rng = random.Random(f"{seed}:sampled")
    kept: list[tuple[int, Document]] = []
    for number, document in enumerate(documents):
        place = number if number < n else rng.randrange(number + 1)
        if number < n:
            kept.append((number, document))
        elif place < n:
            kept[place] = (number, document)
    return [document for _, document in sorted(kept, key=lambda one: one[0])]


class Retriever:
    """The labels of a corpus that documents have something in common with.

    Args:
        corpus: its labels are found; its training documents are examples.
        ways: names of `WAYS`; one that is there twice counts twice.
        pool: how the passages of a document are taken together.
        embed: makes vectors of texts, for the way "dense".
        n_threads: all cores by default.
        cache_dir: for BM25's indexes of labels; the user's by default.
        groups: of training documents, by id, that are no examples of one another.
    """

    def __init__(
        self,
        corpus: LabelledCorpus,
        ways: Sequence[str] = ("bm25",),
        *,
        pool: Pool = "max",
        embed: Embed | None = None,
        n_threads: int | None = None,
        cache_dir: Path | None = None,
        groups: Mapping[str, int] | None = None,
    ) -> None:
        self.groups = groups
        self.corpus, self.ways = corpus, tuple(ways)
        self.pool: Pool = pool
        self._embed, self._cache_dir = embed, cache_dir
        self._threads = n_threads or os.cpu_count() or 1
        self._made: dict[tuple[str, str], Index] = {}

    def top(self, queries: Iterable[str], k: int) -> Int[np.ndarray, "query k"]:
        """The `k` best labels of texts, as `LabelRetriever.top`."""
        return self.top_documents([Document("", "", text, ()) for text in queries], k)

    def top_documents(self, documents: Sequence[Document], k: int) -> Tops:
        """Positions of the `k` best labels of every document, best first; -1 where fewer are found.

        Raises:
            InputError: `k` below 1, or what a way needs is not there.
        """
        rankings = self.each(documents, k, dict.fromkeys(self.ways))
        return fused([rankings[way] for way in self.ways], k)

    def each(self, documents: Sequence[Document], k: int, ways: Iterable[str]) -> dict[str, Tops]:
        """The `k` best labels in each way by itself.

        Raises:
            InputError: as `top_documents`.
        """
        if k < 1:
            raise InputError(f"k is {k}, must be at least 1")
        if not documents:
            return {way: np.empty((0, k), dtype=np.int32) for way in ways}
        asked: dict[Query, Queries] = {}
        found = {}
        for name in ways:
            query = WAYS[name].query
            if query not in asked:
                asked[query] = _queries(documents, query)
            found[name] = self._index(name).find(asked[query], k, self.pool)
        return found

    def available(self) -> list[str]:
        """Ways that this corpus has what they need for."""
        lacking = {
            "dense": self._embed is None,
            "examples": "train" not in self.corpus.splits,
            "bm25-long": self._long is None,
        }
        return [name for name in WAYS if not lacking.get(name)]

    def _index(self, name: str) -> Index:
        way = WAYS[name]
        key = (way.method, way.field)
        if key not in self._made:
            self._made[key] = self._make(name)
        return self._made[key]

    def _make(self, name: str) -> Index:
        way, corpus = WAYS[name], self.corpus
        if way.method == "examples":
            if "train" not in corpus.splits:
                raise InputError(f"{corpus.name}: way 'examples' needs training documents")
            documents = sampled(corpus.documents("train"), MOST_EXAMPLES)
            n = len(corpus.label_texts)
            return ExampleIndex(documents, n, self._threads, groups=self.groups)
        wordings = self._wordings(way.field)
        if way.method == "dense":
            if self._embed is None:
                raise InputError("way 'dense' needs a model of sentences: --dense FOLDER")
            return DenseIndex(wordings, self._embed)
        if way.method == "bm25":
            return SparseIndex.of_words(wordings, self._threads, self._cache_dir)
        ngrams = NAME_NGRAMS if way.field == "name" else NGRAMS
        return SparseIndex.of_characters(wordings, self._threads, ngrams)

    def _wordings(self, field: str) -> Wordings:
        texts = self.corpus.label_texts
        if field == "name":
            rows = [(name,) for name in self.corpus.label_ids]
        elif field == "long":
            if self._long is None:
                raise InputError(f"{self.corpus.name}: its labels have no long texts")
            pairs = zip(texts, self._long, strict=True)
            rows = [(f"{text}\n{long[:LONGEST]}",) for text, long in pairs]
        else:
            rows = [
                tuple(dict.fromkeys((text, *more)))
                for text, more in zip(texts, self._synonyms, strict=True)
            ]
        label = np.repeat(np.arange(len(rows)), [len(row) for row in rows])
        return Wordings([text for row in rows for text in row], label, len(rows))

    @cached_property
    def _synonyms(self) -> Sequence[tuple[str, ...]]:
        space = getattr(self.corpus, "space", None)
        if not isinstance(space, LabelSpace):
            return [()] * len(self.corpus.label_texts)
        return [space[label].synonyms for label in self.corpus.label_ids]

    @cached_property
    def _long(self) -> Sequence[str] | None:
        found: Any = getattr(self.corpus, "label_contents", None)
        return found if found and any(found) else None


def _queries(documents: Sequence[Document], query: Query) -> Queries:
    rows = [_texts(document, query) for document in documents]
    document = np.repeat(np.arange(len(rows)), [len(row) for row in rows])
    return Queries([text for row in rows for text in row], document, documents)


def _texts(document: Document, query: Query) -> list[str]:
    match query:
        case "whole":
            return [document.full_text]
        case "title":
            return [document.title or document.text[:TITLE]]
        case "name":
            return [document.id]
        case "clauses":
            return clauses(document.full_text)
    return passages(document.full_text)
