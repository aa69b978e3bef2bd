"""Labels retrieved for a whole split, in ways chosen on training documents."""

from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path

import numpy as np
import pandas as pd

from workbench.errors import InputError
from workbench.files import make_folder, read_parquet, write_table
from workbench.labels.corpus import Document, LabelledCorpus, check_split
from workbench.labels.retrieving.fusing import mean_recall, selected
from workbench.labels.retrieving.pooling import Tops, without
from workbench.labels.retrieving.retriever import Retriever, sampled
from workbench.progress import Advance, Reporter, beating

AT_ONCE = 256
"""Documents whose labels are found together, and written together."""
CHOICE_COLUMNS = ["way", "taken", "recall", "k", "n"]


def chosen_ways(
    retriever: Retriever,
    documents: Sequence[Document],
    k: int,
    *,
    ways: Sequence[str] | None = None,
    advance: Advance | None = None,
) -> pd.DataFrame:
    """Which ways to fuse, found on training documents for the recall of their first `k` labels.

    Args:
        retriever: its corpus' labels are found.
        documents: of the training split.
        k: places that count.
        ways: to choose from; all that are available by default.
        advance: called with ways done and all ways.

    Returns:
        a row for each way by itself (`taken` missing), then a row for each that was taken, in that
        order (`taken` from 1), with the recall@k of all taken up to it. A way that is taken twice
        counts twice.

    Raises:
        InputError: no document has a right label, or what the retriever refuses.
    """
    right = [document for document in documents if document.labels]
    if not right:
        raise InputError(f"{retriever.corpus.name}: no training document to choose ways with")
    names = list(ways or retriever.available())
    rankings: dict[str, Tops] = {}
    for done, name in enumerate(names, start=1):
        parts = [retriever.each(part, 2 * k, [name])[name] for part in _parts(right)]
        rankings[name] = np.concatenate(parts)
        if advance:
            advance(done, len(names))
    gold = [document.labels for document in right]
    ignored = [document.ignored for document in right]
    rows: list[tuple[str, int | None, float]] = [
        (name, None, mean_recall(without(tops, ignored), gold, k))
        for name, tops in rankings.items()
    ]
    steps = selected(rankings, gold, ignored, k)
    rows += [(name, place, recall) for place, (name, recall) in enumerate(steps, start=1)]
    table = pd.DataFrame(rows, columns=CHOICE_COLUMNS[:3]).astype({"taken": "Int64"})
    return table.assign(k=k, n=len(right))


def training_sample(corpus: LabelledCorpus, n: int, seed: int) -> list[Document]:
    """A random `n` of the training documents.

    Raises:
        InputError: the corpus has no training split.
    """
    check_split(corpus, "train")
    return sampled(corpus.documents("train"), n, seed)


def best_ways(
    path: Path,
    retriever: Retriever,
    k: int,
    *,
    n: int,
    seed: int,
    among: Sequence[str] | None = None,
    reporter: Reporter,
) -> list[str]:
    """The ways to fuse, chosen on `n` training documents, or read from where they were written.

    Args:
        path: of the table of choices, as CSV.
        retriever: as of `chosen_ways`.
        k: places that count.
        n: training documents to choose on.
        seed: of their draw.
        among: ways to choose from; all that are available by default.
        reporter: shows the ways that are done.

    Raises:
        InputError: the corpus has no training split, or as `chosen_ways`.
    """
    if path.is_file():
        table = pd.read_csv(path)
    else:
        if "train" not in retriever.corpus.splits:
            what = "no training documents to choose ways on; give --ways, as bm25,chars"
            raise InputError(f"{retriever.corpus.name}: {what}")
        documents = training_sample(retriever.corpus, n, seed)
        with reporter.step("ways") as advance, beating():
            table = chosen_ways(retriever, documents, k, ways=among, advance=advance)
        write_table(path, table, float_format="%.4f")
    return table.loc[table["taken"].notna(), "way"].tolist()


def retrieved_split(
    retriever: Retriever,
    split: str,
    folder: Path,
    k: int,
    *,
    limit: int,
    private: bool = False,
    advance: Advance | None = None,
) -> pd.DataFrame:
    """The labels of a whole split, written as it goes: what is there already is not made again.

    Args:
        retriever: with the ways to use.
        split: of its corpus.
        folder: gets a file for every `AT_ONCE` documents.
        k: labels of a document.
        limit: documents from the start of the split.
        private: whether the files are their owner's alone.
        advance: called with documents done and `limit`.

    Returns:
        a row a document, in the order of the split: `document`, its id; `labels`, positions in the
        corpus, best first, its ignored ones left out; `gold`, those that are right.

    Raises:
        InputError: no such split, a file that is damaged, or what the retriever refuses.
    """
    check_split(retriever.corpus, split)
    make_folder(folder, private=private)
    tables = []
    done = 0
    documents = islice(retriever.corpus.documents(split), limit)
    while part := list(islice(documents, AT_ONCE)):
        path = folder / f"{done:09d}.parquet"
        if path.is_file():
            table = read_retrieved(path)
        else:
            most = max(len(document.ignored) for document in part)
            tops = retriever.top_documents(part, k + most)
            tops = without(tops, [document.ignored for document in part])[:, :k]
            table = pd.DataFrame(
                {
                    "document": [document.id for document in part],
                    "labels": [top[top >= 0] for top in tops],
                    "gold": [np.array(document.labels, dtype=np.int32) for document in part],
                }
            )
            write_table(path, table, private=private)
        tables.append(table)
        done += len(part)
        if advance:
            advance(done, limit)
    if not tables:
        raise InputError(f"{retriever.corpus.name}: split {split} holds no document")
    return pd.concat(tables, ignore_index=True)


def read_retrieved(path: Path) -> pd.DataFrame:
    """A table as `retrieved_split` gives it.

    Raises:
        InputError: it cannot be read, or is damaged.
    """
    again = "delete it to make its rows again"
    try:
        table = read_parquet(path)
    except InputError as error:
        raise InputError(f"{error}; {again}") from None
    if not {"document", "labels", "gold"} <= set(table.columns):
        raise InputError(f"{path}: is not as it was written; {again}")
    return table


def _parts(documents: Sequence[Document]) -> Iterator[Sequence[Document]]:
    for start in range(0, len(documents), AT_ONCE):
        yield documents[start : start + AT_ONCE]
