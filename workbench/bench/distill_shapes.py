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
from dataclasses import asdict
from pathlib import Path
from typing import Any

import psutil
import torch
import torch.distributed as dist
from accelerate.utils.memory import clear_device_cache
from transformers import PreTrainedModel, PrinterCallback, TrainerCallback, TrainingArguments

from workbench.bench.distill_batches import make_batches
from workbench.bench.distill_plan import Plan, check_memory, estimate, pools, table
from workbench.bench.shapes import build, materialise, random_shares
from workbench.distill.arms import find_arm
from workbench.distill.config import plain
from workbench.distill.matching.head_map import match_by_depth
from workbench.distill.reading.parts import shape_of
from workbench.distill.training.trainer import MechanisticDistillationTrainer
from workbench.errors import InputError
from workbench.files import read_text, write_text
from workbench.processes import Processes
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


def bench_shapes(plan: Plan, out: Path, say: Say) -> dict[str, Any]:
    """Measure the arms that are not in `out` yet; each is written there when it is known.

    Returns:
        what the file holds: `plan`, `estimate` (GiB a card), `devices`, `seconds_to_teacher`, and
        `arms`, rows of arm, seconds_to_first_step (of the arm, and since the command began),
        step_seconds (mean, best), tokens_a_second (all cards together), tokens_a_second_a_card,
        peak_gib (the largest of a card, allocated), reserved_gib, ratio (speed to "cot+logits").

    Raises:
        InputError: the plan does not fit, or `out` holds another one's.
    """
    here = Processes.here()
    if here.world > 1:
        os.environ |= FSDP | {"FSDP_ACTIVATION_CHECKPOINTING": str(plan.checkpointing).lower()}
    estimated = estimate(plan, here.world)
    for line in table(estimated):
        say(line)
    args = _arguments(plan, Path(tempfile.gettempdir()) / f"distill-shapes-{os.getpid()}", here)
    check_memory(estimated, args.device)
    result = _begun(plan, out, estimated, here, args.device)
    left = [name for name in plan.arms if name not in {row["arm"] for row in result["arms"]}]
    if not left:
        return result
    say(f"at {_age():.0f} s: {here.world} processes on {args.device.type}; making the teacher")
    _watch()
    try:
        started = time.perf_counter()
        teacher = _teacher(plan, args.device, here.world)
        _wait(args.device)
        result["seconds_to_teacher"] = time.perf_counter() - started
        say(f"at {_age():.0f} s: teacher made, {_peak(args.device, reset=True)[0]:.1f} GiB")
        for name in left:
            row: dict[str, Any] = {"arm": name}

            def measured(found: Mapping[str, Any], row: dict[str, Any] = row) -> None:
                row |= found
                if row not in result["arms"]:
                    result["arms"].append(row)
                _compare(result["arms"])
                if here.is_main:
                    write_text(out, json.dumps(result, indent=1) + "\n")

            _measure(plan, name, teacher, args, here, measured, say)
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
        per_device_train_batch_size=1,  # an item is a whole batch
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
        **({} if on_gpu or here.world == 1 else {"ddp_backend": "gloo"}),
    )


def _teacher(plan: Plan, device: torch.device, world: int) -> PreTrainedModel:
    if plan.source == "sharded" and world > 1:
        return random_shares(plan.teacher, torch.bfloat16, device, plan.n_layers(0))
    with torch.device("meta"):
        model = build(plan.teacher, torch.bfloat16, plan.n_layers(0))
    materialise(model, {"": device}, seed=0)
    return model.eval()


def _measure(
    plan: Plan,
    name: str,
    teacher: PreTrainedModel,
    args: TrainingArguments,
    here: Processes,
    measured: Callable[[Mapping[str, Any]], None],
    say: Say,
) -> None:
    started = time.perf_counter()
    device = args.device
    with torch.device("meta"):
        student = build(plan.student, torch.float32, plan.n_layers(1))
    materialise(student, {"": device}, seed=1)
    loss = find_arm(name).loss
    headmap = None
    if loss.taught_pools:
        headmap = match_by_depth(pools(plan), shape_of(teacher), shape_of(student))
    batches = make_batches(plan, 2 * here.world)
    clock = _Clock(plan, name, here.world, device, started, measured, say)
    trainer = MechanisticDistillationTrainer(
        student,
        teacher,
        loss,
        headmap=headmap,
        args=args,
        train_dataset=batches,  # pyright: ignore[reportArgumentType]
        data_collator=_only,
        callbacks=[clock],
    )
    trainer.remove_callback(PrinterCallback)
    say(f"at {_age():.0f} s: {name}: student made, terms {', '.join(loss.on)}")
    trainer.train()
    trainer.accelerator.free_memory()
    del trainer, student
    clear_device_cache(garbage_collection=True)
    _peak(device, reset=True)


def _only(items: list[Any]) -> Any:
    return items[0]


class _Clock(TrainerCallback):
    """Times steps in parts of the whole, and tells what is known after each part."""

    def __init__(
        self,
        plan: Plan,
        name: str,
        world: int,
        device: torch.device,
        started: float,
        measured: Callable[[Mapping[str, Any]], None],
        say: Say,
    ) -> None:
        self._name, self._world, self._device = name, world, device
        self._tokens = plan.batch * plan.tokens * world
        self._part = max(1, plan.steps // 4)
        self._started, self._measured, self._say = started, measured, say
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
