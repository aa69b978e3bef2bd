"""A student's folder: its files, whose it is, and where its training goes on or ends."""

import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedTokenizerBase
from transformers.trainer import TRAINER_STATE_NAME
from transformers.trainer_callback import TrainerState
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

from workbench.distill.given import RECORD, check_new
from workbench.distill.losses.compiling import unfuse
from workbench.distill.reading.parts import attention_modules, plain_model
from workbench.distill.training.card import student_card
from workbench.distill.training.sources import CARD
from workbench.distill.training.trainer import MechanisticDistillationTrainer
from workbench.errors import InputError
from workbench.files import alone, claim, make_folder, write_text
from workbench.models import adapters, folders

HEADMAP = "headmap.json"
READOUT = "readout.parquet"
TRACES = "traces.jsonl"
WORK = "checkpoints"
ASKED = "asked.json"
TAUGHT = "traces.json"
KIND = "a distillation"


@contextmanager
def held(out: Path) -> Iterator[None]:
    """The only process that trains into a folder, or the first of those that do so together.

    Raises:
        InputError: another one does, or the student in it is finished.
    """
    check_new(out)
    make_folder(out)  # what is refused is the folder that the user gave, none in it
    busy = f"{out}: another process is training into it; give another --out"
    with alone(out / WORK / ".lock", busy):
        yield


def claim_folder(out: Path, asked: Mapping[str, Any], *, first: bool = True) -> None:
    """Refuse a folder that was begun with other settings.

    Settings hold from the first checkpoint on: a start that failed before it binds nobody, so the
    first of the processes clears away what it left, all but traces, which say themselves what they
    are.

    Raises:
        InputError: says which settings differ.
    """
    if first and last_checkpoint(out) is None:
        for path in (out / HEADMAP, out / READOUT, out / WORK / ASKED, out / WORK / TAUGHT):
            path.unlink(missing_ok=True)
    claim(out, out / WORK / ASKED, asked, KIND)


def last_checkpoint(out: Path) -> str | None:
    """The newest checkpoint that was written whole: its state, which is written last, is there."""
    numbered = {}
    for folder in (out / WORK).glob(f"{PREFIX_CHECKPOINT_DIR}-*"):
        number = folder.name.rpartition("-")[2]
        try:
            TrainerState.load_from_json(str(folder / TRAINER_STATE_NAME))
        except (OSError, ValueError, TypeError, RecursionError):
            continue
        if number.isdecimal():
            numbered[int(number)] = str(folder)
    return numbered[max(numbered)] if numbered else None


def write_student(
    out: Path,
    trainer: MechanisticDistillationTrainer,
    tokenizer: PreTrainedTokenizerBase | None,
    record: Mapping[str, Any],
    *,
    base: tuple[str, str | None] | None = None,
) -> None:
    """The model's folder and its card, then the record, which marks it as finished.

    Then no checkpoints. An adapter is merged, unless `base` says how it names its base, and its
    revision.

    Raises:
        InputError: the Trainer wrote no weights, or the adapter cannot be merged; the checkpoints
            are kept.
    """
    sharding = trainer.accelerator.state.fsdp_plugin if trainer.is_fsdp_enabled else None
    if sharding is not None:  # of shards, in which checkpoints may be written, it makes no model
        sharding.set_state_dict_type("FULL_STATE_DICT")
    if record["config"].get("lora") is None:
        trainer.save_model(str(out))
    if not trainer.is_world_process_zero():
        return
    if record["config"].get("lora") is not None:
        learner = trainer.accelerator.unwrap_model(trainer.model, keep_fp32_wrapper=False)
        _write_adapted(out, learner, base)  # without the autocast of mixed precision
    (out / "training_args.bin").unlink(missing_ok=True)  # a pickle, which nothing here reads
    try:
        if base is None:
            folders.weight_files(out)
        else:
            adapters.read_settings(out)
    except InputError as error:
        raise InputError(f"{error}; the last checkpoint is kept in {out / WORK}") from None
    if tokenizer is not None:
        tokenizer.save_pretrained(out)
    write_text(out / CARD, student_card(record))
    write_text(out / RECORD, json.dumps(record, indent=1))
    shutil.rmtree(out / WORK, ignore_errors=True)


def _write_adapted(out: Path, model: Any, base: tuple[str, str | None] | None) -> None:
    if base is not None:
        adapters.save(model, out, base=base[0], revision=base[1], dtype=torch.float32)
        return
    unfuse(attention_modules(plain_model(model))[1])  # what was compiled knows the adapter
    adapters.unload(model.eval(), f"the student's adapter ({out})").save_pretrained(out)
