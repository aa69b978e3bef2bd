"""Labels of documents as rows of a sparse matrix, and pairs to leave out, in plain text.

`trn_X_Y.txt`, as pyxclib writes it: "label:value" pairs, a document a line, an empty line where it
has none, and "rows columns" before them. `train.txt`, in the form of svmlight: "label,label" before
the features, which are not read, and "rows features labels" before all of it. The first line may be
missing. Labels count from 0.
"""

import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise
from pathlib import Path

import numpy as np

from workbench.labels.lines import bad_line, text_lines, whole_number
from workbench.labels.xmc_texts import NOT_GOLD


@dataclass(frozen=True)
class Filters:
    """Pairs of document and label to leave out, by document: lines of `labels` between `starts`."""

    path: Path
    starts: dict[int, tuple[int, int]] = field(repr=False)
    labels: np.ndarray = field(repr=False)
    last: tuple[int, int] = (-1, 0)
    """The highest document number, and the line that names it."""

    def of(self, document: int) -> tuple[int, ...]:
        """Labels to leave out of this document."""
        start, stop = self.starts.get(document, (0, 0))
        return tuple(self.labels[start:stop].tolist())


def read_filters(path: Path, n_labels: int, said: Counter[str]) -> Filters:
    """The pairs of a file of "document label" lines.

    Raises:
        InputError: with file and line, not two numbers, or a label outside the label file.
    """
    pairs: list[tuple[int, int]] = []
    last = (-1, 0)
    for line, content in text_lines(path, said):
        written = content.split()
        numbers = [number for text in written if (number := whole_number(text)) is not None]
        if len(numbers) != 2 or len(written) != 2:
            raise bad_line(path, line, "not two numbers from 0; 'document label' is needed")
        document, label = numbers
        if label >= n_labels:
            what = f"document {document}, label {label}, but labels go from 0 to {n_labels - 1}"
            raise bad_line(path, line, what)
        if document > last[0]:
            last = (document, line)
        pairs.append((document, label))
    table = np.unique(np.array(pairs, dtype=np.int64).reshape(-1, 2), axis=0)
    documents, starts = np.unique(table[:, 0], return_index=True)
    spans = pairwise([*starts.tolist(), len(table)])
    return Filters(path, dict(zip(documents.tolist(), spans, strict=True)), table[:, 1], last)


@dataclass(frozen=True)
class LabelRows:
    """A file of rows of labels; `features` says whether features stand behind them (svmlight)."""

    path: Path
    features: bool

    @cached_property
    def size(self) -> tuple[int, int] | None:
        """Rows and labels, as the first line says; None where it says nothing."""
        _, content = next(text_lines(self.path, Counter(), every=True), (0, ""))
        numbers = [whole_number(text) for text in content.split()]
        known = [number for number in numbers if number is not None]
        if len(known) != len(numbers) or len(numbers) != (3 if self.features else 2):
            return None
        return known[0], known[-1]

    def rows(self, n_labels: int, said: Counter[str]) -> Iterator[tuple[int, list[int]]]:
        """Line number and labels of every row, streamed, in the order of the file, each once.

        Raises:
            InputError: with file and line, what is no label, a label outside the label file, or
                another number of rows than the first line says.
        """
        size = self.size
        read = self._of_svmlight if self.features else self._of_pairs
        n = 0
        for line, content in text_lines(self.path, said, every=True):
            if line == 1 and size:
                continue
            if size and n == size[0] and not content.strip():
                continue
            n += 1
            found = read(line, content, said)
            wrong = next((label for label in found if label >= n_labels), None)
            if wrong is not None:
                what = f"label {wrong}, but labels go from 0 to {n_labels - 1}"
                raise bad_line(self.path, line, what)
            yield line, list(dict.fromkeys(found))
        if size and n != size[0]:
            raise bad_line(self.path, 1, f"says {size[0]} rows, but {n} follow")

    def _of_svmlight(self, line: int, content: str, _: Counter[str]) -> list[int]:
        first = content.split(maxsplit=1)[0] if content[:1].strip() else ""
        written = first.split(",") if ":" not in first and first else []
        return [self._label(line, text, "'label,label feature:value'") for text in written]

    def _of_pairs(self, line: int, content: str, said: Counter[str]) -> list[int]:
        found = []
        for pair in content.split():
            label, _, value = pair.partition(":")
            number = self._label(line, label, "'label:value' pairs")
            if self._value(line, value) > 0:
                found.append(number)
            else:
                said[NOT_GOLD] += 1
        return found

    def _label(self, line: int, text: str, form: str) -> int:
        number = whole_number(text)
        if number is None:
            raise bad_line(self.path, line, f"a label is no number from 0; {form} are needed")
        return number

    def _value(self, line: int, text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not math.isfinite(value):
            raise bad_line(self.path, line, "a value is no number; 'label:value' pairs are needed")
        return value
