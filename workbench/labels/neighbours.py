"""Near misses and clusters for label sets without a taxonomy, from the labels' texts alone.

Near misses are the labels of highest cosine between TF-IDF vectors of characters or words, found by
sparse products of row blocks that keep only the best. Clusters are the leaves of a bisecting
k-means (Steinbach, Karypis & Kumar 2000) whose halves are made equally large. Both are kept in the
user's cache folder under a hash of texts and settings.
"""

import os
import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import Float, Int
from sklearn.cluster import KMeans
from sklearn.decomposition import TruncatedSVD
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.preprocessing import normalize

from workbench.errors import InputError
from workbench.labels.cache import cache_name, cached
from workbench.labels.words import spaced, word_pattern

# Their annotations refuse some of the values they document.
_KMEANS: Any = KMeans
_TFIDF: Any = TfidfVectorizer
SAMPLED = 2048
"""Points that two centres are fitted to; a larger node is sampled."""


@dataclass(frozen=True)
class TfidfConfig:
    """How label texts become vectors.

    Attributes:
        analyzer: `char_wb`, characters within words, or `word`.
        ngrams: smallest and largest n of the n-grams.
        min_df: labels that an n-gram must occur in.
        max_products: products of one label with all others that its vector may cost on average.
            The most frequent n-grams are dropped until the cost, the sum of squared document
            frequencies, is below that; their inverse document frequency is small.
    """

    analyzer: Literal["char_wb", "word"] = "char_wb"
    ngrams: tuple[int, int] = (3, 4)
    min_df: int = 2
    max_products: int = 50_000


@dataclass(frozen=True)
class Neighbours:
    """Nearest labels of every label, nearest first.

    Attributes:
        labels: their numbers; -1 where fewer have anything in common with the label.
        similarity: cosines; 0 where there is no label.
    """

    labels: Int[np.ndarray, "label k"]
    similarity: Float[np.ndarray, "label k"]


def tfidf_vectors(texts: Sequence[str], config: TfidfConfig = TfidfConfig()) -> Any:
    """Unit TF-IDF vectors `[label, n-gram]`, float32; a label without a kept n-gram has zeros.

    Raises:
        InputError: no texts, a setting out of range, or no n-gram that enough labels share.
    """
    small, large = config.ngrams
    if not 1 <= small <= large or config.min_df < 1 or config.max_products < 1:
        raise InputError(
            f"TF-IDF settings ngrams {small}..{large}, min_df {config.min_df}, max_products "
            f"{config.max_products}: must be at least 1, and ngrams ascending"
        )
    vectorizer = _TFIDF(
        analyzer=config.analyzer,
        ngram_range=config.ngrams,
        min_df=min(config.min_df, max(1, len(texts))),
        sublinear_tf=True,
        norm=None,
        dtype=np.float32,
        preprocessor=spaced,
        token_pattern=word_pattern().pattern if config.analyzer == "word" else None,
    )
    try:
        vectors: Any = vectorizer.fit_transform(texts)
    except ValueError as error:  # scikit-learn's word for an empty vocabulary
        raise InputError(
            f"{len(texts)} label texts share no {config.analyzer} n-grams of {small}..{large}; "
            "lower min_df or the n-grams"
        ) from error
    vectors = _within_budget(vectors, config.max_products)
    return normalize(vectors, copy=False)


def _within_budget(vectors: Any, max_products: int) -> Any:
    """Without the most frequent columns that products would be too dense with."""
    frequency = np.bincount(vectors.indices, minlength=vectors.shape[1]).astype(np.int64)
    order = np.argsort(frequency, kind="stable")
    affordable = np.cumsum(frequency[order] ** 2) <= max_products * vectors.shape[0]
    if affordable.all():
        return vectors
    if not affordable.any():
        raise InputError(
            f"every n-gram of the {vectors.shape[0]} label texts is in too many of them for "
            f"max_products {max_products}; raise it or use longer n-grams"
        )
    return vectors[:, np.sort(order[affordable])]


def nearest_labels(
    texts: Sequence[str],
    top_n: int = 10,
    config: TfidfConfig = TfidfConfig(),
    *,
    n_threads: int | None = None,
    cache_dir: Path | None = None,
) -> Neighbours:
    """The `top_n` nearest labels of every label by TF-IDF cosine, read from the cache if there.

    Products take all cores unless `n_threads` says less; `cache_dir` is the user's by default.

    Raises:
        InputError: as `tfidf_vectors` does, or `top_n` below 1.
    """
    _check_count("top_n", top_n)

    def make() -> dict[str, np.ndarray]:
        found = sparse_neighbours(tfidf_vectors(texts, config), top_n, n_threads=n_threads)
        return {"labels": found.labels, "similarity": found.similarity}

    name = cache_name("neighbours", texts, {"top_n": top_n, **asdict(config)})
    return Neighbours(**cached(name, cache_dir, ("labels", "similarity"), make))


def sparse_neighbours(
    vectors: Any, top_n: int, *, n_threads: int | None = None, block_size: int = 65_536
) -> Neighbours:
    """Nearest rows of every row by inner product, itself left out; blocks of rows at a time.

    `vectors` is a sparse matrix `[label, feature]`.
    Exact for these vectors: only products of 0 are left out.
    """
    from sparse_dot_topn import sp_matmul_topn

    n = vectors.shape[0]
    threads = n_threads or os.cpu_count() or 1
    labels = np.full((n, top_n), -1, dtype=np.int32)
    similarity = np.zeros((n, top_n), dtype=np.float32)
    others = vectors.T.tocsr()
    for start in range(0, n, block_size):
        block = vectors[start : start + block_size]
        best = sp_matmul_topn(
            block, others, top_n=top_n + 1, threshold=0.0, sort=True, n_threads=threads
        )
        _fill(labels, similarity, best, start)
    return Neighbours(labels, similarity)


def _fill(labels: Any, similarity: Any, best: Any, start: int) -> None:
    """Write rows of best products into the tables, without each row's product with itself."""
    row = np.repeat(np.arange(best.shape[0]), np.diff(best.indptr))
    other = best.indices != row + start
    row, column, value = row[other], best.indices[other], best.data[other]
    place = np.arange(len(row)) - np.searchsorted(row, row)
    # Where enough other labels are as near as the label itself, it may be missing among the best.
    fits = place < labels.shape[1]
    labels[row[fits] + start, place[fits]] = column[fits]
    similarity[row[fits] + start, place[fits]] = value[fits]


def cluster_labels(
    texts: Sequence[str],
    max_size: int = 64,
    config: TfidfConfig = TfidfConfig(),
    *,
    seed: int = 0,
    dimensions: int = 64,
    cache_dir: Path | None = None,
) -> Int[np.ndarray, " label"]:
    """A cluster number for every label, from 0; clusters have `max_size` labels or fewer.

    TF-IDF vectors are reduced by a truncated SVD first (latent semantic analysis).

    Raises:
        InputError: as `tfidf_vectors` does, or a number below 1.
    """
    _check_count("max_size", max_size)
    _check_count("dimensions", dimensions)

    def make() -> dict[str, np.ndarray]:
        vectors = tfidf_vectors(texts, config)
        reduced: Any
        if min(vectors.shape) > dimensions:
            svd = TruncatedSVD(dimensions, n_iter=2, random_state=seed)
            reduced = normalize(svd.fit_transform(vectors).astype(np.float32))
        else:
            reduced = vectors.toarray()
        return {"clusters": balanced_clusters(reduced, max_size, seed=seed)}

    settings = {"max_size": max_size, "seed": seed, "dimensions": dimensions, **asdict(config)}
    name = cache_name("clusters", texts, settings)
    return cached(name, cache_dir, ("clusters",), make)["clusters"]


def balanced_clusters(
    vectors: Float[np.ndarray, "label d"], max_size: int, *, seed: int = 0
) -> Int[np.ndarray, " label"]:
    """Leaves of a bisecting 2-means whose two halves always differ by one label at most.

    A node is cut at the median of the difference of its points' distances to two centres, so sizes
    lie between half of `max_size` and `max_size`.
    """
    clusters = np.zeros(len(vectors), dtype=np.int32)
    random = np.random.default_rng(seed)
    waiting = [np.arange(len(vectors))]
    n_clusters = 0
    while waiting:
        members = waiting.pop()
        if len(members) <= max_size:
            clusters[members] = n_clusters
            n_clusters += 1
            continue
        sample = members
        if len(members) > SAMPLED:
            sample = random.choice(members, SAMPLED, replace=False)
        means = _KMEANS(2, n_init=1, max_iter=20, random_state=int(random.integers(2**31)))
        with warnings.catch_warnings(
            action="ignore"
        ):  # equal vectors make one centre, and any halves do
            means.fit(vectors[sample])
        first, second = means.cluster_centers_
        offset = (first @ first - second @ second) / 2
        margin = vectors[members] @ (second - first) + offset
        half = len(members) // 2
        order = np.argpartition(margin, half)
        waiting += [np.sort(members[order[half:]]), np.sort(members[order[:half]])]
    return clusters


def _check_count(name: str, value: int) -> None:
    if value < 1:
        raise InputError(f"{name} is {value}, must be at least 1")
