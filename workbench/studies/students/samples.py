"""Rows made into samples once for all students of a study, by all cores, and kept compactly."""

import json
import multiprocessing
import os
import pickle
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from workbench.distill.examples.chats import examples_from_chats
from workbench.errors import InputError
from workbench.files import replacing
from workbench.prompts.make import needed_tokenizer

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
    """Write the first `n` rows of a file, or of a folder of files, as samples; how many they are.

    Those that are not shorter than `context` are left out.

    Raises:
        InputError: no rows, or what `examples_from_chats` refuses.
    """
    files = sorted(rows.glob("*.jsonl")) if rows.is_dir() else [rows]
    if not files or not all(path.is_file() for path in files):
        raise InputError(f"{rows}: there are no rows; give a file of JSON lines, or their folder")
    lines = list(islice(_lines(files), n))
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
    with replacing(out) as path:
        path.write_bytes(pickle.dumps(packed, protocol=5))
    return len(packed)


def read_samples(path: Path) -> Samples:
    """What `make_samples` wrote."""
    return Samples(pickle.loads(path.read_bytes()))


def _lines(files: Sequence[Path]) -> Iterator[str]:
    for path in files:
        with path.open(encoding="utf-8") as lines:
            yield from (line for line in lines if line.strip())


def _packed(lines: Sequence[str], folder: str, context: int) -> list[dict[str, Any]]:
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    tokenizer = _TOKENIZERS.get(folder) or needed_tokenizer(Path(folder))
    _TOKENIZERS[folder] = tokenizer
    samples = examples_from_chats([json.loads(line) for line in lines], tokenizer)
    return [
        {
            name: np.array(value, dtype=np.float32 if name == "weights" else np.int32)
            if isinstance(value, list)
            else value
            for name, value in sample.items()
        }
        for sample in samples
        if len(sample["ids"]) < context
    ]


_TOKENIZERS: dict[str, Any] = {}
