"""Rows made into samples once for all students of a study, by all cores, and kept compactly.

The file is safetensors. Of each key of the samples it has two arrays: `KEY`, the entries of all
samples one after the other, and `KEY/n`, how many each sample has, `ABSENT` where it lacks the key.
Its metadata name the schema and, for each key, whether it is a list or one number.
"""

import json
import multiprocessing
import os
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from workbench.distill.examples.chats import examples_from_chats
from workbench.distill.examples.rows import Line, row_lines
from workbench.errors import InputError
from workbench.files import reading, replacing
from workbench.prompts.make import needed_tokenizer

SCHEMA = "workbench samples 1"
ABSENT = -1
CHUNK = 64
"""Rows that a process takes at a time."""


class Samples(Sequence[dict[str, Any]]):
    """Samples of `examples_from_chats`, whose lists are arrays until one is asked for."""

    def __init__(self, packed: Sequence[dict[str, Any]]) -> None:
        self._packed = packed

    def __len__(self) -> int:
        return len(self._packed)

    def __getitem__(self, index: Any) -> Any:
        return {
            name: value.tolist() if isinstance(value, np.ndarray) else value
            for name, value in self._packed[index].items()
        }

    def of(self, chosen: Sequence[int]) -> "Samples":
        """Those of these numbers."""
        return Samples([self._packed[at] for at in chosen])


def make_samples(rows: Path, folder: Path, context: int, n: int, out: Path) -> int:
    """Write the first `n` rows of a file, or of a folder of all its parts; how many samples it is.

    Those that are not shorter than `context` are left out.

    Raises:
        InputError: no rows, files that `row_files` refuses, or what `examples_from_chats` refuses.
    """
    lines = list(islice(row_lines(rows), n))
    if not lines:
        raise InputError(f"{rows}: there are no rows")
    chunks = [lines[at : at + CHUNK] for at in range(0, len(lines), CHUNK)]
    n_processes = min(len(os.sched_getaffinity(0)), len(chunks))
    given = [(chunk, str(folder), context) for chunk in chunks]
    if n_processes > 2:
        # Forked: this process holds no device, and each imports nothing anew.
        with multiprocessing.get_context("fork").Pool(n_processes) as pool:
            found = pool.starmap(_packed, given)
    else:
        found = [_packed(*one) for one in given]
    packed = [sample for chunk in found for sample in chunk]
    if not packed:
        raise InputError(f"{rows}: no row has fewer than {context} tokens")
    _write(packed, out)
    return len(packed)


def read_samples(path: Path) -> Samples:
    """What `make_samples` wrote.

    Raises:
        InputError: it cannot be read, is of another kind, or damaged.
    """
    try:
        with reading(path), safe_open(path, framework="np") as file:
            about = json.loads((file.metadata() or {})["samples"])
            if about["schema"] != SCHEMA:
                raise ValueError("of another schema")
            columns = {
                name: (is_list, file.get_tensor(f"{name}/n"), file.get_tensor(name))
                for name, is_list in about["keys"].items()
            }
        return Samples(_unpacked(columns))
    except InputError:
        raise
    except (SafetensorError, ValueError, LookupError, TypeError, AttributeError):
        raise InputError(
            f"{path}: holds no samples ({SCHEMA!r}) or is damaged; delete it, and it is made again"
        ) from None


def _write(packed: Sequence[dict[str, Any]], out: Path) -> None:
    keys: dict[str, bool] = {}
    for sample in packed:
        for name, value in sample.items():
            is_list = isinstance(value, np.ndarray)
            assert keys.setdefault(name, is_list) == is_list, f"{name} is a list or a number"
    arrays: dict[str, np.ndarray] = {}
    for name in keys:
        values = [np.atleast_1d(sample[name]) if name in sample else None for sample in packed]
        # Without those of no entries: they have lost how many numbers an entry has.
        entries = [value for value in values if value is not None and len(value)]
        arrays[name] = np.concatenate(entries or [np.zeros(0)]).astype(_dtype(name), copy=False)
        counts = [ABSENT if value is None else len(value) for value in values]
        arrays[f"{name}/n"] = np.array(counts, dtype=np.int32)
    about = json.dumps({"schema": SCHEMA, "keys": keys})
    with replacing(out) as path:
        save_file(arrays, path, {"samples": about})


def _unpacked(columns: dict[str, tuple[bool, np.ndarray, np.ndarray]]) -> list[dict[str, Any]]:
    """Samples whose arrays are parts of the whole ones.

    Raises:
        ValueError: there are not as many samples or entries as are counted.
    """
    n = max(len(counts) for _, counts, _ in columns.values())
    samples: list[dict[str, Any]] = [{} for _ in range(n)]
    for name, (is_list, counts, entries) in columns.items():
        ends = np.maximum(counts, 0).cumsum(dtype=np.int64)
        possible = counts.min() >= ABSENT if is_list else np.isin(counts, (ABSENT, 1)).all()
        if len(counts) != n or not possible or ends[-1] != len(entries):
            raise ValueError(f"{name} is not as long as is counted")
        if is_list:
            for sample, count, end in zip(samples, counts.tolist(), ends.tolist(), strict=True):
                if count != ABSENT:
                    sample[name] = entries[end - count : end]
        else:
            having = (one for one, count in zip(samples, counts, strict=True) if count != ABSENT)
            for sample, value in zip(having, entries.tolist(), strict=True):
                sample[name] = value
    return samples


def _dtype(name: str) -> Any:
    return np.float32 if name == "weights" else np.int32


def _packed(lines: Sequence[Line], folder: str, context: int) -> list[dict[str, Any]]:
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    tokenizer = _TOKENIZERS.get(folder) or needed_tokenizer(Path(folder))
    _TOKENIZERS[folder] = tokenizer
    return [
        {
            name: np.array(value, dtype=_dtype(name)) if isinstance(value, list) else value
            for name, value in sample.items()
        }
        for sample in examples_from_chats(lines, tokenizer)
        if len(sample["ids"]) < context
    ]


_TOKENIZERS: dict[str, Any] = {}
