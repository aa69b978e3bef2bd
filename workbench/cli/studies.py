"""Commands that test the method, and follow models along chains of thought and training."""

from contextlib import nullcontext
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from workbench.cli.app import (
    GOES_ON,
    LABELS,
    MAINTAINERS,
    app,
    command,
    commands,
    new_folder,
    prepare,
)
from workbench.cli.flags import Device, Dtype, ModelPart, Prompts, some_run_flags

study = commands("Studies of training runs and of distillation.")
app.add_typer(study, name="study", rich_help_panel=MAINTAINERS)


@command(LABELS, settings=lambda: some_run_flags("n_prompts", "n_resamples", "seed"))
def trajectory(
    models: Annotated[list[str], typer.Argument(help="Model folders or hub ids: teacher first.")],
    out: Annotated[Path, typer.Option(help="Folder for the tables and the figure.")],
    settings: dict[str, Any],
    prompts: Annotated[
        Path | None, typer.Option(help="Prompt file.", show_default="made for the first model")
    ] = None,
    device: Device = None,
    dtype: Dtype = "float32",
) -> None:
    """Focus and Confusion along the chains that models write, several models in one figure."""
    import pandas as pd

    import workbench as wb
    from workbench.analysis.chains.trajectories import chain_trajectory
    from workbench.files import write_table
    from workbench.plots.chains import chain_trajectories
    from workbench.plots.evidence_words import aligned
    from workbench.plots.page import write_figure
    from workbench.progress import Reporter
    from workbench.prompts.files import read_prompts
    from workbench.runs.evidence import follow_chains, turns

    prepare()
    config = wb.RunConfig(**settings)
    with new_folder(out):
        made = (
            read_prompts(prompts)
            if prompts
            else wb.make_prompts(model=models[0], **config.of_prompts())
        )
        reporter, frames = Reporter(), []
        for name in models:
            reporter.say(name)
            model = wb.HookedModel.load(name, dtype=dtype, device=device, reporter=reporter)
            frames.append(follow_chains(model, made, reporter, ("clean",))[1])
        values = pd.concat(frames, ignore_index=True)
        seeded = {"n_resamples": config.n_resamples, "seed": config.seed}
        table, turned = chain_trajectory(values, **seeded), turns(values, **seeded)
        write_table(out / "trajectories.csv", table.round(4))
        write_table(out / "turning_points.csv", turned.round(4))
        write_figure(out / "trajectories.html", chain_trajectories(aligned(table)))
    typer.echo(turned.drop(columns=["source", "note"]).round(3).to_string(index=False))
    typer.echo(f"tables and figure: {out}")


@command(MAINTAINERS, stopped=GOES_ON)
def selftest(
    out: Annotated[
        Path | None,
        typer.Option(
            help="Folder for the tables, which goes on if there; with --architectures a .csv or "
            ".json file."
        ),
    ] = None,
    placements: Annotated[int, typer.Option(min=1, help="Planted models of each kind.")] = 20,
    kinds: Annotated[
        str | None,
        typer.Option(help="Planted models of these kinds and no other test: chains,hydra; or all."),
    ] = None,
    random_models: Annotated[int, typer.Option(min=1, help="Models with random weights.")] = 100,
    seed: Annotated[int, typer.Option(help="Seed of models, prompts and the method.")] = 0,
    architectures: Annotated[
        bool, typer.Option("--architectures", help="Every architecture against plain hooks.")
    ] = False,
    only: Annotated[
        str | None, typer.Option(help="With --architectures, these alone: llama,gemma2.")
    ] = None,
) -> None:
    """Does the method find planted heads, and nothing where there is nothing?

    With --architectures: does the workbench compute what transformers computes? Ends with code 1 if
    some number is wrong.
    """
    from tempfile import TemporaryDirectory

    from workbench.errors import InputError
    from workbench.files import alone_in

    prepare()
    if architectures:
        _architectures(out, only, seed)
        return
    if only is not None:
        raise InputError("--only goes with --architectures")
    from workbench.studies.placements import lines
    from workbench.studies.planted.kinds import KINDS, kind_named
    from workbench.studies.selftest import run_planted, run_selftest

    named = () if kinds is None else tuple(KINDS) if kinds == "all" else tuple(kinds.split(","))
    for kind in named:
        kind_named(kind)
    with TemporaryDirectory() as scratch, nullcontext() if out is None else alone_in(out):
        folder = out or Path(scratch)
        if named:
            said = lines(run_planted(folder, named, placements, seed))
        else:
            said = run_selftest(folder, placements, random_models, seed).lines()
    for line in said:
        typer.echo(line)


def _architectures(out: Path | None, only: str | None, seed: int) -> None:
    """The table of architectures, a line as each is done."""
    from workbench.errors import InputError
    from workbench.files import write_text
    from workbench.studies.architectures import FAULTS, run_architectures, summary

    if out is not None and out.suffix not in (".csv", ".json"):
        raise InputError(f"--out {out}: the table is written as .csv or .json")
    table = run_architectures(
        [name.strip() for name in only.split(",")] if only else (),
        seed,
        lambda row, done, of: typer.echo(f"{done}/{of} {row}"),
    )
    if out is not None:
        as_json = out.suffix == ".json"
        text = table.to_json(orient="records", indent=1) if as_json else table.to_csv(index=False)
        write_text(out, str(text))
    for line in summary(table):
        typer.echo(line)
    if not set(FAULTS).isdisjoint(table["outcome"].tolist()):
        raise typer.Exit(1)


@command(
    MAINTAINERS, settings=lambda: some_run_flags("n_resamples", "seed"), of=study, stopped=GOES_ON
)
def checkpoints(
    folders: Annotated[
        list[Path], typer.Argument(help="Model folders step-000600 and so on, or one of them all.")
    ],
    headset: Annotated[Path, typer.Option(help="Head set of the trained model.")],
    out: Annotated[Path, typer.Option(help="Folder for the table and the figure.")],
    settings: dict[str, Any],
    prompts: Prompts = None,
    extra_heads: Annotated[str, typer.Option(help="Heads to follow beside the pools: 4-3.")] = "",
    device: Device = None,
    dtype: Dtype = "float32",
) -> None:
    """When do the pooled heads form? Scores and effects along a training run."""
    import workbench as wb
    from workbench.errors import InputError
    from workbench.files import write_table
    from workbench.heads import parse_heads
    from workbench.plots.page import write_figure
    from workbench.plots.training import training_phases
    from workbench.prompts.files import read_prompts
    from workbench.runs.place import hold
    from workbench.studies.checkpoints import read_terms, study_checkpoints
    from workbench.studies.formation import formation

    prepare()
    if len(folders) == 1 and not (folders[0] / "config.json").is_file():
        folders = sorted(path for path in folders[0].glob("step-*") if path.is_dir())
    if not folders:
        raise InputError("no checkpoints: give folders named step-000600 and so on")
    config = wb.RunConfig(**settings)
    with hold(out):
        table = study_checkpoints(
            folders,
            prompts=read_prompts(prompts)
            if prompts
            else wb.make_prompts(model=folders[0], **config.of_prompts()),
            headset=wb.load_headset(headset),
            extra_heads=parse_heads(extra_heads) if extra_heads else (),
            config=config,
            dtype=dtype,
            device=device,
            out=out,
        )
        write_table(out / "training.csv", table.round(4))
        write_figure(out / "training.html", training_phases(table))
        terms = read_terms(out)
        dates = formation(table, terms, n_resamples=config.n_resamples, seed=config.seed).round(3)
        write_table(out / "formation.csv", dates)
    typer.echo(dates.to_string(index=False))
    typer.echo(f"table: {out / 'training.csv'}, figure: {out / 'training.html'}")


@command(MAINTAINERS, of=study, settings=lambda: some_run_flags("n_resamples", "seed"))
def reasoning(
    out: Annotated[Path, typer.Option(help="Folder for the tables and the figure.")],
    settings: dict[str, Any],
    model: Annotated[str, typer.Option(help="Model that reasons.")] = "reasoner",
    n: Annotated[int, typer.Option("--n", min=6, help="Prompts, a decision each.")] = 120,
    split: Annotated[
        Literal["seen", "unseen"], typer.Option(help="Categories of the training, or not.")
    ] = "unseen",
    device: Device = None,
    dtype: Dtype = "float32",
) -> None:
    """Focus and Confusion along chains in two formats, by depth of reference."""
    import workbench as wb
    from workbench.files import write_table
    from workbench.models.loading import model_folder
    from workbench.plots.moments import own_moments
    from workbench.plots.page import write_figure
    from workbench.prompts.trained import open_laterality
    from workbench.studies.reasoning import follow_reasoning

    prepare()
    config = wb.RunConfig(**settings)
    with new_folder(out):
        task = open_laterality(model=model_folder(model), split=split)
        loaded = wb.HookedModel.load(model, dtype=dtype, device=device)
        found = follow_reasoning(
            loaded, task, n_prompts=n, seed=config.seed, n_resamples=config.n_resamples
        )
        for name, table in vars(found).items():
            write_table(out / f"{name}.csv", table.round(4))
        write_figure(out / "moments.html", own_moments(found.moments))
    shown = ["format", "depth", "moment", "focus", "confusion", "p_gold", "n"]
    typer.echo(found.moments[shown].round(3).to_string(index=False))
    typer.echo(f"tables and figure: {out}")


@command(
    MAINTAINERS,
    of=study,
    settings=lambda: some_run_flags("n_resamples"),
    stopped=GOES_ON,
    beats=True,
)
def trajectories(
    out: Annotated[Path, typer.Option(help="Folder of the study: new, or the same study's.")],
    settings: dict[str, Any],
    student: Annotated[
        list[str] | None,
        typer.Option(help="NAME=FOLDER of a student, named by its arm; again for each."),
    ] = None,
    teacher: Annotated[str, typer.Option(help="Their teacher, whose task it is.")] = "reasoner",
    n: Annotated[int, typer.Option("--n", min=1, help="Prompts, a decision each.")] = 60,
    task: Annotated[
        str, typer.Option(help="Task of the prompts; auto: what the teacher was trained on.")
    ] = "auto",
    split: Annotated[
        Literal["seen", "unseen"], typer.Option(help="Categories of the training, or not.")
    ] = "unseen",
    embedding: Annotated[
        str, typer.Option(help="Of texts: own (the teacher's), own:LAYER, or a folder.")
    ] = "own",
    part: ModelPart = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of prompts and resamples.")] = 1,
    device: Device = None,
    dtype: Dtype = "float32",
) -> None:
    """Focus and Confusion along the chains of teacher and students, by probability and by text."""
    from workbench.files import write_table
    from workbench.plots.page import write_figure
    from workbench.plots.paper import trajectories as figure
    from workbench.studies.named_models import NamedModels
    from workbench.studies.reported import reported_along
    from workbench.studies.trajectories import Trajectories, study_trajectories

    prepare()
    models = NamedModels.read(teacher, student or ())
    study = Trajectories(models, n, task, split, embedding, settings["n_resamples"], seed)
    found = study_trajectories(study, out, part=part, device=device, dtype=dtype)
    if found is None:
        typer.echo(f"part {part}: done; without --part, when all are, come the tables")
        return
    for name, table in vars(found).items():
        write_table(out / f"{name}.csv", table, float_format="%.5g")
    write_figure(out / "trajectories.html", figure(found.along, reported_along()))
    shown = found.table.pivot_table("value", ["quantity", "t"], "model")
    typer.echo(shown[list(models.all)].round(3).to_string())
    typer.echo(f"tables and figure: {out}")


@command(MAINTAINERS, of=study)
def coverage(
    out: Annotated[Path, typer.Option(help="The table: a .csv file.")],
    samples: Annotated[int, typer.Option(min=1, help="Simulated samples of each size.")] = 2000,
    seed: Annotated[int, typer.Option(min=0, help="Seed of samples and resamples.")] = 0,
) -> None:
    """How often the intervals of effects hold the true value, by simulation."""
    from workbench.files import write_table
    from workbench.progress import Reporter
    from workbench.studies.coverage import HEADS, SIZES, coverage_table

    with Reporter().step("coverage", len(HEADS) * len(SIZES)) as advance:
        table = coverage_table(samples, seed=seed, progress=advance)
    write_table(out, table.round(4))
    held = table[table["interval"] == "studentised"].groupby("n_prompts")["coverage"]
    typer.echo(held.agg(["min", "median", "max"]).round(3).to_string())


@command(MAINTAINERS, of=study, stopped=GOES_ON)
def distillation(
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
        typer.Option(help="File of `bench distill`: cheaper arms get equal compute, too."),
    ] = None,
    jobs: Annotated[int, typer.Option(min=1, help="Students trained side by side.")] = 1,
    flags: Annotated[
        list[str] | None, typer.Argument(help="After --: flags of distill, the same for all.")
    ] = None,
) -> None:
    """Every arm, several seeds: study distillation --out FOLDER -- --headset FILE --traces FOLDER.

    Make the traces first, with `traces`, and give them with --traces. Every CUDA device that is
    seen takes its share of the jobs.
    """
    import os

    import torch

    from workbench.bench.distill import read_costs
    from workbench.distill.arms import ON_TRACES
    from workbench.errors import InputError
    from workbench.files import alone_in
    from workbench.progress import Reporter
    from workbench.studies.distillation import plan, run_study

    names = arms.split(",") if arms else list(ON_TRACES)
    measured = None if costs is None else read_costs(costs)
    students = plan(names, steps=steps, seeds=seeds, main_seeds=main_seeds, costs=measured)
    n_devices = torch.cuda.device_count()
    places = [{**os.environ, "CUDA_VISIBLE_DEVICES": str(n)} for n in range(n_devices)]
    with alone_in(out), Reporter().step("students", len(students)) as advance:
        failed = run_study(
            out, students, flags or [], jobs=jobs, environments=places or [{}], progress=advance
        )
    if failed:
        raise InputError(
            f"{len(failed)} students failed, first {failed[0]}: see {out}/{failed[0]}.log"
        )
    typer.echo(f"students: {out}, {len(students)}; then: workbench evaluate-students {out}/*-[0-9]")
