"""The labels that are retrieved for every document: found once for all processes, or given."""

import shutil
from itertools import islice
from pathlib import Path

import pandas as pd

from workbench.analysis.label_space.retrieval import (
    AT_ONCE,
    best_ways,
    read_retrieved,
    retrieved_split,
)
from workbench.errors import InputError
from workbench.files import write_table
from workbench.labels.corpus import LabelledCorpus, check_split
from workbench.labels.retrieving.retriever import Retriever
from workbench.labels.retrieving.ways import check_ways
from workbench.predicting.config import BEST, PredictionConfig
from workbench.predicting.waiting import wait_for
from workbench.processes import Alone
from workbench.progress import Reporter, beating

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


def given_shortlist(path: Path, corpus: LabelledCorpus, n: int) -> pd.DataFrame:
    """A table of `workbench retrieve`, of at least `n` documents.

    Raises:
        InputError: it cannot be read, has fewer rows, or labels that the corpus has not.
    """
    table = read_retrieved(path)
    if len(table) < n:
        raise InputError(
            f"{path}: has {len(table):,} documents, {n:,} are asked about; retrieve them all, or "
            f"give --n-documents {len(table)}"
        )
    table = table.head(n)
    n_labels = len(corpus.label_texts)
    for labels in table["labels"]:
        if len(labels) and not 0 <= min(labels) <= max(labels) < n_labels:
            raise InputError(f"{path}: has labels that {corpus.name} has not; it is of another set")
    return table


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
        return given_shortlist(path, corpus, n)
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
