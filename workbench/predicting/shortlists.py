"""The labels that are retrieved for every document: found once for all processes, or given."""

import shutil
from itertools import islice
from pathlib import Path

import pandas as pd

from workbench.analysis.label_space.retrieval import AT_ONCE, best_ways, retrieved_split
from workbench.errors import InputError
from workbench.files import write_table
from workbench.labels.corpus import LabelledCorpus, check_split
from workbench.labels.predictions import read_predictions
from workbench.labels.retrieving.retriever import Retriever
from workbench.labels.retrieving.ways import check_ways
from workbench.predicting.config import BEST, PredictionConfig
from workbench.predicting.waiting import wait_for
from workbench.processes import Alone
from workbench.progress import Reporter, beating, pulse

FOUND = "retrieved.parquet"
CHOSEN_FOR, CHOSEN_ON = 100, 1000
"""Places that the best ways are chosen for, and training documents that they are chosen on."""


def count_documents(corpus: LabelledCorpus, config: PredictionConfig) -> int:
    """Documents of the split that are asked about.

    Raises:
        InputError: no such split, or none in it.
    """
    check_split(corpus, config.split)
    n = sum(1 for _ in islice(corpus.documents(config.split), config.n_documents))
    if not n:
        raise InputError(f"{corpus.name}: split {config.split} holds no document")
    return n


def given_shortlist(path: Path, corpus: LabelledCorpus, split: str, n: int) -> pd.DataFrame:
    """The labels that `retrieve` or `predict` listed for the first `n` documents of a split.

    Args:
        path: folder of theirs, or the parquet file in it.
        corpus: of the documents.
        split: theirs.
        n: documents that are asked about.

    Returns:
        columns document and labels, best first.

    Raises:
        InputError: as `read_predictions`; or it has fewer rows, is of other documents or of
            another split, or has labels that the corpus has not.
    """
    found = read_predictions(path)
    path, table = found.path, pd.DataFrame(found.table.head(n))
    said = found.record.get("split", split)
    if said != split:
        raise InputError(
            f"{path}: is of split {said}, and {split} is asked about; retrieve that "
            f"(workbench retrieve --split {split})"
        )
    n_labels = len(corpus.label_texts)
    highest = max((int(labels.max()) for labels in table["labels"] if len(labels)), default=0)
    if found.record.get("n_labels", n_labels) != n_labels or highest >= n_labels:
        raise InputError(f"{path}: has labels that {corpus.name} has not; it is of another set")
    if "document" not in table:
        raise InputError(
            f"{path}: does not say of which documents it is; give a table of workbench retrieve"
        )
    if len(table) < n:
        raise InputError(
            f"{path}: has {len(table):,} documents, {n:,} are asked about; retrieve them all, or "
            f"give --n-documents {len(table)}"
        )
    documents = islice(corpus.documents(split), n)
    for row, document in enumerate(documents, start=1):
        one = table["document"].iloc[row - 1]
        right = set(table["gold"].iloc[row - 1] if "gold" in table else document.labels)
        if one != document.id or right != set(document.labels):
            what = "of another document" if one != document.id else "with other right labels"
            raise InputError(
                f"{path}: row {row} is {what} than that of split {split} of {corpus.name}; "
                f"retrieve it again (workbench retrieve --split {split})"
            )
        pulse("documents")
    return pd.DataFrame(table, columns=["document", "labels"])


def shortlist(
    out: Path,
    corpus: LabelledCorpus,
    config: PredictionConfig,
    n: int,
    *,
    team: Alone,
    reporter: Reporter,
    main: bool = True,
) -> pd.DataFrame:
    """The labels of `n` documents, best first; the main process finds them, others wait.

    Args:
        out: keeps the table, and the ways that were chosen.
        corpus: its labels are found.
        config: how many, and how.
        n: documents from the start of the split.
        team: the processes of this launch.
        reporter: shows what is done.
        main: whether this is the process that finds them.

    Returns:
        as `retrieved_split`.

    Raises:
        InputError: as `retrieved_split`, or the main process made none for too long.
    """
    path, parts = out / FOUND, out / "retrieving"
    if not main:

        def there() -> int:
            found = AT_ONCE * len([*parts.glob("[0-9]*.parquet")])
            return n if path.is_file() else min(found, n - 1)

        wait_for(there, n, "the labels that are retrieved", 60 * config.patience, reporter, team)
    if path.is_file():
        return given_shortlist(path, corpus, config.split, n)
    retriever = Retriever(corpus)
    if config.ways == BEST:
        retriever.ways = tuple(
            best_ways(
                out / "ways.csv",
                retriever,
                CHOSEN_FOR,
                n=CHOSEN_ON,
                seed=config.seed,
                reporter=reporter,
            )
        )
    else:
        retriever.ways = tuple(check_ways(config.ways))
    private = corpus.text_is_private
    with reporter.step(f"labels of {config.split}", n) as advance, beating():
        table = retrieved_split(
            retriever,
            config.split,
            parts,
            config.shortlisted,
            limit=n,
            private=private,
            advance=advance,
        )
    write_table(path, table, private=private)
    shutil.rmtree(parts, ignore_errors=True)
    return table
