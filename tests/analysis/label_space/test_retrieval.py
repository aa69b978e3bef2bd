"""Ways chosen on training documents, and a split retrieved, on Debian's sample."""

from pathlib import Path

import pandas as pd
import pytest

from workbench.analysis.label_space import retrieval as module
from workbench.analysis.label_space.retrieval import (
    chosen_ways,
    read_retrieved,
    retrieved_split,
    training_sample,
)
from workbench.errors import InputError
from workbench.labels.retrieving.retriever import Retriever
from workbench.labels.xmc import load_xmc

DEBIAN = Path(__file__).parents[3] / "data" / "debian"


@pytest.fixture(scope="module")
def retriever(tmp_path_factory):
    cache = tmp_path_factory.mktemp("cache")
    return Retriever(load_xmc(DEBIAN), ["bm25", "chars"], n_threads=1, cache_dir=cache)


def test_the_best_ways_are_found_on_training_documents(retriever):
    documents = training_sample(retriever.corpus, 60, 0)
    ways = ["bm25-title", "chars", "examples"]
    seen = []
    table = chosen_ways(retriever, documents, 20, ways=ways, advance=lambda *n: seen.append(n))
    alone, taken = table[table["taken"].isna()], table[table["taken"].notna()]
    assert alone["way"].tolist() == ways and seen[-1] == (3, 3)
    assert taken["recall"].is_monotonic_increasing and taken["taken"].tolist()[0] == 1
    assert taken["recall"].iloc[0] == alone["recall"].max()
    assert (table["n"] == 60).all() and (table["k"] == 20).all()


def test_a_split_goes_on_where_it_was_stopped(retriever, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "AT_ONCE", 32)
    whole = retrieved_split(retriever, "test", tmp_path / "whole", 100, limit=80)

    def stop(done, _):
        if done == 64:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        retrieved_split(retriever, "test", tmp_path / "parts", 100, limit=80, advance=stop)
    made = []
    top = retriever.top_documents
    monkeypatch.setattr(
        retriever, "top_documents", lambda some, k: made.append(some) or top(some, k)
    )
    again = retrieved_split(retriever, "test", tmp_path / "parts", 100, limit=80)
    assert [len(some) for some in made] == [16]
    pd.testing.assert_frame_equal(again, whole)
    for row, document in zip(whole.itertuples(), retriever.corpus.documents("test"), strict=True):
        assert row.document == document.id and tuple(row.gold) == document.labels
        assert not set(document.ignored) & set(row.labels) and len(set(row.labels)) == len(
            row.labels
        )


def test_a_damaged_part_is_named(tmp_path):
    (tmp_path / "000000000.parquet").write_text("no table")
    with pytest.raises(InputError, match="or damaged; delete it"):
        read_retrieved(tmp_path / "000000000.parquet")
