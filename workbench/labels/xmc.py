"""The format of the Extreme Classification Repository (Bhatia et al. 2016), with label texts.

A folder holds, gzipped or plain, one JSON object a line:
    lbl.json   {"uid", "title"}                                        line i is label i, from 0
    trn.json   {"uid", "title", "content", "target_ind", "target_rel"} target_ind: label numbers
    tst.json   the same
and maybe `filter_labels_train.txt` and `filter_labels_test.txt`, one "document label" pair of
numbers from 0 a line: pairs to leave out of training and evaluation, since the document is itself
the label. Titles-only data have no `content`.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from workbench.errors import InputError, shorten
from workbench.files import parse_json
from workbench.labels.corpus import Document, check_split, find_file, need_file
from workbench.labels.lines import LONGEST_LABEL, bad_line, numbered_lines, whole_number

_FILES = {"train": "trn.json", "test": "tst.json"}


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


class XmcFolder:
    """A folder such as LF-WikiSeeAlso-320K: labels in memory, documents streamed.

    A `LabelledCorpus`, called by the folder's name by default. `titles_only` leaves out `content`
    where it is there, as the Titles data sets do.

    Raises:
        InputError: a file is missing, or, with file and line, the labels or filters are not as
            they should be. The documents are checked when they are read.
    """

    text_is_private = False
    left_out = ()
    """Nothing: what is not as it should be is refused."""

    def __init__(
        self, folder: str | Path, *, titles_only: bool = False, name: str | None = None
    ) -> None:
        folder = Path(folder)
        self.name = name or folder.resolve().name
        self.titles_only = titles_only
        self.label_ids, self.label_texts = _read_labels(need_file(folder, "lbl.json"))
        self._files = {split: find_file(folder, name) for split, name in _FILES.items()}
        self.splits = tuple(split for split, path in self._files.items() if path)
        if not self.splits:
            need_file(folder, _FILES["train"])
        self._filters = {
            split: _read_filters(path, len(self.label_ids))
            for split in self.splits
            if (path := find_file(folder, f"filter_labels_{split}.txt"))
        }

    def cluster(self, label: int) -> str | None:
        """None: these label sets bring no taxonomy."""
        return None

    def documents(self, split: str) -> Iterator[Document]:
        """The documents of a split, streamed.

        Memory holds one document and the uids seen so far, which must not come twice.

        Raises:
            InputError: no such split; or, with file and line, not JSON, a key missing or of the
                wrong type, a label number outside the label file, a uid for the second time.
        """
        check_split(self, split)
        path = self._files[split]
        assert path is not None
        return self._stream(path, self._filters.get(split))

    def _stream(self, path: Path, filters: Filters | None) -> Iterator[Document]:
        seen: set[str] = set()
        for index, (line, row) in enumerate(_objects(path)):
            uid, title = _uid(path, line, row, seen), _text(path, line, row, "title")
            targets = _targets(path, line, row, len(self.label_ids))
            ignored = filters.of(index) if filters else ()
            content = "" if self.titles_only else _text(path, line, row, "content", "")
            yield Document(
                id=uid,
                title=title,
                text=content,
                labels=tuple(label for label in targets if label not in ignored),
                ignored=ignored,
            )
        if filters and filters.last[0] >= len(seen):
            document, line = filters.last
            what = f"document {document}, but {path.name} has {len(seen)}, counted from 0"
            raise bad_line(filters.path, line, what)


load_xmc = XmcFolder


def _objects(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    for line, content in numbered_lines(path):
        try:
            row = parse_json(content.decode()) if content else None
        except InputError as error:
            raise bad_line(path, line, f"{error}; one object a line is needed") from None
        if not isinstance(row, dict):
            raise bad_line(path, line, "not a JSON object; one object a line is needed")
        yield line, row


def _read_labels(path: Path) -> tuple[list[str], list[str]]:
    """Uids and titles of the labels; label `i` is the one of line `i`, from 0."""
    uids: list[str] = []
    titles: list[str] = []
    seen: set[str] = set()
    for line, row in _objects(path):
        uids.append(_uid(path, line, row, seen))
        title = _text(path, line, row, "title")
        if len(title) > LONGEST_LABEL:
            what = f"the title has {len(title):,} characters, at most {LONGEST_LABEL:,} are read"
            raise bad_line(path, line, f"{what}; is it a document?")
        titles.append(title)
    if not uids:
        raise InputError(f"{path}: holds no labels; one JSON object a line is needed")
    return uids, titles


def _uid(path: Path, line: int, row: dict[str, Any], seen: set[str]) -> str:
    uid = row.get("uid")
    if isinstance(uid, float) and uid.is_integer():  # as tables with a gap write whole numbers
        uid = int(uid)
    if type(uid) is int:
        uid = str(uid)
    if not isinstance(uid, str) or not uid:
        raise bad_line(path, line, "no 'uid'; a string or a number is needed")
    if uid in seen:
        what = f"uid {shorten(uid)} occurs for the second time; uids are distinct"
        raise bad_line(path, line, what)
    seen.add(uid)
    return _whole_text(path, line, uid, "uid")


def _text(path: Path, line: int, row: dict[str, Any], key: str, default: str | None = None) -> str:
    value = row.get(key, default)
    if not isinstance(value, str):
        raise bad_line(path, line, f"no {key!r}; a string is needed")
    return _whole_text(path, line, value, key)


def _whole_text(path: Path, line: int, value: str, key: str) -> str:
    """Refuses what JSON can write and UTF-8 cannot."""
    try:
        value.encode()
    except UnicodeEncodeError:
        raise bad_line(
            path, line, f"{key!r} holds half of a character (a lone \\u escape)"
        ) from None
    return value


def _targets(path: Path, line: int, row: dict[str, Any], n_labels: int) -> list[int]:
    def refuse(what: str) -> NoReturn:
        raise bad_line(path, line, what)

    targets = row.get("target_ind")
    if not isinstance(targets, list) or not all(type(target) is int for target in targets):
        refuse("no 'target_ind'; a list of label numbers is needed")
    for target in targets:
        if not 0 <= target < n_labels:
            refuse(f"target_ind has {target}, but labels go from 0 to {n_labels - 1}")
    relevances = row.get("target_rel")
    if isinstance(relevances, list) and len(relevances) != len(targets):
        refuse(f"target_rel has {len(relevances)} numbers, but target_ind has {len(targets)}")
    if isinstance(relevances, list) and not all(type(x) in (int, float) for x in relevances):
        refuse("target_rel has something else than numbers")
    return list(dict.fromkeys(targets))


def _read_filters(path: Path, n_labels: int) -> Filters:
    pairs: list[tuple[int, int]] = []
    last = (-1, 0)
    for line, content in numbered_lines(path):
        written = content.decode().split()
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
