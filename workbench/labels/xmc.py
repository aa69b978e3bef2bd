"""The formats of the Extreme Classification Repository (Bhatia et al. 2016), with label texts.

A folder holds, gzipped or plain, of each line the first that is there:
    labels     lbl.json  {"uid", "title"}, maybe "content", a line; Y.txt or Yf.txt, a text a line.
               Line i is label i, from 0.
    documents  trn.json or trn.raw.json  {"uid", "title", "content", "target_ind", "target_rel"} a
               line, target_ind being label numbers; or trn_X.txt or train_raw_texts.txt, a text a
               line, with their labels in trn_X_Y.txt or, in svmlight's form, train.txt or
               NAME_train.txt (see `xmc_rows`). tst and test the same.
    filters    filter_labels_train.txt or trn_filter_labels.txt, one "document label" pair of
               numbers from 0 a line: pairs to leave out of training and evaluation, since the
               document is itself the label. tst and test the same.
Text lines may lie in `raw/`. Titles-only data have no `content`.

What is not taken as it is written is counted, and said in `left_out`: lines that are not UTF-8
(read as latin-1), HTML entities, labels without a text, relevances of 0, rows without a uid.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import zip_longest
from pathlib import Path

from workbench.errors import InputError
from workbench.labels import xmc_texts
from workbench.labels.corpus import Document, check_split, find_file
from workbench.labels.lines import bad_line, text_lines
from workbench.labels.xmc_rows import Filters, LabelRows, read_filters

_STEMS = {"train": "trn", "test": "tst"}
_NO_FILES = "with labels in trn_X_Y.txt or train.txt, are read; tst and test the same"


@dataclass(frozen=True)
class _Split:
    """Where the documents of a split are; `rows` has their labels where texts are plain lines."""

    path: Path
    rows: LabelRows | None = None
    filters: Filters | None = None


class XmcFolder:
    """A folder such as LF-WikiSeeAlso-320K or AmazonCat-13K: labels in memory, documents streamed.

    A `LabelledCorpus`, called by the folder's name by default. `titles_only` leaves out `content`
    where it is there, as the Titles data sets do.

    Attributes:
        undescribed: how many labels have no text; their id stands for it.

    Raises:
        InputError: a file is missing, or, with file and line, the labels or filters are not as
            they should be. The documents are checked when they are read.
    """

    text_is_private = False

    def __init__(
        self, folder: str | Path, *, titles_only: bool = False, name: str | None = None
    ) -> None:
        folder = Path(folder)
        if not folder.is_dir():
            raise InputError(f"{folder}: no such folder")
        self.name = name or folder.resolve().name
        self.titles_only = titles_only
        self._folder = folder
        self._said: Counter[str] = Counter()
        self._said_of: dict[str, Counter[str]] = {}
        splits = {split: _find_split(folder, split) for split in _STEMS}
        self._splits = {split: found for split, found in splits.items() if found}
        if not self._splits:
            what = "no documents in this folder; trn.json, trn.raw.json, or trn_X.txt"
            raise InputError(f"{folder}: {what} {_NO_FILES}")
        self.splits = tuple(self._splits)
        self.label_ids, self.label_texts = self._read_labels(folder)
        self.undescribed = self._said[xmc_texts.UNDESCRIBED]
        for split, found in self._splits.items():
            names = (f"filter_labels_{split}.txt", f"{_STEMS[split]}_filter_labels.txt")
            if path := find_file(folder, *names):
                filters = read_filters(path, len(self.label_ids), self._said)
                self._splits[split] = replace(found, filters=filters)

    @property
    def left_out(self) -> tuple[str, ...]:
        """What is not read as it is written, in a line each: labels, and documents read so far."""
        counts = sum(self._said_of.values(), self._said)
        return tuple(f"{what}: {n}" for what, n in counts.items() if n)

    @cached_property
    def label_contents(self) -> list[str]:
        """Long text of every label, its `content`, read when first asked for; empty without one.

        Raises:
            InputError: with file and line, something else than a string.
        """
        path = None if self.titles_only else find_file(self._folder, "lbl.json")
        if path is None:
            return [""] * len(self.label_ids)
        return xmc_texts.label_contents(path)

    def cluster(self, label: int) -> str | None:
        """None: these label sets bring no taxonomy."""
        return None

    def documents(self, split: str) -> Iterator[Document]:
        """The documents of a split, streamed.

        Memory holds one document and the uids seen so far, which must not come twice. Documents of
        plain lines are called by their number, from 0.

        Raises:
            InputError: no such split; or, with file and line, not JSON, a key missing or of the
                wrong type, a label number outside the label file, a uid for the second time, texts
                and labels that are not as many.
        """
        check_split(self, split)
        return self._stream(split)

    def _stream(self, split: str) -> Iterator[Document]:
        place, said = self._splits[split], Counter[str]()
        self._said_of[split] = said
        found = (
            _of_lines(place.path, place.rows, len(self.label_ids), said)
            if place.rows
            else xmc_texts.documents(place.path, len(self.label_ids), said)
        )
        n = 0
        for document in found:
            ignored = place.filters.of(n) if place.filters else ()
            n += 1
            if ignored:
                labels = tuple(label for label in document.labels if label not in ignored)
                document = replace(document, labels=labels, ignored=ignored)
            if self.titles_only:
                title = document.title if place.rows is None else document.text
                document = replace(document, title=title, text="")
            yield document
        if place.filters and place.filters.last[0] >= n:
            number, line = place.filters.last
            what = f"document {number}, but {place.path.name} has {n}, counted from 0"
            raise bad_line(place.filters.path, line, what)

    def _read_labels(self, folder: Path) -> tuple[list[str], list[str]]:
        names = ("lbl.json", "Y.txt", "raw/Y.txt", "Yf.txt", "raw/Yf.txt")
        path = find_file(folder, *names)
        if path is None:
            what = "no label texts in this folder; lbl.json, Y.txt or Yf.txt, gzipped or plain"
            raise InputError(f"{folder}: {what}, is needed")
        sizes = [
            (split.rows.path, size[1])
            for split in self._splits.values()
            if split.rows and (size := split.rows.size)
        ]
        if ".json" in path.suffixes:
            ids, texts = xmc_texts.labels(path, self._said)
        else:
            ids, texts = xmc_texts.label_lines(
                path, max((n for _, n in sizes), default=0), self._said
            )
        for rows, n in sizes:
            if n != len(ids):
                raise bad_line(rows, 1, f"says {n} labels, but {path.name} has {len(ids)}")
        return ids, texts


load_xmc = XmcFolder


def _find_split(folder: Path, split: str) -> _Split | None:
    stem = _STEMS[split]
    path = find_file(folder, f"{stem}.json", f"{stem}.raw.json")
    if path:
        return _Split(path)
    texts = find_file(folder, f"{stem}_X.txt", f"raw/{stem}_X.txt", f"{split}_raw_texts.txt")
    pairs = find_file(folder, f"{stem}_X_Y.txt")
    rows = pairs or find_file(folder, f"{split}.txt") or _find_named(folder, split)
    if texts is None and rows is None:
        return None
    if texts is None:
        what = f"labels and no text; {stem}_X.txt or {stem}.json with texts is needed beside it"
        raise InputError(f"{rows}: {what}")
    if rows is None:
        raise InputError(f"{texts}: texts and no labels; {stem}_X_Y.txt is needed beside it")
    return _Split(texts, LabelRows(rows, features=pairs is None))


def _find_named(folder: Path, split: str) -> Path | None:
    """The rows in NAME_train.txt or NAME_test.txt, of which there is one NAME."""
    found = [path.name.removesuffix(".gz") for path in sorted(folder.glob(f"*_{split}.txt*"))]
    names = [*dict.fromkeys(name for name in found if not name.startswith("filter_labels"))]
    if len(names) > 1:
        raise InputError(
            f"{folder}: {names[0]} and {names[1]} are rows of labels; call one {split}.txt"
        )
    return find_file(folder, *names)


def _of_lines(path: Path, rows: LabelRows, n_labels: int, said: Counter[str]) -> Iterator[Document]:
    """Texts, one a line, with the labels of the same row; only empty lines may be over."""
    texts = text_lines(path, said, every=True)
    both = zip_longest(texts, rows.rows(n_labels, said))
    for number, (text, row) in enumerate(both):
        if row is None:
            assert text is not None
            if text[1].strip():
                raise bad_line(path, text[0], f"a text, but {rows.path.name} has no row for it")
            continue
        if text is None:
            if row[1] or rows.size:
                what = f"labels of row {number}, but {path.name} has {number} lines"
                raise bad_line(rows.path, row[0], what)
            continue
        line = xmc_texts.unescaped(text[1].strip(), said)
        yield Document(id=str(number), title="", text=line, labels=tuple(row[1]))
