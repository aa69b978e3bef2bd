"""Chains for rows: as a task's rule has them, or as a teacher writes them, in large batches."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import torch

from workbench.distill.examples.row_files import BLOCK, Draws, Writer, drawn_rows, write_rows
from workbench.errors import InputError
from workbench.models import loading
from workbench.models.drafted import drafted_tokens
from workbench.predicting.model import load_plain
from workbench.progress import Reporter, beating
from workbench.prompts.choices import open_task
from workbench.prompts.templates import PlainTemplate
from workbench.prompts.text import encode_many

AHEAD = 8
"""Batches of drafts that are checked before those that do not help are written on, together."""


def write_task_rows(
    out: Path,
    task: str,
    folder: Path,
    draws: Draws,
    *,
    by: Literal["teacher", "rule"] = "teacher",
    room: int = 768,
    batch_size: int = 128,
    device: str | None = None,
    reporter: Reporter | None = None,
) -> int:
    """Rows of a task's prompts over the labels that a model was trained on; see `write_rows`.

    Args:
        out: the file of rows.
        task: name of a task that has chains and answers.
        folder: the teacher's, which may say what it was trained on.
        draws: which draws.
        by: who writes the chains; with the rule every row is right, and no weights are read.
        room: tokens that a chain and its answer may take.
        batch_size: chains written together.
        device: an accelerator if there is one.
        reporter: where progress is told.

    Returns:
        how many rows the file holds.

    Raises:
        InputError: no such task, or one without chains; a teacher without a tokenizer or an end
            token; what `write_rows` refuses.
    """
    reporter = reporter or Reporter()
    source = open_task(task, model=folder, split="seen", full_size=False)
    settings: dict[str, Any] = {**source.settings(), "split": "seen", "by": by}
    write, block = None, BLOCK
    if by == "teacher":
        settings |= {"teacher": loading.weights_sha256(folder), "room": room}
        write = _teacher(folder, device, room, batch_size, reporter)
        block = AHEAD * batch_size
    with reporter.step("rows", len(draws.numbers), "draws") as advance:
        made = drawn_rows(source, draws.seed, write)
        return write_rows(out, made, draws, settings, block=block, progress=advance)


def _teacher(
    folder: Path, device: str | None, room: int, batch_size: int, reporter: Reporter
) -> Writer:
    place = str(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    with reporter.step("teacher"), beating():
        dtype = "float32" if place.startswith("cpu") else "bfloat16"
        model = load_plain(folder, dtype=dtype, device=place, reporter=reporter)
    return teacher_writer(model.hf, model.tokenizer, max_new_tokens=room, batch_size=batch_size)


def teacher_writer(
    model: Any, tokenizer: Any, *, max_new_tokens: int, batch_size: int, end: int | None = None
) -> Writer:
    """Lets a model write behind the reason cue, greedily; what the rule would write is its draft.

    A text that has no end after `max_new_tokens` is cut, so that it has no whole answer.

    Args:
        model: a Hugging Face causal language model.
        tokenizer: its own, of the fast kind.
        max_new_tokens: of a chain and its answer.
        batch_size: chains written together.
        end: token that ends a text; the tokenizer's unless given.

    Raises:
        InputError: the tokenizer names no end token or is not of the fast kind.
    """
    end = tokenizer.eos_token_id if end is None else end
    if end is None:
        raise InputError("the tokenizer names no end token, so chains would never end")

    def write(prompts: Sequence[str], rule: Sequence[str]) -> list[str]:
        asked = [prompt + PlainTemplate.reason_cue for prompt in prompts]
        known = _encoded(tokenizer, asked)
        whole = _encoded(tokenizer, [a + b for a, b in zip(asked, rule, strict=True)])
        # Where prompt and chain share a token there is no draft.
        drafts = [
            ids[len(before) :] if ids[: len(before)] == before else []
            for before, ids in zip(known, whole, strict=True)
        ]
        written = drafted_tokens(
            model, known, drafts, max_new_tokens=max_new_tokens, end=end, batch_size=batch_size
        )
        texts = tokenizer.batch_decode(written, clean_up_tokenization_spaces=False)
        return [
            text if len(ids) < max_new_tokens else ""
            for text, ids in zip(texts, written, strict=True)
        ]

    return write


def _encoded(tokenizer: Any, texts: Sequence[str]) -> list[list[int]]:
    return [ids for ids, _ in encode_many(tokenizer, texts, [(0, len(text)) for text in texts])]
