"""Texts of documents and labels: JSON lines (`trn.json`, `lbl.json`), or a label a line (`Y.txt`).

A row without `uid` is called by its number, from 0. HTML entities in texts (`&amp;`) are the
characters that they stand for. `said` counts, by what was done, whatever is not taken as it is.
"""

import html
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

from workbench.errors import InputError, shorten
from workbench.files import parse_json
from workbench.labels.corpus import Document
from workbench.labels.lines import LONGEST_LABEL, bad_line, text_lines

UNDESCRIBED = "undescribed labels, without a text, whose id stands for it"
NOT_GOLD = "pairs of a document and a label with a relevance of 0 or less, which are not gold"
ENTITIES = "texts with HTML entities, which became their characters"
NO_UID = "rows without a uid, called by their number"

_ENTITY = re.compile(r"&(?:#[0-9]{1,7}|#[xX][0-9a-fA-F]{1,6}|[a-zA-Z][a-zA-Z0-9]{1,31});")


def unescaped(text: str, said: Counter[str]) -> str:
    """A text with the characters of its HTML entities; only what ends in `;` is one.

    `html.unescape` takes `&copyright` for one, too.
    """
    if "&" not in text or not _ENTITY.search(text):
        return text
    new = _ENTITY.sub(lambda found: html.unescape(found[0]), text)
    said[ENTITIES] += new != text
    return new


def documents(path: Path, n_labels: int, said: Counter[str]) -> Iterator[Document]:
    """The documents of a file with labels that are right, streamed; `ignored` is empty.

    Raises:
        InputError: with file and line, not JSON, a key missing or of the wrong type, a label number
            outside the label file, a uid for the second time.
    """
    seen: set[str] = set()
    for line, row in _objects(path, said):
        uid = _uid(path, line, row, seen, said)
        if row.get("title") is None and row.get("content") is None:
            raise bad_line(path, line, "no 'title' and no 'content'; a string is needed")
        title, content = (_text(path, line, row, key, said) for key in ("title", "content"))
        labels = _targets(path, line, row, n_labels, said)
        yield Document(id=uid, title=title, text=content, labels=tuple(labels))


def labels(path: Path, said: Counter[str]) -> tuple[list[str], list[str]]:
    """Uids and titles of the labels; label `i` is the one of line `i`, from 0.

    Raises:
        InputError: as `documents`; or a title that is too long, or none in the whole file.
    """
    uids: list[str] = []
    titles: list[str] = []
    seen: set[str] = set()
    for line, row in _objects(path, said):
        uids.append(_uid(path, line, row, seen, said))
        titles.append(label_text(path, line, _text(path, line, row, "title", said), uids, said))
    if not uids:
        raise InputError(f"{path}: holds no labels; one JSON object a line is needed")
    if said[UNDESCRIBED] == len(uids):
        raise InputError(f"{path}: no label has a 'title'; a string is needed")
    return uids, titles


def label_contents(path: Path) -> list[str]:
    """Long texts of the labels, empty where they have none.

    Raises:
        InputError: with file and line, not JSON, or something else than a string.
    """
    said = Counter[str]()
    return [_text(path, line, row, "content", said) for line, row in _objects(path, said)]


def label_lines(path: Path, n_labels: int, said: Counter[str]) -> tuple[list[str], list[str]]:
    """Numbers and texts of labels, a text a line; empty lines at the end count up to `n_labels`.

    Raises:
        InputError: no text at all, a matrix of numbers; or, with the line, a text that is too long.
    """
    lines = [line for _, line in text_lines(path, said, every=True)]
    while len(lines) > n_labels and not lines[-1].strip():
        lines.pop()
    if not any(line.strip() for line in lines):
        raise InputError(f"{path}: holds no labels; a text a line is needed")
    if _is_matrix(lines):
        what = "a matrix of numbers, and no texts; the texts of labels, one a line, are needed"
        raise InputError(f"{path}: {what}")
    ids: list[str] = []
    texts: list[str] = []
    for number, line in enumerate(lines, start=1):
        ids.append(str(number - 1))
        texts.append(label_text(path, number, unescaped(line, said), ids, said))
    return ids, texts


def _is_matrix(lines: list[str]) -> bool:
    """Whether "rows columns" and a row of "feature:value" begin the lines, as in some `Yf.txt`."""
    size, row = lines[0].split(), " ".join(lines[1:2]).split()
    pairs = [pair.partition(":") for pair in row]
    is_row = bool(pairs) and all(number.isdecimal() and colon for number, colon, _ in pairs)
    return len(size) == 2 and all(number.isdecimal() for number in size) and is_row


def label_text(path: Path, line: int, text: str, ids: list[str], said: Counter[str]) -> str:
    """The text of the label whose id is the last of `ids`, on one line; where it has none, that id.

    Raises:
        InputError: with file and line, a text that is too long for a label.
    """
    text = text.strip()
    if len(text.splitlines()) > 1:
        text = " ".join(text.split())
    if len(text) > LONGEST_LABEL:
        what = f"the label has {len(text):,} characters, at most {LONGEST_LABEL:,} are read"
        raise bad_line(path, line, f"{what}; is it a document?")
    said[UNDESCRIBED] += not text
    return text or ids[-1]


def _objects(path: Path, said: Counter[str]) -> Iterator[tuple[int, dict[str, Any]]]:
    for line, content in text_lines(path, said):
        try:
            row = parse_json(content) if content.strip() else None
        except InputError as error:
            raise bad_line(path, line, f"{error}; one object a line is needed") from None
        if not isinstance(row, dict):
            raise bad_line(path, line, "not a JSON object; one object a line is needed")
        yield line, row


def _uid(path: Path, line: int, row: dict[str, Any], seen: set[str], said: Counter[str]) -> str:
    uid = row.get("uid", line - 1)
    said[NO_UID] += "uid" not in row
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
    return uid


def _text(path: Path, line: int, row: dict[str, Any], key: str, said: Counter[str]) -> str:
    """The text of a key; empty where it is not there or null."""
    value = row.get(key)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise bad_line(path, line, f"no {key!r}; a string is needed")
    return unescaped(value, said)


def _targets(
    path: Path, line: int, row: dict[str, Any], n_labels: int, said: Counter[str]
) -> list[int]:
    def refuse(what: str) -> NoReturn:
        raise bad_line(path, line, what)

    targets = row.get("target_ind")
    if not isinstance(targets, list) or not all(type(target) is int for target in targets):
        refuse("no 'target_ind'; a list of label numbers is needed")
    for target in targets:
        if not 0 <= target < n_labels:
            refuse(f"target_ind has {target}, but labels go from 0 to {n_labels - 1}")
    relevances = row.get("target_rel")
    if isinstance(relevances, list):
        if len(relevances) != len(targets):
            refuse(f"target_rel has {len(relevances)} numbers, but target_ind has {len(targets)}")
        if not all(type(x) in (int, float) for x in relevances):
            refuse("target_rel has something else than numbers")
        said[NOT_GOLD] += sum(x <= 0 for x in relevances)
        pairs = zip(targets, relevances, strict=True)
        targets = [target for target, relevance in pairs if relevance > 0]
    return list(dict.fromkeys(targets))
