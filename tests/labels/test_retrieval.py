import pytest

from workbench.errors import InputError
from workbench.labels.retrieval import LabelRetriever

TEXTS = ["Lake Galca", "History of Lake Galca", "Music", "", "The Who"]


@pytest.fixture
def retriever(tmp_path):
    return LabelRetriever(TEXTS, cache_dir=tmp_path)


def test_labels_that_share_words_come_best_first(retriever):
    found = retriever.top(["music at the lake", "a history: galca, lake of Galca!"], 4)
    assert set(found[0]) == {0, 1, 2, 4}
    assert found[1].tolist() == [1, 0, -1, -1]


def test_a_query_without_known_words_finds_nothing(retriever):
    assert retriever.top(["zzz", ""], 2).tolist() == [[-1, -1], [-1, -1]]
    assert retriever.top([], 3).shape == (0, 3)


def test_repeating_a_word_changes_nothing(retriever):
    once, often = retriever.top(["music lake galca", "music lake galca " + "music " * 50], 5)
    assert once.tolist() == often.tolist()


def test_equal_scores_go_by_position(tmp_path):
    same = LabelRetriever(["other", *["same word"] * 30], cache_dir=tmp_path)
    assert same.top(["word"], 5).tolist() == [[1, 2, 3, 4, 5]]


def test_the_index_is_read_again_from_the_cache(tmp_path, monkeypatch):
    import bm25s

    first = LabelRetriever(TEXTS, cache_dir=tmp_path).top(["lake galca history"], 5)
    with monkeypatch.context() as patched:
        patched.setattr(bm25s.BM25, "index", lambda *_, **__: pytest.fail("made again"))
        again = LabelRetriever(TEXTS, cache_dir=tmp_path)
        assert again.top(["lake galca history"], 5).tolist() == first.tolist()
    LabelRetriever([*TEXTS, "new"], cache_dir=tmp_path)
    assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.parametrize(
    ("texts", "message"),
    [([], "at least one label text"), (["", "?"], "none of the 2 label texts has a word")],
)
def test_refused_retrievers(texts, message, tmp_path):
    with pytest.raises(InputError, match=message):
        LabelRetriever(texts, cache_dir=tmp_path)


def test_refused_k(retriever):
    with pytest.raises(InputError, match="k is 0"):
        retriever.top(["a"], 0)
