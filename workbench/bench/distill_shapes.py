"""Distillation between two shapes with random weights, over one card or several: speed and memory.

Every process of a launch runs it (`torchrun --nproc_per_node N -m workbench bench distill-shapes`):
the student under FSDP2, the teacher whole on each card or sharded over all, real steps of the real
trainer. What was measured is written at once, arm by arm, and is not measured again.
"""

import faulthandler
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import psutil
import torch
import torch.distributed as dist
from accelerate.utils.memory import clear_device_cache
from rich.console import Console
from transformers import PreTrainedModel, PrinterCallback, TrainerCallback, TrainingArguments

from workbench.bench.distill_batches import make_samples
from workbench.bench.distill_plan import Plan, check_memory, estimate, pools, table
from workbench.bench.shapes import build, materialise, random_shares
from workbench.distill.arms import find_arm
from workbench.distill.config import plain
from workbench.distill.examples.stream import Collator
from workbench.distill.losses.compiling import eager
from workbench.distill.matching.head_map import listed, match_by_depth
from workbench.distill.reading.parts import shape_of
from workbench.distill.targets.make import Making, make_targets
from workbench.distill.targets.packing import Packing
from workbench.distill.targets.store import Targets
from workbench.distill.training.trainer import MechanisticDistillationTrainer
from workbench.errors import InputError
from workbench.files import read_text, write_text
from workbench.processes import Processes
from workbench.progress import Reporter
from workbench.runs.manifest import versions

SCHEMA = "workbench.distill-shapes/1"
REFERENCE = "cot+logits"
"""The arm whose speed the others' is divided by."""
WARMUP_STEPS = 3
STUCK_AFTER = 120.0
"""Seconds without a step after which every process says where it stands."""
FSDP = {
    "ACCELERATE_USE_FSDP": "true",
    "FSDP_VERSION": "2",
    "FSDP_AUTO_WRAP_POLICY": "TRANSFORMER_BASED_WRAP",
    "FSDP_RESHARD_AFTER_FORWARD": "true",
    "FSDP_STATE_DICT_TYPE": "SHARDED_STATE_DICT",
    "FSDP_CPU_RAM_EFFICIENT_LOADING": "false",
}
"""What `accelerate launch` makes of data/accelerate/fsdp.yaml."""

Say = Callable[[str], None]


def bench_shapes(
    plan: Plan, out: Path, say: Say, *, targets: Path | None = None, sharded: bool = False
) -> dict[str, Any]:
    """Measure the arms that are not in `out` yet; each is written there when it is known.

    Args:
        plan: what is measured.
        out: file of JSON.
        say: told lines on how far it is.
        targets: folder where targets are made, and read from, if the plan's teacher is on disk.
        sharded: spread the teacher that makes them over all processes.

    Returns:
        what the file holds: `plan`, `estimate` (GiB a card), `devices`, and `arms`, rows of arm,
        seconds_to_first_step (of the arm), seconds_since_start (of the command, at that step),
        step_seconds and best_step_seconds, tokens_a_second (all cards together),
        tokens_a_second_a_card, peak_gib (allocated, of the card where it is most), reserved_gib,
        ratio (speed to "cot+logits"); of targets from disk also targets_seconds and
        targets_mib_an_example.

    Raises:
        InputError: the plan does not fit, `out` holds another one's, or no folder for targets.
    """
    if (plan.source == "disk") != (targets is not None):
        raise InputError("say where targets are kept (--targets), if the teacher's are to be read")
    here = Processes.here()
    if here.world > 1:
        os.environ |= FSDP | {"FSDP_ACTIVATION_CHECKPOINTING": str(plan.checkpointing).lower()}
    estimated = estimate(plan, here.world, sharded=sharded)
    for line in table(estimated):
        say(line)
    args = _arguments(plan, Path(tempfile.gettempdir()) / f"distill-shapes-{os.getpid()}", here)
    check_memory(estimated, args.device)
    result = _begun(plan, out, estimated, here, args.device)
    left = [name for name in plan.arms if name not in {row["arm"] for row in result["arms"]}]
    if not left:
        return result
    say(f"at {_age():.0f} s: {here.world} processes on {args.device.type}")
    _watch()
    try:
        teacher = None if targets is not None else _teacher(plan, args.device, here.world, say)
        for name in left:
            row: dict[str, Any] = {"arm": name}

            def measured(found: Mapping[str, Any], row: dict[str, Any] = row) -> None:
                row |= found
                if row not in result["arms"]:
                    result["arms"].append(row)
                _compare(result["arms"])
                if here.is_main:
                    write_text(out, json.dumps(result, indent=1) + "\n")

            kept = None
            if targets is not None:
                make = replace(plan, source="sharded" if sharded else "whole")
                measured(_make_targets(make, name, targets / name, args, here, say))
                kept = Targets(targets / name)
            _measure(plan, name, teacher or kept, args, here, measured, say)
    finally:
        faulthandler.cancel_dump_traceback_later()
    return result


def _begun(
    plan: Plan, out: Path, estimated: Mapping[str, Any], here: Processes, device: torch.device
) -> dict[str, Any]:
    asked = plain({name: value for name, value in asdict(plan).items() if name != "arms"})
    if out.is_file():
        try:
            before = json.loads(read_text(out))
            done = [row for row in before["arms"] if row.get("tokens_a_second")]
        except (ValueError, KeyError, TypeError, AttributeError):
            raise InputError(
                f"{out}: is no benchmark of this command; give another --out"
            ) from None
        if before.get("plan") != asked or before.get("processes") != here.world:
            raise InputError(f"{out}: holds the benchmark of another plan; give another --out")
        return before | {"arms": done}
    on_gpu = device.type == "cuda"
    return {
        "schema": SCHEMA,
        "versions": versions(),
        "devices": [torch.cuda.get_device_name(device) if on_gpu else "cpu"] * here.world,
        "processes": here.world,
        "plan": asked,
        "estimate": estimated,
        "arms": [],
    }


def _arguments(plan: Plan, folder: Path, here: Processes) -> TrainingArguments:
    on_gpu = torch.cuda.is_available()
    return TrainingArguments(
        output_dir=str(folder),
        max_steps=WARMUP_STEPS + plan.steps,
        per_device_train_batch_size=plan.batch,
        learning_rate=1e-4,
        bf16=True,
        use_cpu=not on_gpu,
        logging_steps=10_000,
        logging_nan_inf_filter=False,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        ddp_timeout=300,
        # On one card there is no FSDP, which would have its own.
        gradient_checkpointing=plan.checkpointing and here.world == 1,
        ddp_backend=None if on_gpu or here.world == 1 else "gloo",
    )


def _teacher(plan: Plan, device: torch.device, world: int, say: Say) -> PreTrainedModel:
    started = time.perf_counter()
    if plan.source == "sharded" and world > 1:
        model = random_shares(plan.teacher, torch.bfloat16, device, plan.n_layers(0))
    else:
        model = _model(plan.teacher, torch.bfloat16, plan.n_layers(0), device)
    _wait(device)
    took, held = time.perf_counter() - started, _peak(device, reset=True)[0]
    say(f"at {_age():.0f} s: teacher made in {took:.0f} s, {held:.1f} GiB")
    return model


def _model(shape: str, dtype: torch.dtype, n_layers: int, device: torch.device) -> PreTrainedModel:
    with torch.device("meta"):
        model = build(shape, dtype, n_layers)
    materialise(model, {"": device}, seed=0)
    return model.eval()


def _trainer(
    plan: Plan, name: str, teacher: Any, dtype: torch.dtype, args: TrainingArguments, **more: Any
) -> tuple[MechanisticDistillationTrainer, list[dict[str, Any]]]:
    """The trainer of an arm with a new student, and its samples; `teacher` may be its targets."""
    student = _model(plan.student, dtype, plan.n_layers(1), args.device)
    targets = teacher if isinstance(teacher, Targets) else None
    taught: Any = teacher if targets is None else targets.teacher()
    loss = find_arm(name).loss
    headmap = None if targets is None else targets.manifest.headmap
    if loss.taught_pools and targets is None:
        headmap = match_by_depth(pools(plan), shape_of(taught), shape_of(student))
    samples = make_samples(plan, 2 * args.world_size * plan.batch)
    trainer = MechanisticDistillationTrainer(
        student,
        taught,
        loss,
        headmap=headmap,
        targets=targets,
        args=args,
        train_dataset=samples,  # pyright: ignore[reportArgumentType]
        data_collator=Collator(),
        **more,
    )
    trainer.remove_callback(PrinterCallback)
    return trainer, samples


def _make_targets(
    plan: Plan, name: str, folder: Path, args: TrainingArguments, here: Processes, say: Say
) -> dict[str, float]:
    """Let a teacher that is gone afterwards say what the terms of an arm will ask of it."""
    started = time.perf_counter()
    teacher = _teacher(plan, args.device, here.world, say)
    trainer, samples = _trainer(plan, name, teacher, torch.bfloat16, args)
    begun = time.perf_counter()
    making = Making(folder, Packing(), block=plan.batch)
    with eager():
        made = make_targets(
            trainer,
            samples,
            making,
            teacher="random",
            pools=listed(pools(plan)),
            heads="pools",
            pairing={},
            reporter=Reporter(Console(quiet=True)),
        )
    _wait(args.device)
    ended = time.perf_counter()
    say(f"at {_age():.0f} s: {name}: targets in {folder} after {ended - started:.0f} s")
    del trainer, teacher
    clear_device_cache(garbage_collection=True)
    _peak(args.device, reset=True)
    size = made["bytes"] / len(samples) / 2**20
    return {"targets_seconds": ended - begun, "targets_mib_an_example": size}


def _measure(
    plan: Plan,
    name: str,
    teacher: Any,
    args: TrainingArguments,
    here: Processes,
    measured: Callable[[Mapping[str, Any]], None],
    say: Say,
) -> None:
    clock = _Clock(plan, name, here.world, args.device, measured, say)
    trainer, _ = _trainer(plan, name, teacher, torch.float32, args, callbacks=[clock])
    say(f"at {_age():.0f} s: {name}: student made, terms {', '.join(trainer.terms.config.on)}")
    trainer.train()
    trainer.accelerator.free_memory()
    del trainer
    clear_device_cache(garbage_collection=True)
    _peak(args.device, reset=True)


class _Clock(TrainerCallback):
    """Times steps in parts of the whole, and tells what is known after each part."""

    def __init__(
        self,
        plan: Plan,
        name: str,
        world: int,
        device: torch.device,
        measured: Callable[[Mapping[str, Any]], None],
        say: Say,
    ) -> None:
        self._name, self._world, self._device = name, world, device
        self._tokens = plan.batch * plan.tokens * world
        self._part = max(1, plan.steps // 4)
        self._started, self._measured, self._say = time.perf_counter(), measured, say
        self._parts: list[float] = []
        self._last = 0.0
        self._found: dict[str, Any] = {}

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Say so: weights are sharded by now."""
        _wait(self._device)
        held = _peak(self._device)[0]
        self._say(f"at {_age():.0f} s: {self._name}: training begins, peak so far {held:.1f} GiB")

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """After the first step, the warm-up and every part, wait for the device and tell."""
        _watch()
        step = state.global_step
        timed = step - WARMUP_STEPS
        if step != 1 and (timed < 0 or timed % self._part):
            return
        _wait(self._device)
        now = time.perf_counter()
        if step == 1:
            self._found |= {
                "seconds_to_first_step": now - self._started,
                "seconds_since_start": _age(),
            }
        if timed > 0:
            self._parts.append((now - self._last) / self._part)
            mean = sum(self._parts) / len(self._parts)
            self._found |= {
                "steps": timed,
                "step_seconds": mean,
                "best_step_seconds": min(self._parts),
                "tokens_a_second": self._tokens / mean,
                "tokens_a_second_a_card": self._tokens / mean / self._world,
            }
        self._found["peak_gib"], self._found["reserved_gib"] = _peak(self._device)
        self._measured(self._found)
        known = ", ".join(f"{name} {x:.4g}" for name, x in self._found.items())
        self._say(f"at {_age():.0f} s: {self._name}: step {step}: {known}")
        self._last = time.perf_counter()


def _compare(rows: list[dict[str, Any]]) -> None:
    speeds = {row["arm"]: row.get("tokens_a_second") for row in rows}
    reference = speeds.get(REFERENCE)
    for row in rows:
        if reference and row.get("tokens_a_second"):
            row["ratio"] = row["tokens_a_second"] / reference


def _age() -> float:
    """Seconds since this process began."""
    return time.time() - psutil.Process().create_time()


def _watch() -> None:
    # Of processes beside the main one, standard error is kept for when they fail alone.
    faulthandler.dump_traceback_later(STUCK_AFTER, repeat=True, file=sys.__stderr__ or sys.stderr)


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _peak(device: torch.device, *, reset: bool = False) -> tuple[float, float]:
    """GiB allocated and reserved at most, on the card where it is most; all processes ask."""
    if device.type != "cuda":
        return 0.0, 0.0
    taken = [torch.cuda.max_memory_allocated(device), torch.cuda.max_memory_reserved(device)]
    most = torch.tensor(taken, device=device, dtype=torch.float64)
    if dist.is_initialized():
        dist.all_reduce(most, dist.ReduceOp.MAX)
    if reset:
        torch.cuda.reset_peak_memory_stats(device)
    allocated, reserved = (float(x) / 2**30 for x in most.tolist())
    return allocated, reserved
