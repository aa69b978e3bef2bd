"""Scores of labels as a sparse matrix of documents by labels, in the two forms others read.

Text, as pyxclib has it: `rows columns` in the first line, then a document a line,
`label:score label:score …`, an empty line where there is none; gzipped where the name ends in
`.gz`. And SciPy's `.npz`. In both a pair that is not there has a score of 0 to whoever reads it, so
what is written is above 0.
"""

import gzip
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from scipy.sparse import csr_array, issparse, load_npz, save_npz

from workbench.errors import InputError
from workbench.files import make_folder, reading, replacing
from workbench.labels.lines import bad_line, text_lines, whole_number
from workbench.progress import pulse

NPZ = ".npz"
_PACKED = (zipfile.BadZipFile, zlib.error)
PLACES = "1 / place"
"""What scores are called that say no more than the order."""

Labels = Int[np.ndarray, " _"]
Scores = Float[np.ndarray, " _"]


def read_rows(path: Path) -> tuple[list[Labels], list[Scores], int]:
    """Labels and scores of every document, in the order of the file's rows, and how many labels.

    Labels stand in the order of their scores, the highest first; of equal ones, as in the file.

    Raises:
        InputError: it cannot be read, is in neither form, or holds a label twice in a row, one
            outside the columns, or a score that is not finite; with the line.
    """
    return _of_npz(path) if path.suffix == NPZ else _of_text(path)


def write_rows(
    path: Path, labels: list[Labels], scores: list[Scores], n_labels: int, *, private: bool = False
) -> float:
    """Write them, as `.npz` or as text; labels of a row ascend, as readers of the form want.

    Returns:
        what was added to all scores so that the least is 1, where one was not above 0; else 0.

    Raises:
        InputError: it cannot be written.
    """
    least = min((float(row.min()) for row in scores if len(row)), default=1.0)
    added = 1.0 - least if least <= 0 else 0.0
    make_folder(path.parent)
    with replacing(path, private=private) as beside, beside.open("wb") as file:
        if path.suffix == NPZ:
            starts = np.cumsum([0, *map(len, labels)])
            flat = np.concatenate([*scores, np.zeros(0, np.float32)])
            matrix = csr_array(
                (
                    flat + np.float64(added) if added else flat,
                    np.concatenate([*labels, np.zeros(0, np.int32)]),
                    starts,
                ),
                shape=(len(labels), n_labels),
            )
            matrix.sort_indices()
            save_npz(file, matrix)
            return added
        packed = path.suffix == ".gz"
        with gzip.GzipFile("", "wb", fileobj=file, mtime=0) if packed else file as stream:
            stream.write(f"{len(labels)} {n_labels}\n".encode())
            for row, values in zip(labels, scores, strict=True):
                order = np.argsort(row)
                raised = (values[order] + np.float64(added)).tolist()
                pairs = zip(row[order].tolist(), raised, strict=True)
                stream.write((" ".join(f"{n}:{score:.9g}" for n, score in pairs) + "\n").encode())
                pulse("documents")
    return added


def _of_text(path: Path) -> tuple[list[Labels], list[Scores], int]:
    lines = text_lines(path, Counter(), every=True)
    _, first = next(lines, (0, ""))
    size = [whole_number(text) for text in first.split()]
    if len(size) != 2 or size[0] is None or size[1] is None:
        raise bad_line(path, 1, "'rows columns' is needed before the rows of 'label:score'")
    n, n_labels = size[0], size[1]
    found = [_row(path, line, content, n_labels) for line, content in _first_rows(lines, n)]
    if len(found) != n:
        raise bad_line(path, 1, f"says {n} rows, but {len(found)} follow")
    labels, scores = ([row[at] for row in found] for at in (0, 1))
    return labels, scores, n_labels


def _first_rows(lines: Iterator[tuple[int, str]], n: int) -> Iterator[tuple[int, str]]:
    """Lines, less the empty ones after the `n`-th."""
    for at, (line, content) in enumerate(lines):
        if at < n or content.strip():
            yield line, content
            pulse("documents")


def _row(path: Path, line: int, content: str, n_labels: int) -> tuple[Labels, Scores]:
    written = content.split()
    try:
        pairs = [pair.split(":") for pair in written]
        label = np.array([int(label) for label, _ in pairs], dtype=np.int64)
        score = np.array([float(score) for _, score in pairs], dtype=np.float64)
    except (ValueError, OverflowError):
        raise bad_line(path, line, "not 'label:score' pairs with labels from 0") from None
    if wrong := _wrong(label, score, n_labels):
        raise bad_line(path, line, wrong)
    return _ranked(label, score)


def _of_npz(path: Path) -> tuple[list[Labels], list[Scores], int]:
    with reading(path):
        path.open("rb").close()
        try:
            found: Any = load_npz(path)
        except (ValueError, LookupError, TypeError, EOFError, NotImplementedError, *_PACKED):
            found = None
    if not issparse(found) or found.ndim != 2 or found.dtype.kind not in "fiu":
        raise InputError(f"{path}: no sparse matrix of numbers, as scipy.sparse.save_npz writes it")
    matrix: Any = csr_array(found)
    labels, scores = [], []
    for at in range(matrix.shape[0]):
        part = slice(matrix.indptr[at], matrix.indptr[at + 1])
        label, score = matrix.indices[part], matrix.data[part]
        if wrong := _wrong(label, score, matrix.shape[1]):
            raise InputError(f"{path}: row {at}: {wrong}")
        row = _ranked(label, score)
        labels.append(row[0])
        scores.append(row[1])
    return labels, scores, matrix.shape[1]


def _wrong(label: np.ndarray, score: np.ndarray, n_labels: int) -> str | None:
    if not len(label):
        return None
    if label.min() < 0 or label.max() >= n_labels:
        outside = int(label[(label < 0) | (label >= n_labels)][0])
        return f"label {outside}, but labels go from 0 to {n_labels - 1}"
    if len(np.unique(label)) < len(label):
        return "a label stands there twice"
    return None if np.isfinite(score).all() else "a score is not finite"


def _ranked(label: np.ndarray, score: np.ndarray) -> tuple[Labels, Scores]:
    order = np.argsort(-score.astype(np.float64), kind="stable")
    return label[order].astype(np.int32), score[order].astype(np.float32)
