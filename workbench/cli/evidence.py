"""Commands that test what was found: evidence for a run, the method on known models, training."""

from pathlib import Path
from typing import Annotated

import typer

from workbench.cli.app import app, prepare
from workbench.cli.options import F32, Device, DtypeFlag, Model, NPrompts, Out, Resamples, Seed
from workbench.runs.config import DEFAULTS, RunConfig


@app.command()
def evidence(
    out: Out,
    model: Model = None,
    n_resamples: Resamples = DEFAULTS.n_resamples,
    seed: Seed = DEFAULTS.seed,
    device: Device = None,
    dtype: DtypeFlag = F32,
) -> None:
    """Faithfulness curves, stability, chain of thought, and a report with them; after `run`."""
    import workbench as wb
    from workbench.runs.folder import RunFolder

    prepare()
    config = RunConfig(n_resamples=n_resamples, seed=seed)
    RunFolder.open(out)
    opened = wb.open_run(out, model=model, config=config, dtype=dtype.value, device=device)
    wb.evidence(opened)
    path = wb.report(out, reporter=opened.reporter)
    typer.echo(f"report: {path}")


@app.command()
def selftest(
    out: Annotated[
        Path | None, typer.Option(help="Folder for the tables, one row a model (CSV).")
    ] = None,
    placements: Annotated[int, typer.Option(min=1, help="Models with planted heads.")] = 54,
    random_models: Annotated[int, typer.Option(min=1, help="Models with random weights.")] = 100,
    seed: Seed = DEFAULTS.seed,
) -> None:
    """Does the method find planted heads, and nothing where there is nothing?"""
    from workbench.errors import InputError
    from workbench.progress import Reporter
    from workbench.studies.selftest import (
        SelfTest,
        run_falsified,
        run_placements,
        run_random_models,
    )

    prepare()
    if out is not None and out.exists():
        raise InputError(f"{out}: exists already; give another --out")
    reporter = Reporter()
    with reporter.step("planted circuits", placements) as advance:
        planted = run_placements(placements, seed, advance)
    with reporter.step("random models", random_models) as advance:
        plain = run_random_models(random_models, seed, False, advance)
    with reporter.step("random models, every event counts", random_models) as advance:
        every = run_random_models(random_models, seed, True, advance)
    with reporter.step("falsified prompts", 3) as advance:
        false = run_falsified(seed, advance)
    result = SelfTest(planted, plain, every, false)
    if out is not None:
        out.mkdir(parents=True)
        for name in ("placements", "random", "random_all", "falsified"):
            getattr(result, name).to_csv(out / f"{name}.csv", index=False)
    for line in result.lines():
        typer.echo(line)


@app.command()
def checkpoints(
    folders: Annotated[
        list[Path], typer.Argument(help="Model folders step-000600 and so on, or one of them all.")
    ],
    headset: Annotated[Path, typer.Option(help="Head set of the trained model.")],
    out: Annotated[Path, typer.Option(help="Folder for the table and the figure.")],
    prompts: Annotated[
        Path | None, typer.Option(help="Prompt file.", show_default="40 of unseen categories")
    ] = None,
    extra_heads: Annotated[str, typer.Option(help="Heads to follow beside the pools: 4-3.")] = "",
    n_resamples: Resamples = DEFAULTS.n_resamples,
    seed: Seed = DEFAULTS.seed,
    device: Device = None,
    dtype: DtypeFlag = F32,
) -> None:
    """When do the pooled heads form? Scores and effects along a training run."""
    from workbench.errors import InputError
    from workbench.heads import parse_heads
    from workbench.headsets.headset import load
    from workbench.plots.training import training_phases
    from workbench.prompts.files import read_prompts
    from workbench.prompts.make import make_prompts
    from workbench.studies.checkpoints import read_terms, study_checkpoints
    from workbench.studies.formation import formation

    prepare()
    if len(folders) == 1 and not (folders[0] / "config.json").is_file():
        folders = sorted(path for path in folders[0].glob("step-*") if path.is_dir())
    if not folders:
        raise InputError("no checkpoints: give folders named step-000600 and so on")
    config = RunConfig(n_resamples=n_resamples, seed=seed)
    table = study_checkpoints(
        folders,
        prompts=read_prompts(prompts)
        if prompts
        else make_prompts(model=folders[0], **config.of_prompts()),
        headset=load(headset),
        extra_heads=parse_heads(extra_heads) if extra_heads else (),
        config=config,
        dtype=dtype.value,
        device=device,
        out=out,
    )
    table.round(4).to_csv(out / "training.csv", index=False)
    training_phases(table).write_html(out / "training.html", include_plotlyjs=True)
    dates = formation(table, read_terms(out), n_resamples=n_resamples, seed=seed).round(3)
    dates.to_csv(out / "formation.csv", index=False)
    typer.echo(dates.to_string(index=False))
    typer.echo(f"table: {out / 'training.csv'}, figure: {out / 'training.html'}")


@app.command()
def trajectory(
    models: Annotated[list[str], typer.Argument(help="Model folders or hub ids: teacher first.")],
    out: Annotated[Path, typer.Option(help="Folder for the tables and the figure.")],
    prompts: Annotated[
        Path | None, typer.Option(help="Prompt file.", show_default="made for the first model")
    ] = None,
    n: NPrompts = DEFAULTS.n_prompts,
    n_resamples: Resamples = DEFAULTS.n_resamples,
    seed: Seed = DEFAULTS.seed,
    device: Device = None,
    dtype: DtypeFlag = F32,
) -> None:
    """Focus and Confusion along the chains that models write, several models in one figure."""
    import pandas as pd

    from workbench.analysis.chains.trajectories import chain_trajectory
    from workbench.errors import InputError
    from workbench.models.hooked import HookedModel
    from workbench.plots.chains import chain_trajectories
    from workbench.plots.evidence_words import aligned
    from workbench.progress import Reporter
    from workbench.prompts.files import read_prompts
    from workbench.prompts.make import make_prompts
    from workbench.runs.evidence import follow_chains, turns

    prepare()
    if out.exists():
        raise InputError(f"{out}: exists already; give another --out")
    config = RunConfig(n_prompts=n, n_resamples=n_resamples, seed=seed)
    made = (
        read_prompts(prompts) if prompts else make_prompts(model=models[0], **config.of_prompts())
    )
    reporter, frames = Reporter(), []
    for name in models:
        reporter.say(name)
        model = HookedModel.load(name, dtype=dtype.value, device=device)
        frames.append(follow_chains(model, made, reporter, ("clean",))[1])
    values = pd.concat(frames, ignore_index=True)
    table = chain_trajectory(values, n_resamples=n_resamples, seed=seed)
    turned = turns(values, n_resamples=n_resamples, seed=seed)
    out.mkdir(parents=True)
    table.round(4).to_csv(out / "trajectories.csv", index=False)
    turned.round(4).to_csv(out / "turning_points.csv", index=False)
    chain_trajectories(aligned(table)).write_html(out / "trajectories.html", include_plotlyjs=True)
    typer.echo(turned.drop(columns=["source", "note"]).round(3).to_string(index=False))
    typer.echo(f"tables and figure: {out}")
