"""A small distillation, one of two processes."""

import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from accelerate.state import PartialState
from accelerate.utils import DistributedType
from fixtures.distillation import POOLS, QUIET, SMALL, make_small_task, placed
from fixtures.small_icd10cm import small_icd10cm
from torch.distributed.tensor import DTensor

from workbench.distill.config import LossConfig
from workbench.distill.examples.stream import DistillationStream
from workbench.distill.examples.traces import read_traces
from workbench.distill.training.run import distill
from workbench.distill.training.student import word_encoder
from workbench.distill.training.trainer import MechanisticDistillationTrainer
from workbench.models import loading
from workbench.prompts.events import make_events
from workbench.prompts.templates import PlainTemplate

STEPS = 6
RECOMPUTED = "FSDP_ACTIVATION_CHECKPOINTING"
"""What `accelerate launch` makes of `fsdp_activation_checkpointing` in its configuration."""


def distil_small(
    teacher: Path,
    traces: Path,
    out: Path,
    accumulation: int,
    size: int = 4,
    hidden: float = 0.0,
    own: bool = False,
    teacher_sharded: bool = False,
    **further: Any,
) -> None:
    """A few steps with every kind of mechanistic term, the same in however many processes.

    On the task's traces, or on examples of one's own that have places in chains.
    """
    task = make_small_task(small_icd10cm())
    loss = LossConfig(attention=0.5, update=0.1, interaction=0.1, hidden=hidden)
    tokenizer = loading.read_tokenizer(teacher)
    data: dict[str, Any] = {
        "task": task,
        "traces": traces,
        "prompts": make_events(task, PlainTemplate(), tokenizer, n_prompts=5, seed=9),
    }
    if own:
        loss = replace(loss, p1_write=0.3, p2_write=0.3)
        read = read_traces(traces, loading.weights_sha256(teacher), 800)
        encode = word_encoder(tokenizer, teacher)
        sizes = {"n_samples": 24, "context": 400, "same_size": 4, "seed": 0}
        stream = DistillationStream(task, encode, read, SMALL.mix, **sizes)
        data = {"examples": [placed(stream[i]) for i in range(24)]}
    config = replace(SMALL, loss=loss, steps=STEPS, accumulation=accumulation, batch_size=size)
    distill(
        out,
        teacher,
        POOLS,
        config,
        **data,
        readout_every=3,
        checkpoint_every=3,
        workers=0,
        arguments={
            "disable_tqdm": True,
            **({"ddp_backend": "gloo"} if "RANK" in os.environ else {}),
        },
        teacher_sharded=teacher_sharded,
        reporter=QUIET,
        **further,
    )


def shard_on_the_cpu() -> None:
    """Have accelerate take this process for one with a device of its own."""

    def place(state: Any) -> None:
        state.device = torch.device("cpu")

    torch.distributed.init_process_group("gloo")
    PartialState._prepare_backend = lambda *_, **__: ("gloo", DistributedType.MULTI_GPU)
    PartialState.set_device = place


def watch(sharded: bool, begin_at: int, stop_at: int | None) -> None:
    """Check in every step whether weights are sharded, and its number; stop where asked."""
    compute = MechanisticDistillationTrainer.compute_loss

    def watched(self: Any, *args: Any, **kwargs: Any) -> Any:
        assert any(isinstance(p, DTensor) for p in self.model.parameters()) == sharded
        assert self.state.global_step >= begin_at
        wrapped = any("_checkpoint_wrapped" in name for name, _ in self.model.named_modules())
        assert self._student_capture.recomputed == wrapped == (os.environ.get(RECOMPUTED) == "true")
        if self.state.global_step == stop_at:
            raise KeyboardInterrupt
        return compute(self, *args, **kwargs)

    MechanisticDistillationTrainer.compute_loss = watched


def in_process(
    environment: dict[str, str],
    errors: Path,
    *,
    sharded: bool = False,
    begin_at: int = 0,
    stop_at: int | None = None,
    **given: Any,
) -> None:
    """What a process of `torch.distributed.run` does, with standard error in a file.

    If sharded it trains under FSDP: accelerate shards over devices only, so it is told that
    processes on the CPU are some. `stop_at` is the step where it ends as if killed, `begin_at`
    where it must go on.
    """
    os.dup2(os.open(errors, os.O_WRONLY | os.O_CREAT), sys.stderr.fileno())
    os.environ |= environment
    torch.set_num_threads(1)
    if sharded:
        shard_on_the_cpu()
    watch(sharded, begin_at, stop_at)
    distil_small(**given)
