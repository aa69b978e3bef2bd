"""Cells of tables that users hand in: ids, lists, blanks, and columns by other names."""

import ast
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from workbench.errors import InputError, shorten

_SHOWN = 3
"""Ids that a message names at most."""


def named_table(
    given: Any, columns: Mapping[str, str] | None, known: Sequence[str], what: str
) -> pd.DataFrame:
    """The table with its columns called as here."""
    try:
        table = given if isinstance(given, pd.DataFrame) else pd.DataFrame(given, dtype=object)
    except (TypeError, ValueError):
        raise InputError(f"{what}: needs a data frame, got {type(given).__name__}") from None
    wanted = {*known, *(columns or {}).values()}
    twice = [str(name) for name, n in Counter(table.columns).items() if n > 1 and name in wanted]
    if twice:
        raise InputError(f"{what} table has column {twice[0]!r} twice")
    renamed = dict(columns or {})
    for name, own in renamed.items():
        if name not in known:
            raise InputError(f"{what}: {name!r} is no column, one of {', '.join(known)} is needed")
        if own not in table:
            raise InputError(f"{what} table lacks column {own!r}")
    hidden = [name for name, own in renamed.items() if name != own and name in table]
    kept = table.drop(columns=[name for name in hidden if name not in renamed.values()])
    return kept.rename(columns={own: name for name, own in renamed.items()})


def listed(value: Any) -> list[Any] | None:
    """A list that is one, or that is written as Python or JSON write it; None if it is none."""
    if isinstance(value, str):
        if not value.strip().startswith(("[", "(")):
            return None
        for read in (json.loads, ast.literal_eval):
            try:
                value = read(value)
                break
            except (ValueError, SyntaxError, RecursionError):
                continue
        else:
            return None
    if isinstance(value, str | Mapping) or not hasattr(value, "__iter__"):
        return None if is_blank(value) or isinstance(value, str | Mapping) else [value]
    return list(value)


def word(value: Any) -> str:
    """An id as a string; whole numbers without what a column with gaps adds. Empty for none."""
    if is_blank(value):
        return ""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return str(value).strip()


def is_text(value: Any) -> bool:
    """Whether a cell holds words, in whole characters."""
    if not isinstance(value, str) or not value.strip():
        return False
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def is_blank(value: Any) -> bool:
    """Whether a cell holds nothing."""
    if value is None or (isinstance(value, str) and not value.strip()):
        return True
    return not hasattr(value, "__iter__") and bool(pd.isna(value))


def some(ids: Sequence[str] | Counter[str]) -> str:
    """The first ids, as a message names them."""
    first = [shorten(one) for one in list(ids)[:_SHOWN]]
    return ", ".join(first) + (" …" if len(ids) > _SHOWN else "")
