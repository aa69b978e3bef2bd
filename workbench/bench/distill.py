"""What a training step of each arm costs, side by side on the same batches."""

import math
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel, PositiveFloat, ValidationError
from torch import Tensor
from transformers import PreTrainedModel, TrainerCallback, TrainingArguments, set_seed

from workbench.distill.arms import arm_config
from workbench.distill.config import DistillationConfig
from workbench.distill.matching.head_map import Pools
from workbench.distill.matching.pair import pair_by_ablation, pair_heads
from workbench.distill.training.student import make_student
from workbench.distill.training.trainer import MechanisticDistillationTrainer
from workbench.errors import InputError, explain
from workbench.files import read_text

WARMUP_STEPS = 10
REFERENCE = "cot+logits"
"""The arm that the others are divided by: it runs the teacher too, and reads only its logits."""
FULL = "mechanistic"
"""The arm whose compute the others are given too."""


def step_costs(
    teacher: PreTrainedModel,
    pools: Pools,
    batches: Sequence[Mapping[str, Tensor]],
    arms: Sequence[str],
    base: DistillationConfig,
    *,
    n_steps: int = 50,
    repeats: int = 3,
    say: Callable[[str], None] = lambda line: None,
) -> Iterator[list[dict[str, Any]]]:
    """Seconds of a training step and peak memory, for each arm; after every round, so far.

    Real steps of the real trainer: forward of both models, backward, clipping, optimizer. Batches
    are made beforehand, so that drawing examples is not timed. Each arm starts afresh `repeats`
    times, in turn with the others, and its best time counts.

    Args:
        teacher: on the device to measure on.
        pools: the teacher's heads.
        batches: of `stream.Collator`.
        arms: names of `arms.ARMS`; no control arms, which cost what "mechanistic" does.
        base: shape of the student and precision.
        n_steps: timed, after 10 that are not.
        repeats: of every arm.
        say: told one line an arm.

    Yields:
        after every round, rows of arm, seconds (a step, the best), rounds (seconds, each), ratio
        (to "cot+logits", if among them), and peak_gib of memory beside what the teacher holds
        (None on a CPU).

    Raises:
        InputError: no batches, or an arm with control heads.
    """
    if not batches:
        raise InputError("no batches are given to measure steps on")
    configs = {name: arm_config(name, base) for name in arms}
    for name, config in configs.items():
        if config.heads != "pools":
            raise InputError(f"arm {name!r} costs what mechanistic does; leave it out")
    rounds: dict[str, list[tuple[float, float | None]]] = {name: [] for name in configs}
    for _ in range(repeats):
        for name, config in configs.items():
            rounds[name].append(_timed(teacher, pools, batches, config, n_steps))
            say(f"{name}: {1000 * rounds[name][-1][0]:.1f} ms a step")
        yield _rows(rounds)


def _rows(rounds: Mapping[str, Sequence[tuple[float, float | None]]]) -> list[dict[str, Any]]:
    best = {name: min(each, key=lambda one: one[0]) for name, each in rounds.items()}
    reference = best.get(REFERENCE, (None, None))[0]
    return [
        {
            "arm": name,
            "seconds": seconds,
            "rounds": [one for one, _ in rounds[name]],
            "ratio": None if reference is None else seconds / reference,
            "peak_gib": peak,
        }
        for name, (seconds, peak) in best.items()
    ]


def _timed(
    teacher: PreTrainedModel,
    pools: Pools,
    batches: Sequence[Mapping[str, Tensor]],
    config: DistillationConfig,
    n_steps: int,
) -> tuple[float, float | None]:
    on_gpu = teacher.device.type == "cuda"
    torch.compiler.reset()  # graphs of the arms before count towards a limit
    set_seed(config.seed)
    student = make_student(config.student, teacher, None)
    student.to(teacher.device)  # pyright: ignore[reportArgumentType]
    headmap = None
    if config.loss.taught_pools:
        headmap = pair_heads(teacher, student, pools, config, batches[0])
    circuit = ()
    if config.loss.by_ablation:
        circuit = pair_by_ablation(teacher, student, 2, batches[:1])
    clock = _Clock(on_gpu)
    with tempfile.TemporaryDirectory() as folder:
        args = TrainingArguments(
            output_dir=folder,
            max_steps=WARMUP_STEPS + n_steps,
            per_device_train_batch_size=1,  # an item is a whole batch
            learning_rate=config.learning_rate,
            bf16=config.bf16,
            use_cpu=not on_gpu,
            logging_steps=50,
            logging_nan_inf_filter=False,
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
        )
        trainer = MechanisticDistillationTrainer(
            student,
            teacher,
            config.loss,
            headmap=headmap,
            circuit=circuit,
            args=args,
            train_dataset=list(batches),  # pyright: ignore[reportArgumentType]
            data_collator=lambda items: items[0],
            callbacks=[clock],
        )
        base = torch.cuda.memory_allocated() if on_gpu else 0
        if on_gpu:
            torch.cuda.reset_peak_memory_stats()
        trainer.train()
    peak = (torch.cuda.max_memory_allocated() - base) / 2**30 if on_gpu else None
    return clock.seconds / n_steps, peak


class _Clock(TrainerCallback):
    """Time from the end of the warm-up to the end of training."""

    def __init__(self, on_gpu: bool) -> None:
        self._on_gpu = on_gpu
        self._started = 0.0
        self.seconds = 0.0

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Start or stop at the two ends."""
        if state.global_step not in (WARMUP_STEPS, state.max_steps):
            return
        if self._on_gpu:
            torch.cuda.synchronize()
        now = time.perf_counter()
        if state.global_step == WARMUP_STEPS:
            self._started = now
        else:
            self.seconds = now - self._started


class _Row(BaseModel):
    arm: str
    seconds: PositiveFloat


class _Costs(BaseModel):
    arms: list[_Row]


def read_costs(path: str | Path) -> dict[str, float]:
    """Seconds of a training step by arm, from what `workbench bench distill` wrote.

    Raises:
        InputError: the file cannot be read, or is no such file.
    """
    text = read_text(path)
    try:
        costs = _Costs.model_validate_json(text)
    except ValidationError as error:
        raise InputError(f"{path}: is no benchmark of training steps, {explain(error)}") from None
    return {row.arm: row.seconds for row in costs.arms}


def equal_compute(costs: Mapping[str, float], steps: int) -> dict[str, int]:
    """Steps of the arms that cost less, in the time that the full objective takes for `steps`.

    The ratio is rounded up to a tenth: what noise there is in it favours the baseline.

    Raises:
        InputError: the full objective was not measured.
    """
    if FULL not in costs:
        raise InputError(f"costs: {FULL!r} was not measured, which the others are compared with")
    ratios = {arm: math.ceil(round(10 * costs[FULL] / costs[arm], 6)) / 10 for arm in costs}
    longer = {arm: math.ceil(round(ratio * steps, 6)) for arm, ratio in ratios.items()}
    return {arm: number for arm, number in longer.items() if number > steps}
