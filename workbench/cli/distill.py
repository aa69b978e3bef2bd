"""Commands that make students: the teacher's traces, and training on them."""

from collections.abc import Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from workbench.cli.app import GOES_ON, STUDENTS, command, prepare
from workbench.cli.config_file import read_flags, trainer_flags
from workbench.cli.flags import Flag, Teacher, numbers, setting_flags
from workbench.errors import InputError

if TYPE_CHECKING:
    from workbench.distill.config import CopiedLayers, DistillationConfig, LoraConfig

READOUT_PROMPTS = 64
READOUT_SEED = 2
"""Of the prompts for readouts; runs choose heads on seed 0, evaluation uses seed 1."""
MIX = ("direct", "prompt_weight", "ramp")

Config = Annotated[
    Path | None,
    typer.Option(
        help="YAML file of flags; those of the command go first.",
        callback=read_flags,
        is_eager=True,
    ),
]
HeadFile = Annotated[
    Path | None,
    typer.Option(help="The teacher's head set, one made by hand, or a list of another tool's."),
]
OnePool = Annotated[
    Literal["coarse", "refine"] | None,
    typer.Option(help="Pool of all heads of another tool's list, which knows none."),
]
OwnPrompts = Annotated[
    Path | None,
    typer.Option(
        help="Examples: JSON lines of prompt, chain, answer and spans, or a folder of them.",
        show_default="the teacher's task and its traces",
    ),
]
TaskName = Annotated[
    str | None,
    typer.Option(
        help="Task of traces and readouts: a name.",
        show_default="the teacher's own; with --prompts, no readouts",
    ),
]
OwnTemplate = Annotated[
    Literal["auto", "plain", "chat"], typer.Option(help="How texts of --prompts are written.")
]
ArmName = Annotated[
    str, typer.Option(help="What the student is trained on: cot, cot+logits, mechanistic, minilm …")
]
StudentModel = Annotated[
    str | None,
    typer.Option(help="Pretrained student: folder or hub id.", show_default="a new model"),
]
StudentLayers = Annotated[
    str | None,
    typer.Option(
        help="A student of so many layers, or of those listed (0,3,6), copied from the teacher "
        "or from --student.",
        show_default="all of --student",
    ),
]
TraceFile = Annotated[
    Path | None,
    typer.Option(
        help="Finished trace file, or folder of all its parts.", show_default="made in --out"
    ),
]
ScoresFile = Annotated[
    Path | None,
    typer.Option(help="Scores of the run, for control heads.", show_default="beside the head set"),
]


def training_flags() -> dict[str, Flag]:
    """All settings but those that the arm makes, and kinds of examples that are not made here."""
    from workbench.distill.config import DEFAULTS, StudentShape

    mine = [one.name for one in fields(DEFAULTS) if one.name not in ("heads", "student")]
    return {
        **setting_flags(StudentShape),
        **setting_flags(type(DEFAULTS.loss), default="the arm's"),
        **setting_flags(type(DEFAULTS.mix), MIX),
        **setting_flags(type(DEFAULTS), mine),
    }


@command(STUDENTS, settings=training_flags, stopped=GOES_ON, several=True, beats=True)
def distill(
    out: Annotated[Path, typer.Option(help="Student's folder; a stopped one goes on.")],
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
    lora_rank: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Train an adapter of this rank, and not the student's own weights.",
            show_default="no adapter",
        ),
    ] = None,
    lora_alpha: Annotated[
        float | None, typer.Option(help="Scale of the adapter.", show_default="32")
    ] = None,
    lora_saved: Annotated[
        Literal["merged", "adapter"] | None,
        typer.Option(help="Whether the adapter is merged in the end.", show_default="merged"),
    ] = None,
    traces: TraceFile = None,
    scores: ScoresFile = None,
    targets: Annotated[
        Path | None,
        typer.Option(
            help="What the teacher did, of teacher-targets; it is not run then, nor its head set "
            "needed.",
            show_default="the teacher runs beside the student",
        ),
    ] = None,
    teacher_sharded: Annotated[
        bool, typer.Option(help="Spread the teacher over all processes of the launch.")
    ] = False,
    readout_every: Annotated[int, typer.Option(min=1, help="Steps between readouts.")] = 200,
    checkpoint_every: Annotated[int, typer.Option(min=1, help="Steps between checkpoints.")] = 500,
    workers: Annotated[int, typer.Option(min=0, help="Processes that make examples.")] = 2,
    report_to: Annotated[
        str, typer.Option(help="Where losses are reported, too: wandb, tensorboard, ….")
    ] = "none",
    trainer: Annotated[
        list[str] | None,
        typer.Option(help="A further TrainingArguments, KEY=VALUE; again for each."),
    ] = None,
) -> None:
    """Train a student on a teacher's chains and on what its pooled heads do.

    Runs under `accelerate launch -m workbench distill …` too, on several devices.
    """
    from workbench.distill.given import check_distillation, check_new
    from workbench.prompts.choices import check_task

    arguments = trainer_flags(config, trainer or ())
    if report_to != "none":
        arguments["report_to"] = report_to
    lora = _adapter(lora_rank, alpha=lora_alpha, saved=lora_saved)
    wanted = config_of(arm, pretrained(student, student_layers), settings, lora)
    if task is not None:
        check_task(task)
    check_distillation(
        wanted,
        teacher=teacher,
        headset=headset,
        pool=pool,
        prompts=prompts,
        traces=traces,
        targets=targets,
        sharded=teacher_sharded,
    )
    check_new(out)
    table = scores_for(scores, headset, wanted.heads, targets)

    from workbench.distill.training.run import distill as train

    prepare()
    folder, pools, wanted, data = prepared(
        wanted,
        teacher=teacher,
        headset=headset,
        pool=pool,
        prompts=prompts,
        task=task,
        template=template,
        targets=targets,
    )
    record = train(
        out,
        folder,
        pools,
        wanted,
        **data,
        scores=table,
        traces=traces,
        targets=targets,
        teacher_sharded=teacher_sharded,
        readout_every=readout_every,
        checkpoint_every=checkpoint_every,
        workers=workers,
        arguments=arguments,
    )
    last = f", last loss {record['loss'][-1]['loss']:.4f}" if record["loss"] else ""
    typer.echo(f"student: {out}, {record['n_parameters']:,} parameters{last}")


def prepared(
    wanted: "DistillationConfig",
    *,
    teacher: str | None,
    headset: Path | None,
    pool: Literal["coarse", "refine"] | None,
    prompts: Path | None,
    task: str | None,
    template: OwnTemplate,
    targets: Path | None = None,
    readouts: bool = True,
) -> tuple[Path, Any, "DistillationConfig", dict[str, Any]]:
    """The teacher's folder, its pools, the settings for these, and what is trained on."""
    from workbench.distill.examples.chats import examples_from_chats
    from workbench.distill.given import KEPT_TEACHER
    from workbench.distill.matching.files import heads_for
    from workbench.distill.targets.store import Targets
    from workbench.models import loading
    from workbench.prompts.choices import OWN_TASK, open_task
    from workbench.prompts.make import make_prompts, needed_tokenizer

    there = set() if targets is None else {one for one, *_ in Targets(targets).manifest.pools}
    if targets is not None and teacher is None:
        folder = targets / KEPT_TEACHER
    else:
        folder = loading.model_folder(loading.bundled_model_path() if teacher is None else teacher)
    pools = None if headset is None else heads_for(headset, folder, pool)
    there = {head.pool for head in pools} if pools is not None else there
    if there and wanted.loss.taught_pools:  # one pool alone can be taught, too
        taught = tuple(pool for pool in wanted.loss.pools if pool in there)
        wanted = replace(wanted, loss=replace(wanted.loss, pools=taught))
    asked = task or OWN_TASK
    data: dict[str, Any] = {}
    if readouts and (prompts is None or task is not None):
        data["prompts"] = make_prompts(
            model=folder,
            task=asked,
            n_prompts=READOUT_PROMPTS,
            template="plain" if template == "plain" else "auto",  # chat may not be a task's
            seed=READOUT_SEED,
        )
    if prompts is None:
        data["task"] = open_task(asked, model=folder, split="seen", full_size=False)
    else:
        data["examples"] = examples_from_chats(
            prompts,
            needed_tokenizer(folder),
            template=template,
            prompt_weight=wanted.mix.prompt_weight,
        )
    return folder, pools, wanted, data


def pretrained(student: str | None, layers: str | None) -> "CopiedLayers | str | None":
    """The student that is not new; None for a new one."""
    from workbench.distill.config import CopiedLayers

    if layers is None:
        return student
    listed = numbers("--student-layers", layers)
    if not listed:
        raise InputError(f"--student-layers {layers}: names no layer")
    return CopiedLayers(layers=listed if "," in layers else listed[0], from_=student)


def _adapter(rank: int | None, **further: Any) -> "LoraConfig | None":
    """The adapter that is trained; None for whole weights."""
    from workbench.distill.config import LoraConfig

    given = {name: value for name, value in further.items() if value is not None}
    if rank is None and given:
        raise InputError(f"--lora-{next(iter(given))} is of an adapter; give --lora-rank, too")
    return None if rank is None else LoraConfig(rank=rank, **given)


def config_of(
    arm: str,
    student: "CopiedLayers | str | None",
    settings: Mapping[str, Any],
    lora: "LoraConfig | None" = None,
) -> "DistillationConfig":
    """The arm's configuration with what the flags say."""
    from workbench.distill.arms import arm_config
    from workbench.distill.config import DEFAULTS, StudentShape

    new = StudentShape()

    def of(settings_class: type) -> dict[str, Any]:
        names = [one.name for one in fields(settings_class)]
        return {name: settings[name] for name in names if settings.get(name) is not None}

    shape = StudentShape(**of(StudentShape))
    changed = [name for name in of(StudentShape) if getattr(shape, name) != getattr(new, name)]
    if student and changed:
        flag = changed[0].replace("_", "-")
        raise InputError(f"--{flag} is of a new student; leave it out for a pretrained one")
    base = replace(DEFAULTS, **of(type(DEFAULTS)), student=student or shape, lora=lora)
    config = arm_config(arm, base)
    return replace(
        config,
        loss=replace(config.loss, **of(type(config.loss))),
        mix=replace(config.mix, **of(type(config.mix))),
    )


def scores_for(
    given: Path | None, headset: Path | None, heads: str, targets: Path | None = None
) -> Any:
    """The table that control heads are chosen by, where any are and targets do not know them."""
    if heads == "pools" or targets is not None:
        return None
    path = given or (headset.parent / "scores.parquet" if headset else None)
    if path is None or not path.is_file():
        raise InputError(f"{heads} heads are chosen by a run's scores table; give --scores FILE")
    import pandas as pd

    try:
        return pd.read_parquet(path, columns=["layer", "head", "output_norm"])
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: is not a scores table of a run ({error})") from None
