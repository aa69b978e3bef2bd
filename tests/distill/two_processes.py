"""A small distillation, for `torch.distributed.run`: TEACHER TRACES OUT ACCUMULATION."""

import os
import sys
from pathlib import Path

from rich.console import Console

from workbench.distill.config import DistillationConfig, MechanisticDistillationConfig, StudentShape
from workbench.distill.run import distil
from workbench.labels.icd10cm import load_icd10cm
from workbench.progress import Reporter
from workbench.prompts.tasks import CodingTask, TaskConfig, split_categories

STEPS = 20


def distil_small(teacher: Path, traces: Path, out: Path, accumulation: int) -> None:
    """Twenty steps with every kind of mechanistic term, the same in however many processes."""
    space = load_icd10cm()
    sizes = TaskConfig(n_mentions=(1, 2), n_families=(2, 2), family_size=(2, 3))
    config = DistillationConfig(
        loss=MechanisticDistillationConfig(attention=0.5, update=0.1, interaction=0.1),
        student=StudentShape(n_layers=2, n_heads=4, n_kv_heads=2, d_model=16, d_mlp=24),
        steps=STEPS,
        batch_size=4,
        accumulation=accumulation,
        n_traces=24,
        warmup_steps=1,
        bf16=False,
    )
    distil(
        out,
        teacher,
        {"coarse": [(0, 1)], "refine": [(1, 2), (1, 3)]},
        config,
        task=CodingTask(space, split_categories(space)[0][::8], sizes),
        traces=traces,
        workers=0,
        arguments={
            "disable_tqdm": True,
            **({"ddp_backend": "gloo"} if "RANK" in os.environ else {}),
        },
        reporter=Reporter(Console(quiet=True)),
    )


if __name__ == "__main__":
    teacher, traces, out = map(Path, sys.argv[1:4])
    distil_small(teacher, traces, out, int(sys.argv[4]))
