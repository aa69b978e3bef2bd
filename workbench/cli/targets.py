"""The command that computes what a teacher does on training examples, once for many students."""

from pathlib import Path
from typing import Annotated, Any

import typer

from workbench.cli.app import GOES_ON, STUDENTS, command, prepare
from workbench.cli.distill import (
    ArmName,
    Config,
    HeadFile,
    OnePool,
    OwnPrompts,
    OwnTemplate,
    ScoresFile,
    StudentLayers,
    StudentModel,
    TaskName,
    TraceFile,
    config_of,
    prepared,
    pretrained,
    scores_for,
    training_flags,
)
from workbench.cli.flags import Teacher
from workbench.errors import InputError

WORK = ".work"


@command(STUDENTS, settings=training_flags, stopped=GOES_ON, several=True, beats=True)
def teacher_targets(
    out: Annotated[Path, typer.Option(help="Folder of the targets; what is missing is made.")],
    settings: dict[str, Any],
    config: Config = None,
    headset: HeadFile = None,
    pool: OnePool = None,
    teacher: Teacher = None,
    prompts: OwnPrompts = None,
    task: TaskName = None,
    template: OwnTemplate = "auto",
    arm: ArmName = "mechanistic",
    student: StudentModel = None,
    student_layers: StudentLayers = None,
    traces: TraceFile = None,
    scores: ScoresFile = None,
    part: Annotated[
        str, typer.Option(help="Which of how many parts to make, from 0: 3/8.")
    ] = "0/1",
    exact: Annotated[
        bool, typer.Option("--exact", help="Keep all of it, in the dtype it was computed in.")
    ] = False,
    top: Annotated[
        int, typer.Option(min=1, help="Keys kept of an attention row, tokens of a distribution.")
    ] = 64,
    width: Annotated[
        int, typer.Option(min=1, help="Numbers kept of what heads write, by random projection.")
    ] = 1024,
    projection_seed: Annotated[int, typer.Option(min=0, help="Of the projection.")] = 0,
    block: Annotated[int, typer.Option(min=1, help="Examples of a file.")] = 256,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only say what would be kept, and how large it is.")
    ] = False,
) -> None:
    """Compute once what the loss asks of the teacher; `distill --targets` trains on it.

    Give the flags that the students get. Parts can run side by side, on several machines.
    """
    from contextlib import suppress
    from shutil import rmtree

    from workbench.distill.given import check_distillation
    from workbench.files import check_writable
    from workbench.processes import parted
    from workbench.prompts.choices import check_task

    here = parted(part)
    if prompts is None and traces is None:
        raise InputError("targets are of given examples; give --traces or --prompts")
    wanted = config_of(arm, pretrained(student, student_layers), settings)
    if task is not None:
        check_task(task)
    check_distillation(
        wanted, teacher=teacher, headset=headset, pool=pool, prompts=prompts, traces=traces
    )
    check_writable(out)
    table = scores_for(scores, headset, wanted.heads)

    from workbench.distill.targets.make import Making
    from workbench.distill.targets.packing import Packing
    from workbench.distill.training.run import distill
    from workbench.files import make_folder

    prepare()
    folder, pools, wanted, data = prepared(
        wanted,
        teacher=teacher,
        headset=headset,
        pool=pool,
        prompts=prompts,
        task=task,
        template=template,
        readouts=False,
    )
    work = out / f"{WORK}-{here.rank}"
    try:
        make_folder(out)
        record = distill(
            work,
            folder,
            pools,
            wanted,
            **data,
            scores=table,
            traces=traces,
            workers=0,
            making=Making(
                out,
                Packing(exact=exact, top=top, width=width, seed=projection_seed),
                (here.rank, here.world),
                block,
                dry_run,
            ),
        )
    finally:
        rmtree(work, ignore_errors=True)
        with suppress(OSError):  # what holds anything stays
            out.rmdir()
    typer.echo(f"targets: {out}, {record['examples']:,} examples")
