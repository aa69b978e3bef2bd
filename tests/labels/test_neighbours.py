import random

import numpy as np
import pytest

from workbench.bench.labels import recall
from workbench.errors import InputError
from workbench.labels import neighbours
from workbench.labels.neighbours import (
    TfidfConfig,
    balanced_clusters,
    cluster_labels,
    nearest_labels,
    sparse_neighbours,
    tfidf_vectors,
)

WORDS = TfidfConfig(analyzer="word", ngrams=(1, 1), min_df=1)


@pytest.fixture(scope="module")
def texts() -> list[str]:
    rng = random.Random(0)
    words = [f"{a}{b}" for a in ("fract", "burn", "pain", "cyst") for b in ("ure", "ing", "al", "")]
    return [f"{' '.join(rng.choices(words, k=3))} {i}" for i in range(300)]


def test_neighbours_are_those_of_all_products(texts):
    vectors = tfidf_vectors(texts)
    exact = (vectors @ vectors.T).toarray()
    np.fill_diagonal(exact, 0)
    best = -np.sort(-exact, axis=1)[:, :5]
    found = sparse_neighbours(vectors, 5, n_threads=1, block_size=70)
    assert np.allclose(found.similarity, best, atol=1e-5)
    assert np.allclose(np.take_along_axis(exact, found.labels, axis=1), best, atol=1e-5)
    assert recall(vectors, found, 300) == 1
    found.labels[:, 0] = -1
    assert recall(vectors, found, 300) == pytest.approx(0.8)


def test_a_label_is_not_its_own_neighbour_among_many_equal_ones():
    vectors = tfidf_vectors(["same words"] * 12 + ["other words"], WORDS)
    found = sparse_neighbours(vectors, 3, n_threads=1)
    assert (found.labels != np.arange(13)[:, None]).all()
    assert (found.labels[:12] < 12).all() and (found.labels >= 0).all()
    assert np.allclose(found.similarity[:12], 1)


def test_labels_with_nothing_in_common_have_no_neighbours():
    vectors = tfidf_vectors(["red sky", "red sea", "green"], WORDS)
    found = sparse_neighbours(vectors, 5, n_threads=1)
    assert found.labels.tolist() == [[1, -1, -1, -1, -1], [0, -1, -1, -1, -1], [-1] * 5]
    assert (found.similarity[:, 1:] == 0).all()


def test_frequent_ngrams_go_until_products_are_cheap():
    texts = [f"of common{i % 10} rare{i // 2}" for i in range(100)]
    every = tfidf_vectors(texts, WORDS)
    fewer = tfidf_vectors(texts, TfidfConfig("word", (1, 1), 1, max_products=20))
    assert (every.shape[1], fewer.shape[1]) == (61, 60)  # "of" is gone
    assert np.diff((fewer @ fewer.T).indptr).sum() <= 20 * 100
    assert np.allclose(fewer.multiply(fewer).sum(axis=1), 1, atol=1e-5)


def test_vectors_that_cannot_be_are_refused():
    with pytest.raises(InputError, match="2 label texts share no word n-grams"):
        tfidf_vectors(["a", "b"], TfidfConfig("word", (1, 1), min_df=2))
    with pytest.raises(InputError, match="too many of them for max_products 1"):
        tfidf_vectors(["a b"] * 50, TfidfConfig("word", (1, 1), max_products=1))
    with pytest.raises(InputError, match=r"ngrams 3\.\.2"):
        tfidf_vectors(["a"], TfidfConfig(ngrams=(3, 2)))


def test_cache_is_by_texts_and_settings(texts, tmp_path, monkeypatch):
    made = []

    def counted(*args):
        made.append(args)
        return tfidf_vectors(*args)

    monkeypatch.setattr(neighbours, "tfidf_vectors", counted)
    first = nearest_labels(texts, 3, cache_dir=tmp_path)
    again = nearest_labels(texts, 3, cache_dir=tmp_path)
    assert len(made) == 1
    assert (again.labels == first.labels).all() and (again.similarity == first.similarity).all()
    nearest_labels(texts, 2, cache_dir=tmp_path)
    nearest_labels(texts, 3, WORDS, cache_dir=tmp_path)
    nearest_labels([texts[0] + texts[1][:2], texts[1][2:], *texts[2:]], 3, cache_dir=tmp_path)
    assert len(made) == len(list(tmp_path.iterdir())) == 4


def test_a_damaged_cache_file_is_made_again(texts, tmp_path):
    first = nearest_labels(texts, 3, cache_dir=tmp_path)
    (path,) = tmp_path.iterdir()
    path.write_bytes(path.read_bytes()[:100])
    assert (nearest_labels(texts, 3, cache_dir=tmp_path).labels == first.labels).all()
    with np.load(path, allow_pickle=False) as stored:
        assert (stored["labels"] == first.labels).all()


def test_a_folder_that_cannot_be_written_costs_only_the_cache(texts, tmp_path):
    (tmp_path / "file").write_text("")
    assert len(nearest_labels(texts, 3, cache_dir=tmp_path / "file" / "below").labels) == 300


def test_clusters_are_balanced_and_follow_the_vectors():
    rng = np.random.default_rng(0)
    # Two pairs of neighbouring groups: the first cut is between the pairs.
    centres = np.zeros((4, 6))
    centres[:, 0], centres[:, 1] = (0, 0, 90, 90), (0, 30, 0, 30)
    vectors = np.repeat(centres, 32, axis=0) + rng.normal(size=(128, 6))
    clusters = balanced_clusters(vectors, 32)
    assert sorted(np.bincount(clusters)) == [32] * 4
    assert all(len(set(clusters[at : at + 32])) == 1 for at in range(0, 128, 32))
    assert np.bincount(balanced_clusters(vectors[:100], 30)).tolist() == [25] * 4


def test_equal_vectors_are_halved_too():
    assert sorted(np.bincount(balanced_clusters(np.ones((50, 3)), 15))) == [12, 12, 13, 13]


def test_label_clusters_are_cached_and_seeded(texts, tmp_path):
    first = cluster_labels(texts, 20, dimensions=8, cache_dir=tmp_path)
    assert np.bincount(first).max() <= 20 and np.bincount(first).min() >= 10
    assert (cluster_labels(texts, 20, dimensions=8, cache_dir=tmp_path / "other") == first).all()
    assert (cluster_labels(texts, 20, dimensions=8, cache_dir=tmp_path) == first).all()


@pytest.mark.parametrize("call", [nearest_labels, cluster_labels])
def test_sizes_below_one_are_refused(call):
    with pytest.raises(InputError, match="is 0, must be at least 1"):
        call(["a", "b"], 0)
