"""Commands that make students: the teacher's traces, and training on them."""

from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from workbench.cli.app import app, prepare

if TYPE_CHECKING:
    from workbench.distill.config import DistillationConfig

READOUT_PROMPTS = 64
READOUT_SEED = 2
"""Of the prompts for readouts; runs choose heads on seed 0, evaluation uses seed 1."""
MEASURED = "cot,cot+logits,mechanistic,minilm,hidden,circuit"
"""Arms whose steps are timed: all but those that compute what the full objective does, or part."""


class UpdateSpace(StrEnum):
    """Where what heads write is compared."""

    residual = "residual"
    options = "options"


class Matching(StrEnum):
    """How student heads are found."""

    auto = "auto"
    depth = "depth"
    attention = "attention"


Teacher = Annotated[
    str | None, typer.Option(help="Model folder or hub id.", show_default="the bundled model")
]
NTraces = Annotated[int | None, typer.Option("--n-traces", help="Chains to draw.")]
MaxNewTokens = Annotated[
    int | None, typer.Option("--max-new-tokens", help="Of a chain and its answer.")
]
Context = Annotated[int | None, typer.Option(help="Examples have fewer tokens than this.")]
BatchSize = Annotated[int | None, typer.Option("--batch-size", help="Examples of a forward.")]
Weight = Annotated[
    float | None, typer.Option(min=0, help="Weight of this term of the loss.", show_default="arm's")
]


@app.command()
def traces(
    out: Annotated[Path, typer.Option(help="Trace file (.jsonl), continued if it is there.")],
    teacher: Teacher = None,
    n_traces: NTraces = None,
    part: Annotated[
        str, typer.Option(help="Which of how many parts to write, from 0: 3/8.")
    ] = "0/1",
    max_new_tokens: MaxNewTokens = None,
    context: Context = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Chains written together.")] = 128,
    device: Annotated[
        str | None, typer.Option(help="Device.", show_default="an accelerator if there is one")
    ] = None,
) -> None:
    """Let the teacher write chains of thought, and keep the right ones; many machines can share."""
    import torch

    from workbench.distill.config import DistillationConfig
    from workbench.distill.examples.traces import write_traces
    from workbench.distill.training.run import trace_config
    from workbench.distill.training.student import word_encoder
    from workbench.errors import InputError
    from workbench.models import loading
    from workbench.models.loading import bundled_model_path
    from workbench.progress import Reporter
    from workbench.prompts.choices import open_task

    prepare()
    which, slash, parts = part.partition("/")
    if not (slash and which.isdecimal() and parts.isdecimal()):
        raise InputError(f"part {part!r} is not WHICH/PARTS; give 0/8, 1/8 and so on")
    sizes = {"n_traces": n_traces, "max_new_tokens": max_new_tokens, "context": context}
    config = replace(DistillationConfig(), **_given(sizes))
    settings = trace_config(config, (int(which), int(parts)))
    folder = loading.model_folder(bundled_model_path() if teacher is None else teacher)
    digest = loading.files_sha256(loading.weight_files(folder))
    place = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    dtype = torch.float32 if place.type == "cpu" else torch.bfloat16
    model: Any = loading.read_model(folder, dtype=dtype)
    model.to(place).eval()
    with Reporter().step("traces", len(settings.draws)) as advance:
        kept = write_traces(
            out,
            model,
            open_task(model=folder, split="seen", full_size=False),
            word_encoder(loading.read_tokenizer(folder), folder),
            settings,
            teacher=digest,
            batch_size=batch_size,
            progress=advance,
        )
    typer.echo(f"traces: {out}, {kept} of {len(settings.draws)} draws are right")


@app.command()
def distill(
    out: Annotated[Path, typer.Option(help="Student's folder; a stopped one goes on.")],
    headset: Annotated[
        Path | None, typer.Option(help="The teacher's head set, or a list of heads made by hand.")
    ] = None,
    teacher: Teacher = None,
    arm: Annotated[
        str,
        typer.Option(help="What the student is trained on: cot, cot+logits, mechanistic, minilm …"),
    ] = "mechanistic",
    student: Annotated[
        str | None,
        typer.Option(help="Pretrained student: folder or hub id.", show_default="a new model"),
    ] = None,
    n_layers: Annotated[int | None, typer.Option(help="Of a new student.")] = None,
    n_heads: Annotated[int | None, typer.Option(help="Of a new student.")] = None,
    n_kv_heads: Annotated[int | None, typer.Option(help="Of a new student.")] = None,
    d_model: Annotated[int | None, typer.Option(help="Of a new student.")] = None,
    d_mlp: Annotated[int | None, typer.Option(help="Of a new student.")] = None,
    attention: Weight = None,
    update: Weight = None,
    interaction: Weight = None,
    logit: Weight = None,
    update_space: Annotated[
        UpdateSpace | None,
        typer.Option(help="Compare what heads write, or what it adds to the options' logits."),
    ] = None,
    matching: Annotated[
        Matching, typer.Option(help="How student heads are matched with the teacher's.")
    ] = Matching.auto,
    steps: Annotated[int | None, typer.Option(help="Training steps.")] = None,
    batch_size: BatchSize = None,
    accumulation: Annotated[int | None, typer.Option(help="Forwards of a step.")] = None,
    learning_rate: Annotated[float | None, typer.Option(help="Peak of the schedule.")] = None,
    warmup_steps: Annotated[int | None, typer.Option(help="Steps up to the peak.")] = None,
    direct: Annotated[float | None, typer.Option(help="Share of examples without a chain.")] = None,
    bf16: Annotated[bool, typer.Option(help="Mixed precision.")] = True,
    n_traces: NTraces = None,
    max_new_tokens: MaxNewTokens = None,
    context: Context = None,
    traces: Annotated[
        Path | None,
        typer.Option(
            help="Finished trace file, or folder of all its parts.", show_default="made in --out"
        ),
    ] = None,
    scores: Annotated[
        Path | None,
        typer.Option(
            help="Scores of the run, for control heads.", show_default="beside the head set"
        ),
    ] = None,
    readout_every: Annotated[int, typer.Option(min=1, help="Steps between readouts.")] = 200,
    checkpoint_every: Annotated[int, typer.Option(min=1, help="Steps between checkpoints.")] = 500,
    workers: Annotated[int, typer.Option(min=0, help="Processes that make examples.")] = 2,
    seed: Annotated[int, typer.Option(help="Of weights, examples and random heads.")] = 0,
) -> None:
    """Train a student on a teacher's chains and on what its pooled heads do.

    Runs under `accelerate launch -m workbench distill …` too, on several devices.
    """
    from workbench.distill.arms import arm_config
    from workbench.distill.config import DistillationConfig, StudentShape
    from workbench.distill.training.run import distil
    from workbench.models import loading
    from workbench.models.loading import bundled_model_path
    from workbench.prompts.choices import open_task
    from workbench.prompts.make import make_prompts

    prepare()
    sizes = {
        "n_layers": n_layers,
        "n_heads": n_heads,
        "n_kv_heads": n_kv_heads,
        "d_model": d_model,
        "d_mlp": d_mlp,
    }
    top = {
        "steps": steps,
        "batch_size": batch_size,
        "accumulation": accumulation,
        "learning_rate": learning_rate,
        "warmup_steps": warmup_steps,
        "n_traces": n_traces,
        "max_new_tokens": max_new_tokens,
        "context": context,
    }
    config = arm_config(arm, replace(DistillationConfig(), **_given(top)))
    weights = {"attention": attention, "update": update, "interaction": interaction, "logit": logit}
    space = {"update_space": update_space and update_space.value}
    config = replace(
        config,
        loss=replace(config.loss, **_given({**weights, **space})),
        mix=replace(config.mix, **_given({"direct": direct})),
        student=student or StudentShape(**_given(sizes)),
        matching=matching.value,
        bf16=bf16,
        seed=seed,
    )
    folder = loading.model_folder(bundled_model_path() if teacher is None else teacher)
    pools = _pools(headset, folder)
    if pools is not None and config.loss.taught_pools:  # one pool alone can be taught, too
        there = {head.pool for head in pools}
        taught = tuple(pool for pool in config.loss.pools if pool in there)
        config = replace(config, loss=replace(config.loss, pools=taught))
    table = _scores(scores, headset, config)
    record = distil(
        out,
        folder,
        pools,
        config,
        task=open_task(model=folder, split="seen", full_size=False),
        prompts=make_prompts(model=folder, n_prompts=READOUT_PROMPTS, seed=READOUT_SEED),
        scores=table,
        traces=traces,
        readout_every=readout_every,
        checkpoint_every=checkpoint_every,
        workers=workers,
    )
    last = record["loss"][-1]["loss"] if record["loss"] else float("nan")
    typer.echo(f"student: {out}, {record['n_parameters']:,} parameters, last loss {last:.4f}")


@app.command("distill-study")
def distill_study(
    out: Annotated[Path, typer.Option(help="Folder of the students' folders; goes on if there.")],
    steps: Annotated[int, typer.Option(min=1, help="Training steps of every student.")] = 2400,
    arms: Annotated[
        str | None, typer.Option(help="Arms by name: cot,mechanistic.", show_default="all")
    ] = None,
    seeds: Annotated[int, typer.Option(min=1, help="Students of each arm.")] = 3,
    main_seeds: Annotated[
        int, typer.Option(min=1, help="Students of cot, mechanistic and random.")
    ] = 5,
    costs: Annotated[
        Path | None,
        typer.Option(help="File of bench-distill: cheaper arms get equal compute, too."),
    ] = None,
    jobs: Annotated[int, typer.Option(min=1, help="Students trained side by side.")] = 1,
    flags: Annotated[
        list[str] | None, typer.Argument(help="After --: flags of distill, the same for all.")
    ] = None,
) -> None:
    """Every arm with several seeds: distill-study --out FOLDER -- --headset FILE --traces FOLDER.

    Make the traces first, with `traces`, and give them with --traces. Every CUDA device that is
    seen takes its share of the jobs.
    """
    import os

    import torch

    from workbench.bench.distill import read_costs
    from workbench.distill.arms import ARMS
    from workbench.errors import InputError
    from workbench.progress import Reporter
    from workbench.studies.distillation import plan, run_study

    names = arms.split(",") if arms else list(ARMS)
    measured = None if costs is None else read_costs(costs)
    students = plan(names, steps=steps, seeds=seeds, main_seeds=main_seeds, costs=measured)
    n_devices = torch.cuda.device_count()
    places = [{**os.environ, "CUDA_VISIBLE_DEVICES": str(n)} for n in range(n_devices)]
    with Reporter().step("students", len(students)) as advance:
        failed = run_study(
            out, students, flags or [], jobs=jobs, environments=places or [{}], progress=advance
        )
    if failed:
        raise InputError(
            f"{len(failed)} students failed, first {failed[0]}: see {out}/{failed[0]}.log"
        )
    typer.echo(f"students: {out}, {len(students)}; then: workbench evaluate {out}/*-[0-9]")


@app.command("bench-distill")
def bench_distill(
    out: Annotated[Path, typer.Option(help="JSON file to write.")],
    headset: Annotated[Path, typer.Option(help="The teacher's head set.")],
    traces: Annotated[Path, typer.Option(help="Trace file, or folder of all its parts.")],
    teacher: Teacher = None,
    arms: Annotated[str, typer.Option(help="Arms by name.")] = MEASURED,
    batch_size: BatchSize = None,
    n_batches: Annotated[int, typer.Option(min=1, help="Batches that steps go through.")] = 4,
    n_steps: Annotated[int, typer.Option(min=1, help="Steps that are timed.")] = 50,
    repeats: Annotated[int, typer.Option(min=1, help="Of every arm; the best counts.")] = 3,
    bf16: Annotated[bool, typer.Option(help="Mixed precision.")] = True,
) -> None:
    """What a training step of each arm costs, side by side on the same batches."""
    import json

    import torch

    from workbench.bench.distill import step_costs
    from workbench.distill.config import DistillationConfig
    from workbench.distill.examples.stream import Collator, DistillationStream
    from workbench.distill.examples.traces import read_traces
    from workbench.distill.training.student import word_encoder
    from workbench.errors import InputError
    from workbench.files import write_text
    from workbench.models import loading
    from workbench.models.loading import bundled_model_path
    from workbench.prompts.choices import open_task

    if out.exists():
        raise InputError(f"{out}: exists already; give another --out")
    prepare()
    config = replace(DistillationConfig(bf16=bf16), **_given({"batch_size": batch_size}))
    folder = loading.model_folder(bundled_model_path() if teacher is None else teacher)
    on_gpu = torch.cuda.is_available()
    model: Any = loading.read_model(folder, dtype=torch.bfloat16 if on_gpu else torch.float32)
    model.to("cuda" if on_gpu else "cpu").eval()
    size = config.batch_size
    stream = DistillationStream(
        open_task(model=folder, split="seen", full_size=False),
        word_encoder(loading.read_tokenizer(folder), folder),
        read_traces(traces, loading.files_sha256(loading.weight_files(folder))),
        config.mix,
        n_samples=n_batches * size,
        context=config.context,
        same_size=size,
        seed=config.seed,
    )
    batches = [
        Collator()([stream[index] for index in range(start, start + size)])
        for start in range(0, n_batches * size, size)
    ]
    pools, names = _pools(headset, folder), arms.split(",")
    about = {
        "device": torch.cuda.get_device_name() if on_gpu else "cpu",
        "torch": torch.__version__,
        "shapes": [list(batch["input_ids"].shape) for batch in batches],
        "bf16": bf16,
    }
    rounds = step_costs(
        model, pools, batches, names, config, n_steps=n_steps, repeats=repeats, say=typer.echo
    )
    for rows in rounds:  # written after each: a stopped measurement keeps what it has
        write_text(out, json.dumps(about | {"arms": rows}, indent=1))
    typer.echo(f"benchmark: {out}")


def _pools(headset: Path | None, folder: Path) -> Any:
    from workbench.distill.matching.files import heads_for

    return None if headset is None else heads_for(headset, folder)


def _scores(given: Path | None, headset: Path | None, config: "DistillationConfig") -> Any:
    """The table that control heads are chosen by; only read where there are any."""
    import pandas as pd

    from workbench.errors import InputError

    if config.heads == "pools":
        return None
    path = given or (headset.parent / "scores.parquet" if headset else None)
    if path is None or not path.is_file():
        raise InputError(
            f"{config.heads} heads are chosen by a run's scores table; give --scores FILE"
        )
    try:
        return pd.read_parquet(path, columns=["layer", "head", "output_norm"])
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: is not a scores table of a run ({error})") from None


def _given(flags: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in flags.items() if value is not None}
