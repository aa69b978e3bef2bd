"""Labels predicted for documents, and the files that hold them.

`predictions.parquet` has a row a document: `document` (its id), `labels` (positions in the corpus,
best first), `scores` (as many; the higher the better), `gold` (what is right), and maybe
`retrieved` (the shortlist that was ranked, in its own order). `predictions.json` beside it says of
which task and split they are, how many labels there are, and what the scores are. The
`retrieved.parquet` of retrieval, which has no scores, is read as well, and so are the sparse
matrices of others (`sparse_scores`), whose rows are the documents of a split in its order.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from workbench.errors import InputError
from workbench.files import read_json, read_parquet, write_table, write_text
from workbench.labels.sparse_scores import NPZ, PLACES, read_rows, write_rows

FILE = "predictions.parquet"
_RETRIEVED, _RETRIEVE = "retrieved.parquet", "retrieve.json"
_LISTS = {"labels": np.int32, "scores": np.float32, "gold": np.int32, "retrieved": np.int32}


@dataclass(frozen=True)
class Predictions:
    """Labels of many documents, best first.

    Attributes:
        path: where they were read.
        table: columns labels and scores, one array a document; document and gold where the file
            has them. Scores of a file without any are 1 / place.
        record: task, split, n_labels, scores (what they are): what is known of these.
    """

    path: Path
    table: pd.DataFrame = field(repr=False)
    record: Mapping[str, Any]

    def __len__(self) -> int:
        return len(self.table)

    @property
    def longest(self) -> int:
        """Labels of the longest list."""
        return max(map(len, self.table["labels"]))


def read_predictions(source: str | Path) -> Predictions:
    """The predictions of a folder (`predict`'s or `retrieve`'s), or of a file in any of the forms.

    Raises:
        InputError: nothing of that is there, or it is not as its form has it: labels below 0 or
            twice in a list, scores that are not finite, not as many as labels, or not the highest
            first, a document twice, no document at all.
    """
    path = predictions_path(source)
    if path.suffix == ".parquet":
        table, has_scores = _of_parquet(path)
        found = Predictions(path, table, _record(path) | ({} if has_scores else {"scores": PLACES}))
    else:
        labels, scores, n_labels = read_rows(path)
        table = pd.DataFrame({"labels": labels, "scores": scores})
        found = Predictions(path, table, {"n_labels": n_labels})
    if not len(found):
        raise InputError(f"{path}: holds no document")
    return found


def predictions_path(source: str | Path) -> Path:
    """The file that holds the predictions of a folder; what is no folder is the file.

    Raises:
        InputError: none is in the folder.
    """
    path = Path(source)
    if not path.is_dir():
        return path
    found = [path / name for name in (FILE, _RETRIEVED) if (path / name).is_file()]
    if not found:
        raise InputError(f"{path}: no {FILE} in this folder, and no {_RETRIEVED}")
    return found[0]


def write_predictions(
    path: Path, table: pd.DataFrame, record: Mapping[str, Any], *, private: bool = False
) -> None:
    """Write `predictions.parquet`, and the record in a JSON file of the same name.

    Raises:
        InputError: they cannot be written.
    """
    write_text(path.with_suffix(".json"), json.dumps(dict(record), indent=1), private=private)
    typed = {
        name: [np.asarray(row, dtype=kind) for row in table[name]]
        for name, kind in _LISTS.items()
        if name in table
    }
    write_table(path, table.assign(**typed), private=private)


def write_sparse(path: Path, table: pd.DataFrame, n_labels: int, *, private: bool = False) -> float:
    """Write labels and scores as a sparse matrix: SciPy's where the name ends in `.npz`, else text.

    Returns:
        what was added to every score, so that all are above 0 as readers of such files expect.

    Raises:
        InputError: it cannot be written.
    """
    labels, scores = (
        [np.asarray(row, dtype=_LISTS[name]) for row in table[name]]
        for name in ("labels", "scores")
    )
    return write_rows(path, labels, scores, n_labels, private=private)


def is_sparse(path: Path) -> bool:
    """Whether `write_sparse` writes files of that name."""
    return path.suffix in (NPZ, ".txt") or path.name.endswith(".txt.gz")


def _record(path: Path) -> dict[str, Any]:
    beside = path.with_name(_RETRIEVE) if path.name == _RETRIEVED else path.with_suffix(".json")
    if not beside.is_file():
        return {}
    found = read_json(beside)
    if not isinstance(found, dict):
        raise InputError(f"{beside}: no object of task, split and n_labels")
    number = found.get("n_labels", found.get("labels"))
    record = {"n_labels": number} if isinstance(number, int) else {}
    return record | {
        key: found[key] for key in ("task", "split", "scores") if isinstance(found.get(key), str)
    }


def _of_parquet(path: Path) -> tuple[pd.DataFrame, bool]:
    """The table, and whether the file has scores."""
    table = read_parquet(path)
    missing = [name for name in ("document", "labels") if name not in table]
    if missing:
        raise InputError(f"{path}: no column {' and none '.join(map(repr, missing))}")
    documents = table["document"].astype(str)
    for wrong, what in (
        (table["document"].isna(), "no document"),
        (documents.duplicated(), "a document for the second time"),
    ):
        if np.any(wrong):
            raise InputError(f"{path}: row {int(np.argmax(wrong))}: {what}")
    columns = {name: _lists(path, table, name) for name in _LISTS if name in table}
    labels = columns["labels"]
    has_scores = "scores" in columns
    if has_scores:
        _check_scores(path, labels, columns["scores"])
    else:
        columns["scores"] = [(1 / np.arange(1, len(row) + 1)).astype(np.float32) for row in labels]
    return pd.DataFrame({"document": documents, **columns}), has_scores


def _lists(path: Path, table: pd.DataFrame, name: str) -> list[np.ndarray]:
    """A column of lists, one array a row."""
    kind = _LISTS[name]
    wanted = "fiu" if kind is np.float32 else "iu"
    rows = []
    for at, row in enumerate(table[name]):
        if not isinstance(row, np.ndarray) or (row.dtype.kind not in wanted and len(row)):
            raise InputError(f"{path}: row {at}: {name} is no list of numbers")
        rows.append(row.astype(kind, copy=False))
    if kind is np.float32:
        return rows
    document = np.repeat(np.arange(len(rows)), [*map(len, rows)])
    flat = np.concatenate([*rows, np.zeros(0, np.int32)]).astype(np.int64)
    if len(flat) and flat.min() < 0:
        at = int(document[flat.argmin()])
        raise InputError(f"{path}: row {at}: {name} has {flat.min()}; labels count from 0")
    key = np.sort(document * (1 + int(flat.max(initial=0))) + flat)
    twice = key[1:][key[1:] == key[:-1]]
    if len(twice):
        at = int(twice[0] // (1 + int(flat.max())))
        raise InputError(f"{path}: row {at}: a label stands twice in {name}")
    return rows


def _check_scores(path: Path, labels: list[np.ndarray], scores: list[np.ndarray]) -> None:
    for at, (row, score) in enumerate(zip(labels, scores, strict=True)):
        if len(row) != len(score):
            what = f"{len(score)} scores for {len(row)} labels"
        elif not np.isfinite(score).all():
            what = "a score is not finite"
        elif (score[1:] > score[:-1]).any():
            what = "scores do not fall; labels stand best first"
        else:
            continue
        raise InputError(f"{path}: row {at}: {what}")
