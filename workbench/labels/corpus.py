"""Documents with labels, whatever format they come in, and finding their files.

Labels go by their position in the corpus, counted from 0: `label_ids[position]`,
`label_texts[position]`. A million labels are then two plain lists, and a document's labels are
small integers in every format.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, runtime_checkable

from workbench.errors import InputError


@dataclass(frozen=True)
class Document:
    """One document and the labels that are right for it.

    Title, text and evidence do not show in its `repr`: it ends up in logs, and they must not.

    Attributes:
        id: the document's own id in its source, a string.
        title: may be empty.
        text: may be empty, when only titles are there.
        labels: positions of its labels in the corpus, in the order of the source, each once.
        ignored: positions of labels neither right nor wrong for it (the document itself, where
            documents are labels too): not to be offered and not to be counted.
        evidence: where the full text supports a label, as (label, first character, end), in order
            of the text and apart from each other; None where the source does not say.
    """

    id: str
    title: str = field(repr=False)
    text: str = field(repr=False)
    labels: tuple[int, ...]
    ignored: tuple[int, ...] = ()
    evidence: tuple[tuple[int, int, int], ...] | None = field(default=None, repr=False)

    @property
    def full_text(self) -> str:
        """Title and text, a line break between them; whichever is there if only one is."""
        return "\n".join(part for part in (self.title, self.text) if part)


@runtime_checkable
class LabelledCorpus(Protocol):
    """Labelled documents, the same to use in every format."""

    @property
    def name(self) -> str:
        """What tables and reports call it."""
        ...

    @property
    def label_ids(self) -> Sequence[str]:
        """One distinct string for every label."""
        ...

    @property
    def label_texts(self) -> Sequence[str]:
        """The words of each label, in the same order."""
        ...

    @property
    def splits(self) -> tuple[str, ...]:
        """Names that `documents` takes."""
        ...

    @property
    def text_is_private(self) -> bool:
        """Whether documents must not be shown outside the run folder."""
        ...

    @property
    def left_out(self) -> Sequence[str]:
        """What of the files is not used, or not read as it is written; a line each, for people.

        As far as they were read.
        """
        ...

    def documents(self, split: str) -> Iterator[Document]:
        """The documents of a split in the order of the file, one at a time in memory.

        Raises:
            InputError: no such split, or a line of the file is not as it should be.
        """
        ...

    def cluster(self, label: int) -> str | None:
        """The taxonomy node that groups a label (by position) with its near misses.

        None when the format brings no taxonomy.
        """
        ...


def check_split(corpus: LabelledCorpus, split: str) -> None:
    """Refuse the name of a split that the corpus does not have."""
    if split not in corpus.splits:
        known = ", ".join(corpus.splits)
        raise InputError(f"corpus {corpus.name!r} has no split {split!r}; it has {known}")


def find_file(folder: Path, *names: str) -> Path | None:
    """The first of these names in a folder, gzipped or plain; None if there is none.

    Names are written without `.gz`, and may begin with a folder.
    """
    for name in names:
        for path in (folder / f"{name}.gz", folder / name):
            if path.is_file():
                return path
    return None


def need_file(folder: Path, *names: str) -> Path:
    """As `find_file`, and the refusal if there is none.

    Raises:
        InputError: no such folder, or none of the files in it.
    """
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder")
    path = find_file(folder, *names)
    if path is None:
        raise InputError(f"{folder}: no {names[0]}.gz (or {names[0]}) in this folder")
    return path
