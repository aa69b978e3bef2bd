"""Debian's package index, as apt keeps it: `Packages`, `Translation-en` and `InRelease`.

Both tables are paragraphs of `Field: value` lines, continued by lines that begin with a blank
(deb-control(5)). Short descriptions stand in `Packages`, long ones in `Translation-en`, the two
joined by package and `Description-md5`.
"""

import bz2
import gzip
import hashlib
import io
import lzma
import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from workbench.errors import InputError
from workbench.files import read_text, reading

APT_LISTS = Path("/var/lib/apt/lists")
GET_DESCRIPTIONS = "apt-get -o Acquire::Languages=en update"
"""What brings the long descriptions to a machine that leaves them out."""
_PACKAGES = re.compile(
    r"(?P<before>.*_dists_(?P<suite>.+))_main_binary-(?P<arch>[^_]+)_Packages(?:\.\w+)?"
)
_NOT_WHOLE = re.compile(r".*-(?:updates|security|backports|proposed-updates)|.*_updates")
"""Suites of changes to another one."""


@dataclass(frozen=True)
class Package:
    """One package: its texts, the source it is built from, and the packages it names.

    Attributes:
        name: of the binary package, distinct.
        source: of the source package, which siblings share.
        short: one line.
        long: several, as the text of a page; may be empty.
        related: first alternative of each relation, in the order of the index, each once.
    """

    name: str
    source: str
    short: str
    long: str = field(repr=False)
    related: tuple[str, ...]


@dataclass(frozen=True)
class IndexFiles:
    """The two tables, and the signed file that says which day's they are, if there is one."""

    packages: Path
    translation: Path
    release: Path | None = None


def find_index(
    lists: Path = APT_LISTS, suite: str | None = None, arch: str | None = None
) -> IndexFiles:
    """The tables of one suite's `main` among apt's lists.

    Unless `suite` names one: no lists of other distributors, and no suite that holds only changes
    to another one (updates, security, backports).

    Raises:
        InputError: no such folder, none or several to choose from, or no `Translation-en`.
    """
    if not lists.is_dir():
        raise InputError(f"{lists}: no such folder; give --packages and --translation")
    names = [path.name for path in sorted(lists.iterdir())]
    found = [one for name in names if (one := _PACKAGES.fullmatch(name))]
    chosen = [
        one
        for one in found
        if arch in (None, one["arch"]) and (one["suite"] == suite if suite else _whole(lists, one))
    ]
    if len(chosen) != 1:
        have = ", ".join(f"{one['suite']} ({one['arch']})" for one in found) or "none"
        what = "several indexes of main" if chosen else "no such index of main"
        way = "give --suite and --arch" if found else "run apt-get update"
        raise InputError(f"{lists}: {what} to choose from; it has {have}; {way}")
    [one] = chosen
    texts = [name for name in names if name.startswith(f"{one['before']}_main_i18n_Translation-en")]
    if not texts:
        raise InputError(f"{lists}: no long descriptions of {one['suite']}; run {GET_DESCRIPTIONS}")
    return IndexFiles(lists / one[0], lists / texts[0], _release_of(lists, one))


def _release_of(lists: Path, one: re.Match[str]) -> Path | None:
    paths = [lists / f"{one['before']}_{name}" for name in ("InRelease", "Release")]
    return next((path for path in paths if path.is_file()), None)


def _whole(lists: Path, one: re.Match[str]) -> bool:
    """Whether it is a suite of Debian itself, and not one of changes."""
    if _NOT_WHOLE.fullmatch(one["suite"]):
        return False
    release = _release_of(lists, one)
    return release is None or "\nOrigin: Debian\n" in read_text(release)


def read_table(path: Path) -> tuple[bytes, str]:
    """A table as it is unpacked, and its SHA-256; packed as apt or an archive packs it.

    Raises:
        InputError: it cannot be read, or is broken.
    """
    with reading(path):
        packed = path.read_bytes()
    try:
        content = _unpacked(packed, path.suffix)
    except (OSError, EOFError, ValueError, lzma.LZMAError, zlib.error):
        raise InputError(f"{path}: broken or cut off; run apt-get update again") from None
    return content, hashlib.sha256(content).hexdigest()


def _unpacked(packed: bytes, suffix: str) -> bytes:
    match suffix:
        case ".gz":
            return gzip.decompress(packed)
        case ".xz":
            return lzma.decompress(packed)
        case ".bz2":
            return bz2.decompress(packed)
        case ".lz4" | ".zst":
            import pyarrow as pa

            stream: Any = pa.CompressedInputStream(
                io.BytesIO(packed), {".lz4": "lz4", ".zst": "zstd"}[suffix]
            )
            return stream.read()
    return packed


def read_packages(packages: bytes, translation: bytes) -> list[Package]:
    """All packages in the order of the index; of two versions the first.

    Raises:
        InputError: the tables are not what they should be, or no long description fits.
    """
    long = {
        (row.get("Package", ""), row.get("Description-md5", "")): row.get("Description-en", "")
        for row in _paragraphs(translation, "Translation-en")
    }
    found: dict[str, Package] = {}
    n_long = 0
    for row in _paragraphs(packages, "Packages"):
        name, described = row.get("Package", ""), row.get("Description", "")
        if not name or name in found:
            continue
        short, _, own = described.partition("\n")
        told = long.get((name, row.get("Description-md5", "")), "").partition("\n")[2]
        n_long += bool(told)
        found[name] = Package(
            name=name,
            source=row.get("Source", name).split()[0],
            short=" ".join(short.split()),
            long=_as_page(told or own),
            related=_related(row),
        )
    if not found:
        raise InputError("the package index names no package; is it a file named Packages?")
    if not n_long:
        raise InputError(
            "no long description fits the package index; are both of one suite and day?"
        )
    return list(found.values())


RELATIONS = ("Recommends", "Suggests", "Enhances")
_NAME = re.compile(r"[a-z0-9][a-z0-9+.\-]*")


def _related(row: dict[str, str]) -> tuple[str, ...]:
    """The first of the alternatives `a (>= 1) | b` of each relation: the one a maintainer means."""
    names = [
        name[0]
        for relation in RELATIONS
        for one in row.get(relation, "").split(",")
        if (name := _NAME.match(one.strip()))
    ]
    return tuple(dict.fromkeys(names))


def _as_page(long: str) -> str:
    """The lines without the blank that each begins with; a lone dot is an empty line."""
    lines = ["" if line.strip() == "." else line[1:] for line in long.split("\n")]
    return "\n".join(lines).strip()


def _paragraphs(table: bytes, name: str) -> Iterator[dict[str, str]]:
    try:
        text = table.decode()
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise InputError(f"{name}: line {line} is not UTF-8") from None
    for paragraph in text.split("\n\n"):
        row: dict[str, str] = {}
        key = ""
        for line in paragraph.split("\n"):
            if line[:1] in (" ", "\t"):
                row[key] = f"{row.get(key, '')}\n{line}"
            elif line:
                key, _, value = line.partition(":")
                row[key] = value.strip()
        if row:
            yield row


@dataclass(frozen=True)
class Release:
    """Which day's index it is, and the hashes of its tables, by their path below the suite."""

    suite: str
    date: str
    sha256: dict[str, str] = field(repr=False)


def read_release(path: Path) -> Release:
    """What `InRelease` says; its signature is apt's business.

    Raises:
        InputError: it cannot be read, or has no date.
    """
    text = read_text(path)
    told = dict(re.findall(r"^(Codename|Version|Date): (.+)$", text, re.MULTILINE))
    if "Date" not in told:
        raise InputError(f"{path}: no line 'Date: …'; is it an InRelease file?")
    sums = text.partition("\nSHA256:\n")[2]
    rows = re.findall(r"^ ([0-9a-f]{64}) +\d+ (\S+)$", sums, re.MULTILINE)
    suite = " ".join(told[key] for key in ("Codename", "Version") if key in told)
    return Release(suite, told["Date"], {name: digest for digest, name in rows})
