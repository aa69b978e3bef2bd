"""The blocks of all processes as one table, with what is to be said of it."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from workbench.files import write_table
from workbench.labels.corpus import LabelledCorpus
from workbench.labels.predictions import FILE, write_predictions
from workbench.predicting.blocks import PARTS, read_parts
from workbench.predicting.config import PredictionConfig
from workbench.predicting.reranking import COLUMNS, COUNTS
from workbench.progress import Reporter

CHAINS = "chains.parquet"
SCORES = (
    "log-probability of an option's name where the model answers; labels that it was not shown "
    "follow in the order in which they were retrieved, each 1 below the one before"
)


def merged(
    out: Path,
    corpus: LabelledCorpus,
    n: int,
    asked: dict[str, Any],
    config: PredictionConfig,
    reporter: Reporter,
) -> pd.DataFrame:
    """The tables of all blocks of `n` documents as one, written, and the blocks put away.

    Args:
        out: the folder of all.
        corpus: of the documents.
        n: documents.
        asked: what decided them, for the record.
        config: says how many candidates there should be.
        reporter: is told what could not be as asked.

    Raises:
        InputError: as `read_parts`, or they cannot be written.
    """
    table, private = read_parts(out, n), corpus.text_is_private
    columns = [name for name in (*COLUMNS, "listed") if name in table]
    kept = pd.DataFrame(table[columns])
    if "chain" in table:
        write_table(out / CHAINS, table[["document", "chain"]], private=private)
    record = {**asked, "scores": SCORES, "counts": counts(table, config)}
    write_predictions(out / FILE, kept, record, private=private)
    shutil.rmtree(out / PARTS, ignore_errors=True)
    for line in said(record["counts"], config):
        reporter.say(line)
    for line in corpus.left_out:
        reporter.say(f"{corpus.name}: {line}")
    return kept


def counts(table: pd.DataFrame, config: PredictionConfig) -> dict[str, int | float]:
    """What of the documents could not be asked about as it is, and how long questions were."""
    columns: dict[str, np.ndarray] = {name: table[name].to_numpy() for name in COUNTS}
    candidates = columns["candidates"]
    found: dict[str, int | float] = {
        "documents": len(table),
        "without_candidates": int((candidates == 0).sum()),
        "with_fewer_candidates": int(((candidates > 0) & (candidates < config.candidates)).sum()),
        "with_fewer_for_length": int(columns["narrowed"].sum()),
        "cut": int(columns["cut"].sum()),
        "tokens": int(columns["tokens"].sum()),
        "longest": int(columns["tokens"].max()),
    }
    if "finished" in table:
        finished: np.ndarray = table["finished"].to_numpy()
        found["unfinished_chains"] = int(((candidates > 0) & ~finished).sum())
    return found


def said(counted: dict[str, int | float], config: PredictionConfig) -> Iterator[str]:
    """Lines about the counts, for people."""
    n = counted["documents"]
    if counted["cut"]:
        yield f"{counted['cut']} of {n} documents were too long and are cut by passages"
    if counted["without_candidates"]:
        yield f"{counted['without_candidates']} of {n} documents have no candidate, and no labels"
    if counted["with_fewer_candidates"]:
        fewer, long = counted["with_fewer_candidates"], counted["with_fewer_for_length"]
        why = f", {long} of them since more options would be too long" if long else ""
        yield f"{fewer} of {n} documents have fewer than {config.candidates} candidates{why}"
    if counted.get("unfinished_chains"):
        yield f"{counted['unfinished_chains']} of {n} chains are not finished; give more --room"
