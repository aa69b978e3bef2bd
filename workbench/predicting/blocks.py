"""Blocks of documents: what one process does at a time, and what is found again after a stop.

Blocks are cut by the number of the document alone, so that what is in one does not depend on how
many processes there are. Process i of n takes blocks i, i + n, … A block's table is whole or not
there.
"""

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import pandas as pd

from workbench.errors import InputError
from workbench.files import read_parquet
from workbench.labels.corpus import Document, LabelledCorpus

BLOCK = 64
"""Documents: enough for a batch, few enough to be done again after a stop."""
PARTS = "parts"


@dataclass(frozen=True)
class Block:
    """Some documents of a split, each with its retrieved labels, best first."""

    number: int
    documents: tuple[Document, ...]
    retrieved: tuple[np.ndarray, ...]


def part_path(out: Path, number: int) -> Path:
    """Where the table of a block lies."""
    return out / PARTS / f"{number:06d}.parquet"


def parts_there(out: Path) -> set[int]:
    """Numbers of the blocks that are done."""
    stems = [path.stem for path in (out / PARTS).glob("*.parquet")]
    return {int(stem) for stem in stems if stem.isdecimal()}  # not a copy's: "000000 (1)"


def count_blocks(n: int) -> int:
    """How many blocks `n` documents are."""
    return -(-n // BLOCK)


def size_of(number: int, n: int) -> int:
    """Documents of a block, of `n` in all."""
    return min(BLOCK, n - number * BLOCK)


def iter_blocks(
    corpus: LabelledCorpus, split: str, shortlist: pd.DataFrame, numbers: Collection[int]
) -> Iterator[Block]:
    """The blocks of these numbers, in order; documents are read one block at a time.

    Raises:
        InputError: the shortlist is of other documents.
    """
    wanted = set(numbers)
    ids, found = shortlist["document"].tolist(), shortlist["labels"].tolist()
    documents = islice(corpus.documents(split), len(ids))
    for number in range(count_blocks(len(ids)) if wanted else 0):
        start = number * BLOCK
        some = tuple(islice(documents, BLOCK))
        for row, document in enumerate(some, start=start):
            if document.id != ids[row]:
                raise InputError(
                    f"row {row + 1} of the retrieved labels is of another document than that of "
                    f"split {split} of {corpus.name}; retrieve them again"
                )
        if number in wanted:
            yield Block(number, some, tuple(found[start : start + len(some)]))
            wanted.discard(number)
        if not wanted:
            return


def read_parts(out: Path, n: int) -> pd.DataFrame:
    """All blocks of `n` documents in one table.

    Raises:
        InputError: one is missing, damaged, or has another number of rows.
    """
    tables = []
    for number in range(count_blocks(n)):
        path = part_path(out, number)
        try:
            table = read_parquet(path)
        except InputError as error:
            raise InputError(f"{error}; delete it to make its rows again") from None
        if len(table) != size_of(number, n):
            raise InputError(
                f"{path}: has {len(table)} rows, {size_of(number, n)} are needed; delete it to "
                "make them again"
            )
        tables.append(table)
    return pd.concat(tables, ignore_index=True)
