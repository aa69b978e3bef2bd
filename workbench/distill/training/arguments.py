"""Which of the Trainer's arguments go with our loss, and with activations that are read."""

import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import Any

import torch
from transformers import Trainer, TrainingArguments, get_scheduler
from transformers.integrations import get_reporting_integration_callbacks  # pyright: ignore[reportPrivateImportUsage]

from workbench.distill.config import DistillationConfig
from workbench.distill.reading.wanted import Wanted
from workbench.errors import InputError, first_line
from workbench.organism.trainer_settings import trainer_settings

NAMES = {field.name for field in fields(TrainingArguments)}
SETTINGS = {
    "output_dir": "--out",
    "max_steps": "--steps",
    "per_device_train_batch_size": "--batch-size",
    "gradient_accumulation_steps": "--accumulation",
    "learning_rate": "--learning-rate",
    "warmup_steps": "--warmup-steps",
    "weight_decay": "--weight-decay",
    "bf16": "--bf16",
    "seed": "--seed",
    "data_seed": "--seed",
    "save_steps": "--checkpoint-every",
    "dataloader_num_workers": "--workers",
    "remove_unused_columns": "the collator, which needs all columns",
}
"""Arguments that other settings decide, with the flag of each."""
RENAMED = {
    "gradient_checkpointing": "activation_checkpointing",
    "gradient_checkpointing_kwargs": "activation_checkpointing_kwargs",
}
"""Old names, which still hold and which newer releases warn of, and their new ones."""
HUB = ("push_to_hub", "hub_")
"""How arguments begin that send something to the hub."""
REFUSED = {
    "eval_strategy": ("no", "there are no examples to evaluate on; see evaluate-students"),
    "resume_from_checkpoint": (None, "a stopped student goes on by itself, with the same --out"),
    "train_sampling_strategy": ("random", "examples come as drawn; leave it out"),
}
"""Arguments that would be ignored or fail later: the value that each may have, and why."""


def trainer_arguments(
    out: Path,
    config: DistillationConfig,
    workers: int,
    checkpoint_every: int,
    further: Mapping[str, Any],
) -> TrainingArguments:
    """The Trainer's arguments for a distillation into `out`, with further ones of the user's.

    Raises:
        InputError: a further one that there is not, is another setting, or is refused; a service to
            report to that is unknown or not installed.
    """
    for name in further:
        if name not in NAMES:
            raise InputError(f"trainer: TrainingArguments has no {name!r}")
        if name in SETTINGS:
            raise InputError(f"trainer: {name} is set by {SETTINGS[name]}")
        if name.startswith(HUB) and further[name] not in (None, False):
            # From the folder that is worked in: checkpoints' weights with a pickle, no record.
            raise InputError(
                f"trainer: {name}: the Trainer would push what it works with, not the student; "
                "leave it out, and push the finished folder (hf upload ORG/NAME FOLDER --exclude "
                "traces.jsonl)"
            )
    settings = trainer_settings(config, workers=workers, checkpoint_every=checkpoint_every)
    settings |= {
        "output_dir": str(out),
        "gradient_accumulation_steps": config.accumulation,
        "bf16": config.bf16,
        # What is read of the student lies outside the outputs of its forward.
        "ddp_find_unused_parameters": False,
    }
    given = {_present(name, further): value for name, value in further.items()}
    try:
        made = TrainingArguments(**{**settings, **given})
    except (TypeError, ValueError, ImportError) as error:
        raise InputError(f"trainer: {first_line(error)}") from None
    for name, (allowed, why) in REFUSED.items():
        if getattr(made, name, allowed) != allowed:
            raise InputError(f"trainer: {name}: {why}")
    for name in _services(made):
        _check_reporter(name)
    _check_optimizer(made)
    return made


def _present(name: str, given: Mapping[str, Any]) -> str:
    """The name that an argument has in this release, unless both are given."""
    new = RENAMED.get(name, name)
    return new if new in NAMES and new not in given else name


def _services(args: TrainingArguments) -> list[str]:
    """That losses are reported to."""
    given = args.report_to
    return [given] if isinstance(given, str) else list(given or ())


def _check_reporter(name: str) -> None:
    try:
        for callback in get_reporting_integration_callbacks([name]):
            callback()
    except (ValueError, ImportError, RuntimeError) as error:  # unknown, or not installed
        raise InputError(f"report_to {name}: {first_line(error)}") from None


def _check_optimizer(args: TrainingArguments) -> None:
    """Refuse an optimiser that is not installed, or one or a schedule that cannot be made so."""
    some = torch.nn.Linear(2, 2).to(args.device)
    made: Any = None
    with optimizing(args):
        try:
            kind, how = Trainer.get_optimizer_cls_and_kwargs(args, some)  # pyright: ignore
        except ValueError:
            if args.optim_target_modules is None:
                raise
            return  # of the student's modules, which are not these
        if isinstance(kind, type) and issubclass(kind, torch.optim.Optimizer):
            made = kind(**{"params": some.parameters(), **how})
    if made is None:
        return
    try:
        get_scheduler(
            args.lr_scheduler_type,
            optimizer=made,
            num_warmup_steps=args.get_warmup_steps(args.max_steps),
            num_training_steps=args.max_steps,
            scheduler_specific_kwargs=args.lr_scheduler_kwargs,  # pyright: ignore
        )
    except (ImportError, ValueError, TypeError) as error:
        kind = getattr(args.lr_scheduler_type, "value", args.lr_scheduler_type)
        raise InputError(f"trainer: lr_scheduler_type {kind}: {first_line(error)}") from None


@contextmanager
def optimizing(args: TrainingArguments) -> Iterator[None]:
    """Say in a line why an optimiser cannot be made.

    Raises:
        InputError: it is not installed, or does not take its arguments.
    """
    try:
        yield
    except (ImportError, ValueError, TypeError, NotImplementedError) as error:
        name = getattr(args.optim, "value", args.optim)
        why = first_line(error)
        raise InputError(
            f"trainer: optim {name}: {why}; without it, AdamW of torch is taken"
        ) from None


@contextmanager
def reporting(args: TrainingArguments) -> Iterator[None]:
    """Say in a line what a service that losses are reported to refuses, as a login does.

    And which package is missing that an argument of the Trainer needs.

    Raises:
        InputError: an exception of one of the packages in `report_to`, or an import that failed in
            the Trainer's own packages.
    """
    try:
        yield
    except Exception as error:
        at = Path(traceback.extract_tb(error.__traceback__)[-1].filename).parts
        if isinstance(error, ImportError) and ("transformers" in at or "accelerate" in at):
            raise InputError(f"trainer: {first_line(error)}") from error
        package = type(error).__module__.partition(".")[0]
        if package not in _services(args):
            raise
        raise InputError(f"report_to {package}: {first_line(error)}") from error


def check_arguments(args: TrainingArguments, wanted: Wanted, model: Any, loss: Any = None) -> None:
    """Refuse what would be ignored, or would change what is read.

    Args:
        args: what they say of activation checkpointing is completed: without reentry.
        wanted: what is read of the student.
        model: the student.
        loss: the Trainer's `compute_loss_func`.

    Raises:
        InputError: a loss function or label smoothing, which our loss does not know; where anything
            is read besides logits, compilation or activation checkpointing with reentry.
    """
    if loss is not None:
        raise InputError("compute_loss_func would not be called; write a loss term instead")
    if args.label_smoothing_factor:
        raise InputError(
            f"label_smoothing_factor {args.label_smoothing_factor:g} is no part of the loss on "
            "chains; leave it at 0"
        )
    if not wanted.maps:
        return
    if args.torch_compile:
        raise InputError("torch_compile cannot be used where activations are read; turn it off")
    for name in ("activation_checkpointing", "gradient_checkpointing"):
        if getattr(args, name, False):
            given = getattr(args, f"{name}_kwargs") or {}
            setattr(args, f"{name}_kwargs", {"use_reentrant": False, **given})
            _refuse_reentry(given.get("use_reentrant"))
    for module in model.modules():
        if getattr(module, "gradient_checkpointing", False):
            how = getattr(module, "_gradient_checkpointing_func", None)
            _refuse_reentry(getattr(how, "keywords", {}).get("use_reentrant"))


def _refuse_reentry(reentrant: bool | None) -> None:
    if reentrant:
        raise InputError(
            "activation checkpointing with use_reentrant=True gives what is read no gradient; set "
            "use_reentrant to False"
        )


def is_recomputed(trainer: Any) -> bool:
    """Whether activations of the student's blocks are computed again, by transformers or FSDP."""
    plugin = getattr(trainer.accelerator.state, "fsdp_plugin", None)
    return bool(
        any(
            getattr(trainer.args, name, False)
            for name in ("activation_checkpointing", "gradient_checkpointing")
        )
        or getattr(plugin, "activation_checkpointing", False)
        or any(getattr(x, "gradient_checkpointing", False) for x in trainer.model.modules())
    )
