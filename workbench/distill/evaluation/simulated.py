"""Rows of a simulator: what a model read, its chain and its output, as a table and as tokens."""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from workbench.errors import InputError
from workbench.files import parse_json, read_text

QUESTION = "\noutput:"
"""Stands before the output of rows that have no question of their own."""
KIND = "chain"
TEXTS = ("input", "chain", "question", "output")
NEEDED = ("input", "chain", "output")


@dataclass(frozen=True)
class Asked:
    """One chain, and what is asked after it; all in tokens.

    Attributes:
        rows: places of the questions in the table.
        input: of the prompt.
        chain: without its answer.
        branches: question and output of each, the end token last.
        starts: where in each branch the output begins.
    """

    rows: tuple[int, ...]
    input: tuple[int, ...]
    chain: tuple[int, ...]
    branches: tuple[tuple[int, ...], ...]
    starts: tuple[int, ...]

    def prefix(self, seen: str) -> tuple[int, ...]:
        """What the simulator reads before the questions: "x", "e" or "xe"."""
        return (self.input if "x" in seen else ()) + (self.chain if "e" in seen else ())


def read_simulated(rows: Any) -> pd.DataFrame:
    """Rows as a table with id, kind, question, input, chain and output, and further columns.

    Raises:
        InputError: a file that cannot be read, a missing column, or an entry that is no text.
    """
    where = f"{rows}: " if isinstance(rows, str | Path) else ""
    if isinstance(rows, str | Path):
        lines = [line for line in read_text(rows).splitlines() if line.strip()]
        rows = []
        for number, line in enumerate(lines, start=1):
            try:
                rows.append(parse_json(line))
            except InputError as error:
                raise InputError(f"{where}line {number}: {error}") from None
            if not isinstance(rows[-1], Mapping):
                raise InputError(f"{where}line {number} is no object with {', '.join(NEEDED)}")
    table = rows.copy() if isinstance(rows, pd.DataFrame) else pd.DataFrame(list(rows))
    if missing := [name for name in NEEDED if name not in table]:
        raise InputError(f"{where}rows of a simulator need {', '.join(missing)}")
    if table.empty:
        raise InputError(f"{where}no rows to simulate")
    defaults = {"id": [f"row {n}" for n in range(len(table))], "question": QUESTION, "kind": KIND}
    for name, value in defaults.items():
        if name not in table:
            table[name] = value
        elif name != "id":
            table[name] = table[name].where(table[name].notna(), value)
    for name in (*TEXTS, "kind"):
        strange = [number for number, value in enumerate(table[name]) if not isinstance(value, str)]
        if strange:
            raise InputError(f"{where}row {strange[0] + 1}: {name} must be a text")
    for name in ("question", "output"):
        empty = [number for number, value in enumerate(table[name]) if not value.strip()]
        if empty:
            raise InputError(f"{where}row {empty[0] + 1}: {name} is empty")
    table["id"] = table["id"].astype(str)
    return table.reset_index(drop=True)


def split_by_id(table: pd.DataFrame, share: float, seed: int) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Rows to learn from, and those of a share of the prompts.

    Raises:
        InputError: a share outside 0 to 1, or too few prompts for both.
    """
    ids = sorted(set(table["id"]))
    n_test = round(share * len(ids))
    if not 0 < n_test < len(ids):
        raise InputError(
            f"{len(ids)} prompts cannot be split with a test share of {share:g}; both parts need "
            "at least one"
        )
    tested = random.Random(seed).sample(ids, n_test)
    held = table["id"].isin(tested)
    return table.loc[~held].reset_index(drop=True), table.loc[held].reset_index(drop=True)


def tokenized(table: pd.DataFrame, tokenizer: Any) -> list[Asked]:
    """Rows of the same prompt, kind and chain together, as each is read once for all of them."""

    def encoded(texts: Sequence[str]) -> dict[str, tuple[int, ...]]:
        distinct = list(dict.fromkeys(texts))
        found = tokenizer(distinct, add_special_tokens=False, split_special_tokens=True)
        return dict(zip(distinct, map(tuple, found["input_ids"]), strict=True))

    ids = {name: encoded(table[name].tolist()) for name in TEXTS}
    end = () if tokenizer.eos_token_id is None else (tokenizer.eos_token_id,)
    groups: dict[tuple[str, ...], list[int]] = {}
    for number, key in enumerate(table[["id", "kind", "input", "chain"]].itertuples(index=False)):
        groups.setdefault(tuple(key), []).append(number)
    found = []
    for (*_, given, chain), numbers in groups.items():
        asked = [ids["question"][table["question"].iloc[n]] for n in numbers]
        said = [ids["output"][table["output"].iloc[n]] for n in numbers]
        branches = tuple((*a, *b, *end) for a, b in zip(asked, said, strict=True))
        starts = tuple(map(len, asked))
        found.append(
            Asked(tuple(numbers), ids["input"][given], ids["chain"][chain], branches, starts)
        )
    return found
