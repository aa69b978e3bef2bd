"""ICD-10-CM: every leaf code of the official tabular list, from the package simple-icd-10-cm.

That package parses 10 MB of XML when it is imported, so it is imported only to build a JSON cache
in the user's cache folder, once for each of its releases.
"""

import json
from collections.abc import Iterable, Sequence
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

from workbench.errors import InputError
from workbench.files import read_json, write_text
from workbench.labels.cache import user_cache
from workbench.labels.space import Label, LabelSpace

NAME = "icd10cm"
_CACHE_FORMAT = 1


def load_icd10cm(cache_dir: Path | None = None, *, min_cluster_size: int = 4) -> LabelSpace:
    """All leaf codes, dotted, with descriptions, inclusion terms, and parents up to the category.

    The last ancestor of a label is its three-character category; a code that is itself a category
    has itself as its only ancestor. While the cache is the same file, so is the label space.
    """
    cache_dir = cache_dir or user_cache()
    if cache_dir is None:
        return _space(_parse_package(), min_cluster_size)
    path = cache_dir / f"icd10cm-{version('simple-icd-10-cm')}-{_CACHE_FORMAT}.json"
    try:
        return _read(path, _state(path), min_cluster_size)
    except (OSError, ValueError, TypeError):  # not there, or damaged
        rows = _parse_package()
    try:
        write_text(path, json.dumps(rows))
        return _read(path, _state(path), min_cluster_size)
    except (OSError, InputError):  # a read-only home costs two seconds at every start, nothing else
        return _space(rows, min_cluster_size)


def _state(path: Path) -> tuple[int, int, int]:
    """Another one when the file is written again."""
    found = path.stat()
    return found.st_ino, found.st_mtime_ns, found.st_size


@lru_cache(maxsize=4)
def _read(path: Path, state: tuple[int, int, int], min_cluster_size: int) -> LabelSpace:
    """The labels of a cache, read once: a command asks for them up to four times."""
    return _space(read_json(path), min_cluster_size)


def _space(rows: Iterable[Sequence[Any]], min_cluster_size: int) -> LabelSpace:
    labels = (Label(i, text, tuple(above), tuple(synonyms)) for i, text, above, synonyms in rows)
    return LabelSpace(NAME, labels, min_cluster_size=min_cluster_size)


def category(code: str) -> str:
    """The three-character category of a code, e.g. `E11` of `E11.65`."""
    return code[:3]


def _parse_package() -> list[tuple[str, str, list[str], list[str]]]:
    import simple_icd_10_cm as icd

    rows: dict[str, tuple[str, str, list[str], list[str]]] = {}
    for code in icd.get_all_codes(with_dots=True):
        if icd.is_category_or_subcategory(code) and icd.is_leaf(code):
            ancestors = _ancestors(icd, code)
            rows[code] = (code, icd.get_description(code), ancestors, icd.get_inclusion_term(code))
    return list(rows.values())


def _ancestors(icd: Any, code: str) -> list[str]:
    # Stops at the category: above it a block may bear the category's own name, which the package
    # resolves to the category again, without end.
    nodes = []
    while code != category(code):
        code = icd.get_parent(code)
        nodes.append(code)
    return nodes or [code]
