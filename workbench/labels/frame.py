"""A corpus out of two tables in memory: documents with their labels, and the labels' texts.

Documents, one row each, or one row a mention where several rows have the same `id` (without that
column, the same `text`):
    text      the document
    labels    its gold labels: a list, or a string of them separated by ; or | or ,
    id        optional: what its prompts are called; the number of its row otherwise, from 0
    evidence  optional: where the text supports the row's label, as these words of the text or as
              two numbers, first character and end; or in two columns, `start` and `end`
Labels, one row each, or a mapping from id to text, or a `LabelSpace`:
    id, text  of the label
    cluster   optional: labels of one cluster are each other's near misses
    synonyms  optional: other wordings, a list or a string separated by ; or |
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pandas as pd

from workbench.errors import InputError, require, shorten
from workbench.labels.cells import is_blank, is_text, listed, named_table, some, word
from workbench.labels.corpus import Document, check_split
from workbench.labels.lines import LONGEST_LABEL
from workbench.labels.neighbours import TfidfConfig, cluster_labels
from workbench.labels.space import Label, LabelSpace
from workbench.labels.words import Searchable

ALL = "all"
"""The one split."""
DOCUMENT_COLUMNS = ("text", "labels", "id", "evidence", "start", "end")
LABEL_COLUMNS = ("id", "text", "cluster", "synonyms")
_NEEDED = ("text", "labels")


@dataclass(frozen=True)
class FrameCorpus:
    """Documents and labels of two tables; a `LabelledCorpus`, see `frame_corpus`."""

    name: str
    space: LabelSpace = field(repr=False)
    rows: tuple[Document, ...] = field(repr=False)
    clusters: tuple[str | None, ...] = field(repr=False)
    left_out: tuple[str, ...] = ()
    splits: tuple[str, ...] = (ALL,)
    text_is_private: bool = True

    @property
    def label_ids(self) -> Sequence[str]:
        """See `LabelledCorpus`."""
        return self.space.ids

    @property
    def label_texts(self) -> Sequence[str]:
        """See `LabelledCorpus`."""
        return [label.text for label in self.space]

    def documents(self, split: str) -> Iterator[Document]:
        """See `LabelledCorpus`."""
        check_split(self, split)
        return iter(self.rows)

    def cluster(self, label: int) -> str | None:
        """See `LabelledCorpus`."""
        return self.clusters[label]


def frame_corpus(
    documents: Any,
    labels: Any,
    *,
    clusters: Mapping[Any, Any] | None = None,
    columns: Mapping[str, str] | None = None,
    label_columns: Mapping[str, str] | None = None,
    name: str = "frame",
    seed: int = 0,
) -> FrameCorpus:
    """The corpus of two tables, see above for their columns.

    Args:
        documents: a data frame, or what makes one.
        labels: a data frame or what makes one, a mapping from id to text, or a label space.
        clusters: label id → cluster; of the table where it has them, else learned from the texts.
        columns: what columns of the documents are called, where that is another name:
            `{"text": "note", "labels": "codes"}`.
        label_columns: likewise of the labels.
        name: of the corpus.
        seed: of learned clusters.

    Raises:
        InputError: a table without rows or a column that is needed, clusters of no label, a row
            without text, a label twice or without text, rows of one document whose texts differ,
            evidence for several labels in one row or that is not a span, or no label of the
            documents that is known.
    """
    notes: list[str] = []
    space, named = _read_labels(labels, label_columns, name)
    if clusters is not None:
        named = _given_clusters(clusters, space.ids, notes)
    if any(named.values()):
        alone = [label for label, cluster in named.items() if not cluster]
        if alone:
            notes.append(
                f"{len(alone)} labels have no cluster ({some(alone)}): near them are the labels "
                "whose texts are most alike"
            )
        found = [named[label] or None for label in space.ids]
    else:
        found = learned_clusters([label.text for label in space], seed)
        notes.append(f"{len(set(found))} clusters are learned from the labels' texts")
    rows = _Reader(space, notes).read(
        named_table(documents, columns, DOCUMENT_COLUMNS, "documents")
    )
    return FrameCorpus(name, space, rows, tuple(found), tuple(notes))


def _given_clusters(
    clusters: Mapping[Any, Any], ids: Sequence[str], notes: list[str]
) -> dict[str, str]:
    """The cluster of every label, empty where none is given; ids may be numbers."""
    if not isinstance(clusters, Mapping):
        raise InputError(f"clusters: label id → cluster is needed, got {type(clusters).__name__}")
    given = {word(label): word(cluster) for label, cluster in clusters.items()}
    known = set(ids)
    strange = [label for label in given if label not in known]
    if len(strange) == len(given):
        raise InputError(
            f"clusters: none of their labels ({some(strange)}) is among the {len(ids)} of the "
            "label table"
        )
    if strange:
        notes.append(
            f"{len(strange)} labels of clusters are not in the label table ({some(strange)})"
        )
    return {label: given.get(label, "") for label in ids}


def learned_clusters(texts: Sequence[str], seed: int = 0) -> list[str | None]:
    """A cluster for every label from the texts alone: three at least, so that some are far."""
    most = max(2, min(64, len(texts) // 3))
    found = cluster_labels(texts, most, TfidfConfig(min_df=1), seed=seed)
    return [f"cluster {number}" for number in found.tolist()]


class _Reader:
    """Makes documents of the rows; what it cannot use is counted in `notes`."""

    def __init__(self, space: LabelSpace, notes: list[str]) -> None:
        self._place = {label: place for place, label in enumerate(space.ids)}
        self._notes = notes
        self._unknown: Counter[str] = Counter()
        self._lost = self._overlapping = 0

    def read(self, table: pd.DataFrame) -> tuple[Document, ...]:
        require(table, "documents", _NEEDED)
        groups: dict[str, list[tuple[int, dict[str, Any]]]] = {}
        for number, row in enumerate(table.to_dict("records")):
            if not is_text(row["text"]):
                raise InputError(
                    f"documents: row {number} (from 0) has no text in whole characters"
                )
            key = word(row["id"]) if "id" in table else row["text"]
            if not key:
                raise InputError(f"documents: row {number} (from 0) has no id")
            groups.setdefault(key, []).append((number, row))
        if not groups:
            raise InputError("documents: the table has no rows")
        names = list(groups) if "id" in table else [str(rows[0][0]) for rows in groups.values()]
        made = tuple(
            self._document(name, rows) for name, rows in zip(names, groups.values(), strict=True)
        )
        if self._unknown and not any(document.labels for document in made):
            raise InputError(
                f"documents: none of their labels ({some(self._unknown)}) is among the "
                f"{len(self._place)} of the label table"
            )
        self._say(made)
        return made

    def _say(self, made: Sequence[Document]) -> None:
        silent = sum(document.evidence is None for document in made)
        if self._unknown:
            self._notes.append(
                f"{self._unknown.total()} labels of documents are not in the label table "
                f"({some(self._unknown)}) and left out"
            )
        if self._lost:
            self._notes.append(f"{self._lost} pieces of evidence are not in their document's text")
        if self._overlapping:
            self._notes.append(f"{self._overlapping} pieces of evidence overlap another; left out")
        if 0 < silent < len(made):
            self._notes.append(
                f"{silent} documents have no evidence: the sentence most like the label is taken"
            )

    def _document(self, name: str, rows: Sequence[tuple[int, dict[str, Any]]]) -> Document:
        text = rows[0][1]["text"]
        golds: dict[int, None] = {}
        spans: list[tuple[int, int, int]] = []
        says = False
        for number, row in rows:
            if row["text"] != text:
                raise InputError(
                    f"documents: rows {rows[0][0]} and {number} (from 0) have one id and two texts"
                )
            if isinstance(row["labels"], Mapping):
                raise InputError(f"documents: row {number} (from 0): labels are no list of ids")
            labels = self._labels(row["labels"])
            golds.update(dict.fromkeys(labels))
            evidence = _evidence(number, row)
            if evidence is None:
                continue
            says = True
            if len(labels) > 1:
                raise InputError(
                    f"documents: row {number} (from 0) has evidence for {len(labels)} labels; "
                    "give each label a row of its own"
                )
            span = find_evidence(text, evidence, number)
            self._lost += span is None
            spans += [(labels[0], *span)] if span and labels else []
        return Document(name, "", text, tuple(golds), evidence=self._apart(spans) if says else None)

    def _apart(self, spans: list[tuple[int, int, int]]) -> tuple[tuple[int, int, int], ...]:
        """Those that overlap no earlier one, in order of the text; the same span may come twice."""
        kept: list[tuple[int, int, int]] = []
        for span in spans:
            clash = any(
                one[1:] != span[1:] and one[1] < span[2] and span[1] < one[2] for one in kept
            )
            self._overlapping += clash
            kept += [] if clash else [span]
        return tuple(sorted(kept, key=lambda one: one[1:]))

    def _labels(self, value: Any) -> list[int]:
        if isinstance(value, str):
            whole = value.strip()
            ways = [[whole], *([*map(str.strip, whole.split(sign))] for sign in ";|,")]
            names = next(
                (way for way in ways if all(name in self._place for name in way if name)), None
            )
            if names is None:  # the separator that there is most of
                names = listed(value) or max(ways, key=len)
        else:
            names = listed(value) or []
        known = [name for name in map(word, names) if name]
        self._unknown.update(name for name in known if name not in self._place)
        return [self._place[name] for name in dict.fromkeys(known) if name in self._place]


def _evidence(number: int, row: Mapping[str, Any]) -> str | tuple[int, int] | None:
    """Words of the text, or first character and end; None where the row gives none."""
    value = row.get("evidence")
    if is_blank(value):
        value = (row.get("start"), row.get("end"))
        if all(map(is_blank, value)):
            return None
    if isinstance(value, str):
        return value if (pair := listed(value)) is None else _span(number, pair)
    return _span(number, listed(value) or [value])


def _span(number: int, value: Sequence[Any]) -> tuple[int, int]:
    try:
        start, end = (int(float(one)) for one in value)
    except (TypeError, ValueError, OverflowError):
        raise InputError(
            f"documents: row {number} (from 0): evidence is neither words of the text nor two "
            "numbers, first character and end"
        ) from None
    return start, end


def find_evidence(
    text: str, evidence: str | tuple[int, int], number: int = 0
) -> tuple[int, int] | None:
    """Where the evidence is in the text, without blanks at its ends; None if it is not there.

    Whole words are preferred, as they are written rather than in other case or spacing.

    Raises:
        InputError: numbers that are no span of this text, naming the row `number`.
    """
    if isinstance(evidence, tuple):
        start, end = evidence
        if not 0 <= start < end <= len(text) or not text[start:end].strip():
            raise InputError(
                f"documents: row {number} (from 0): evidence [{start}, {end}] is outside the text "
                f"of {len(text)} characters, or blank"
            )
    else:
        evidence = evidence.strip()
        places = list(Searchable(text).all(evidence))
        exact = [place for place in places if text[slice(*place)] == evidence]
        at = text.find(evidence)
        places = exact or places or ([(at, at + len(evidence))] if at >= 0 else [])
        if not places:
            return None
        start, end = places[0]
    held = text[start:end]
    start += len(held) - len(held.lstrip())
    return start, start + len(held.strip())


def _read_labels(
    labels: Any, columns: Mapping[str, str] | None, name: str
) -> tuple[LabelSpace, dict[str, str]]:
    """Labels, and the cluster that the table gives each; an empty one where it gives none."""
    if isinstance(labels, LabelSpace):
        return labels, {label: labels.cluster(label) for label in labels.ids}
    if isinstance(labels, Mapping) and not any(
        hasattr(text, "__iter__") and not isinstance(text, str) for text in labels.values()
    ):
        labels = {"id": list(labels), "text": list(labels.values())}
    table = named_table(labels, columns, LABEL_COLUMNS, "labels")
    require(table, "labels", ("id", "text"))
    found: list[Label] = []
    clusters: dict[str, str] = {}
    for number, row in enumerate(table.to_dict("records")):
        label, text = word(row["id"]), row["text"]
        where = f"labels: row {number} (from 0)"
        if not label:
            raise InputError(f"{where} has no id")
        if label in clusters:
            raise InputError(f"{where}: label {shorten(label)} occurs for the second time")
        if not is_text(text):
            raise InputError(f"{where} has no text in whole characters")
        if len(text) > LONGEST_LABEL:
            raise InputError(
                f"{where}: the text has {len(text):,} characters, at most {LONGEST_LABEL:,} are "
                "read; is it a document?"
            )
        clusters[label] = word(row.get("cluster"))
        found.append(Label(label, text, (clusters[label] or name,), _wordings(row.get("synonyms"))))
    if not found:
        raise InputError("labels: the table has no rows")
    return LabelSpace(name, found), clusters


def _wordings(value: Any) -> tuple[str, ...]:
    if isinstance(value, str) and listed(value) is None:
        value = value.replace("|", ";").split(";")
    return tuple(one.strip() for one in listed(value) or () if str(one).strip())
