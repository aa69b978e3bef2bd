"""A label set that anybody can build: the packages of Debian, and which of them belong together.

Labels are the packages of `main` of one suite and architecture: name and short description, the
long one as `content`. Documents are the packages that name others: title and long description.
Right labels of a document are the packages in its Recommends, Suggests and Enhances, of
alternatives the first, where they are labels: the "see also" of software. Depends is left out: it
is what a program is linked with, which no description tells.

A quarter of the documents is the test split. They are drawn by source package, in the order of a
hash of its name, so that siblings (`libreoffice-l10n-de`, `-fr`), which share most of their text
and labels, are never on both sides. The filter files name each document's own label. They also
name, of a training document, test documents that have it as a right label in turn: the pair is
answered there. `sources.tsv` says which source package every document is of.
"""

import gzip
import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from workbench.errors import InputError
from workbench.files import make_folder, read_json, replacing, write_text
from workbench.labels.debian_index import (
    IndexFiles,
    Package,
    Release,
    read_packages,
    read_release,
    read_table,
)

RECORD = "debian.json"
"""In the folder: what it was built from, and the hashes of what it holds."""
SOURCES = "sources.tsv"
"""A line `document<tab>source package`, as `read_groups` takes it."""
TEST_SHARE = 4
"""One document in so many is of the test split."""
N_HARD = 12
"""Labels of a sample beside each document's own and right ones: the nearest by its title."""


@dataclass(frozen=True)
class BuiltFrom:
    """What a label set was made of.

    Attributes:
        suite: code name and version, as its Release says.
        date: of that Release.
        packages: SHA-256 of `Packages`, unpacked; `translation`: of `Translation-en`.
        as_released: whether Release lists both hashes; None where no Release is at hand.
    """

    suite: str
    date: str
    packages: str
    translation: str
    as_released: bool | None


@dataclass(frozen=True)
class DebianSet:
    """The label set in memory: the contents of its files, and the record of them."""

    files: dict[str, str]
    record: dict[str, Any]

    def check(self, expected: Path) -> None:
        """Refuse it where it differs from what another record tells.

        Raises:
            InputError: what differs, or no such record.
        """
        told = read_json(expected)
        if not isinstance(told, dict) or not isinstance(told.get("files"), dict):
            raise InputError(f"{expected}: no record of a label set; give a {RECORD}")
        for part in ("built_from", "files"):
            for name in dict.fromkeys([*self.record[part], *told.get(part, {})]):
                here, there = self.record[part].get(name), told.get(part, {}).get(name)
                if here != there:
                    raise InputError(
                        f"{expected}: expects {name} {there}, but the index of "
                        f"{self.record['built_from']['date']} gives {here}"
                    )

    def write(self, out: Path) -> None:
        """Write the folder; the same set gives the same bytes.

        Raises:
            InputError: it cannot be written.
        """
        make_folder(out)
        for name, text in self.files.items():
            if name.endswith(".json"):
                with replacing(out / f"{name}.gz") as beside:
                    beside.write_bytes(gzip.compress(text.encode(), mtime=0))
            else:
                write_text(out / name, text)
        write_text(out / RECORD, json.dumps(self.record, indent=2) + "\n")


def debian_set(files: IndexFiles, *, sample: int | None = None) -> DebianSet:
    """The label set of a package index; with `sample`, a closed part of it with so many documents.

    Raises:
        InputError: the index cannot be read, or no package names another one.
    """
    release = read_release(files.release) if files.release else None
    packages, packages_sum = read_table(files.packages)
    translation, translation_sum = read_table(files.translation)
    built_from = BuiltFrom(
        suite=release.suite if release else "unknown",
        date=release.date if release else "unknown",
        packages=packages_sum,
        translation=translation_sum,
        as_released=release and _as_released(release, packages_sum, translation_sum),
    )
    return xmc_files(read_packages(packages, translation), built_from, sample=sample)


def _as_released(release: Release, packages: str, translation: str) -> bool:
    listed = {
        digest
        for name, digest in release.sha256.items()
        if name.startswith(("main/binary-", "main/i18n/"))
    }
    return {packages, translation} <= listed


def xmc_files(
    packages: Sequence[Package], built_from: BuiltFrom, *, sample: int | None = None
) -> DebianSet:
    """The label set of these packages, in the shape that `XmcFolder` reads.

    Raises:
        InputError: no package names another one.
    """
    gold = _gold(packages)
    splits = _splits(packages, gold)
    if not all(splits.values()):
        raise InputError("fewer than four packages name another one; is the index cut off?")
    kept = list(range(len(packages)))
    if sample is not None:
        n_test = max(1, sample // TEST_SHARE)
        splits = {"train": splits["train"][: sample - n_test], "test": splits["test"][:n_test]}
        kept = _closed(packages, gold, splits)
    number = {old: new for new, old in enumerate(kept)}
    labels = [
        {"uid": one.name, "title": _title(one), "content": one.long}
        for one in (packages[old] for old in kept)
    ]
    files = {"lbl.json": _lines(labels)}
    filters = {
        split: {document: [document] for document in documents}
        for split, documents in splits.items()
    }
    asked = {(document, label) for document in splits["test"] for label in gold[document]}
    for document in splits["train"]:
        filters["train"][document] += [x for x in gold[document] if (x, document) in asked]
    for split, short in (("train", "trn"), ("test", "tst")):
        documents = [
            {
                "uid": packages[document].name,
                "title": _title(packages[document]),
                "content": packages[document].long,
                "target_ind": [number[label] for label in gold[document]],
                "target_rel": [1.0] * len(gold[document]),
            }
            for document in splits[split]
        ]
        files[f"{short}.json"] = _lines(documents)
        files[f"filter_labels_{split}.txt"] = "".join(
            f"{row} {number[label]}\n"
            for row, document in enumerate(splits[split])
            for label in filters[split][document]
        )
    files[SOURCES] = "".join(
        f"{packages[document].name}\t{packages[document].source}\n"
        for documents in splits.values()
        for document in documents
    )
    pairs = {split: sum(len(gold[one]) for one in splits[split]) for split in splits}
    record = {
        "built_from": asdict(built_from),
        "labels": len(kept),
        "documents": {split: len(documents) for split, documents in splits.items()},
        "right_labels": pairs,
        "left_out_of_training": sum(map(len, filters["train"].values())) - len(splits["train"]),
        "files": {name: hashlib.sha256(text.encode()).hexdigest() for name, text in files.items()},
    }
    return DebianSet(files, record)


def _gold(packages: Sequence[Package]) -> dict[int, list[int]]:
    """Right labels of every package that has any."""
    number = {one.name: at for at, one in enumerate(packages)}
    found = (
        [number[name] for name in one.related if name in number and name != one.name]
        for one in packages
    )
    return {at: labels for at, labels in enumerate(found) if labels}


def _splits(packages: Sequence[Package], gold: dict[int, list[int]]) -> dict[str, list[int]]:
    """Documents of each split, in the order of a hash of their names."""
    of_source: dict[str, list[int]] = {}
    for document in gold:
        of_source.setdefault(packages[document].source, []).append(document)
    left = len(gold) // TEST_SHARE
    test: set[int] = set()
    for source in sorted(of_source, key=_hash):
        if len(of_source[source]) <= left:
            test.update(of_source[source])
            left -= len(of_source[source])
    order = sorted(gold, key=lambda document: _hash(packages[document].name))
    return {
        "train": [document for document in order if document not in test],
        "test": [document for document in order if document in test],
    }


def _closed(
    packages: Sequence[Package], gold: dict[int, list[int]], splits: dict[str, list[int]]
) -> list[int]:
    """Labels that the documents need, and some that are easily taken for them; ascending."""
    from workbench.labels.retrieval import LabelRetriever

    documents = [document for some in splits.values() for document in some]
    titles = [_title(one) for one in packages]
    hard = LabelRetriever(titles).top([titles[one] for one in documents], N_HARD)
    needed = {label for document in documents for label in (document, *gold[document])}
    return sorted(needed | set(hard[hard >= 0].tolist()))


def _title(package: Package) -> str:
    return f"{package.name}: {package.short}" if package.short else package.name


def _lines(rows: Sequence[dict[str, Any]]) -> str:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def _hash(name: str) -> str:
    """A place in an order that no run and no machine changes."""
    return hashlib.sha256(name.encode()).hexdigest()
