"""The steps of a run as commands: all at once, or one after the other."""

from pathlib import Path
from typing import Annotated

import typer

import workbench as wb
from workbench.cli.app import app, prepare
from workbench.cli.options import (
    BOTH,
    F32,
    PLAIN,
    UNSEEN,
    Controls,
    Device,
    Draws,
    DtypeFlag,
    Force,
    Heads,
    Model,
    Nominated,
    NPrompts,
    Out,
    Permutations,
    PositionsFlag,
    Prompts,
    Rate,
    ReadOut,
    Resamples,
    RestoreLow,
    Screened,
    Seed,
    SplitFlag,
    Task,
    TemplateFlag,
)
from workbench.runs.config import DEFAULTS, RunConfig


@app.command()
def run(
    out: Out,
    model: Model = None,
    prompts: Prompts = None,
    task: Task = DEFAULTS.task,
    n: NPrompts = DEFAULTS.n_prompts,
    template: TemplateFlag = PLAIN,
    split: SplitFlag = UNSEEN,
    heads: Heads = DEFAULTS.heads,
    positions: PositionsFlag = BOTH,
    n_nominated: Nominated = DEFAULTS.n_nominated,
    n_screened: Screened = DEFAULTS.n_screened,
    n_controls: Controls = DEFAULTS.n_controls,
    n_resamples: Resamples = DEFAULTS.n_resamples,
    n_permutations: Permutations = DEFAULTS.n_permutations,
    false_discovery_rate: Rate = DEFAULTS.false_discovery_rate,
    min_restore_low: RestoreLow = DEFAULTS.min_restore_low,
    read_out_share: ReadOut = DEFAULTS.read_out_share,
    draws: Draws = DEFAULTS.draws,
    seed: Seed = DEFAULTS.seed,
    device: Device = None,
    dtype: DtypeFlag = F32,
) -> None:
    """Everything: prompts, scores, patching, pools, report; on the bundled model by default."""
    config = RunConfig(
        task=task,
        n_prompts=n,
        template=template.value,
        split=split.value,
        seed=seed,
        n_resamples=n_resamples,
        n_permutations=n_permutations,
        heads=heads,
        positions=positions.positions,
        n_nominated=n_nominated,
        n_screened=n_screened,
        n_controls=n_controls,
        false_discovery_rate=false_discovery_rate,
        min_restore_low=min_restore_low,
        read_out_share=read_out_share,
        draws=draws,
    )
    prepare()
    wb.run(out, model=model, prompts=prompts, config=config, dtype=dtype.value, device=device)
    _summarise(out)


@app.command()
def prompts(
    out: Annotated[Path, typer.Option(help="Prompt file to write (.jsonl).")],
    task: Task = DEFAULTS.task,
    n: NPrompts = DEFAULTS.n_prompts,
    template: TemplateFlag = PLAIN,
    split: SplitFlag = UNSEEN,
    model: Model = None,
    seed: Seed = DEFAULTS.seed,
    force: Force = False,
) -> None:
    """Make a prompt file for a model's tokenizer."""
    config = RunConfig(
        task=task, n_prompts=n, template=template.value, split=split.value, seed=seed
    )
    from workbench.prompts.make import make_prompts

    made = make_prompts(out, model=model, force=force, **config.of_prompts())
    typer.echo(f"{out}: {len(made)} events of {len(made.prompt_ids)} prompts")


@app.command()
def score(
    out: Out,
    model: Model = None,
    prompts: Prompts = None,
    n_resamples: Resamples = DEFAULTS.n_resamples,
    n_permutations: Permutations = DEFAULTS.n_permutations,
    seed: Seed = DEFAULTS.seed,
    device: Device = None,
    dtype: DtypeFlag = F32,
) -> None:
    """CoarseScore and RefineScore of every head; starts a run folder."""
    config = RunConfig(n_resamples=n_resamples, n_permutations=n_permutations, seed=seed)
    prepare()
    opened = wb.open_run(
        out, model=model, prompts=prompts, config=config, dtype=dtype.value, device=device
    )
    wb.score(opened)
    typer.echo(f"scores: {out / 'scores.parquet'}")


@app.command()
def patch(
    out: Out,
    model: Model = None,
    prompts: Prompts = None,
    heads: Heads = DEFAULTS.heads,
    positions: PositionsFlag = BOTH,
    n_nominated: Nominated = DEFAULTS.n_nominated,
    n_screened: Screened = DEFAULTS.n_screened,
    n_controls: Controls = DEFAULTS.n_controls,
    n_resamples: Resamples = DEFAULTS.n_resamples,
    seed: Seed = DEFAULTS.seed,
    device: Device = None,
    dtype: DtypeFlag = F32,
) -> None:
    """Causal effects of heads one by one; after `score`."""
    config = RunConfig(
        heads=heads,
        positions=positions.positions,
        n_nominated=n_nominated,
        n_screened=n_screened,
        n_controls=n_controls,
        n_resamples=n_resamples,
        seed=seed,
    )
    prepare()
    _open(out)
    opened = wb.open_run(
        out, model=model, prompts=prompts, config=config, dtype=dtype.value, device=device
    )
    wb.patch(opened)
    typer.echo(f"causal effects: {out / 'patching.parquet'}")


@app.command()
def pool(
    out: Out,
    model: Model = None,
    prompts: Prompts = None,
    positions: PositionsFlag = BOTH,
    false_discovery_rate: Rate = DEFAULTS.false_discovery_rate,
    min_restore_low: RestoreLow = DEFAULTS.min_restore_low,
    read_out_share: ReadOut = DEFAULTS.read_out_share,
    draws: Draws = DEFAULTS.draws,
    n_resamples: Resamples = DEFAULTS.n_resamples,
    seed: Seed = DEFAULTS.seed,
    device: Device = None,
    dtype: DtypeFlag = F32,
) -> None:
    """Pools, their joint effects beside controls, and the head set; after `patch`."""
    config = RunConfig(
        positions=positions.positions,
        false_discovery_rate=false_discovery_rate,
        min_restore_low=min_restore_low,
        read_out_share=read_out_share,
        draws=draws,
        n_resamples=n_resamples,
        seed=seed,
    )
    prepare()
    _open(out)
    opened = wb.open_run(
        out, model=model, prompts=prompts, config=config, dtype=dtype.value, device=device
    )
    wb.pool(opened)
    _summarise(out)


@app.command()
def paths(
    out: Out,
    model: Model = None,
    prompts: Prompts = None,
    sources: Annotated[
        str, typer.Option(help="Heads that paths start from.", show_default="pooled heads")
    ] = DEFAULTS.sources,
    destinations: Annotated[
        str, typer.Option(help="Heads that paths lead into.", show_default="pooled heads")
    ] = DEFAULTS.destinations,
    positions: PositionsFlag = BOTH,
    n_resamples: Resamples = DEFAULTS.n_resamples,
    seed: Seed = DEFAULTS.seed,
    device: Device = None,
    dtype: DtypeFlag = F32,
) -> None:
    """What heads do through one another's query, key or value; after `pool`."""
    config = RunConfig(
        sources=sources,
        destinations=destinations,
        positions=positions.positions,
        n_resamples=n_resamples,
        seed=seed,
    )
    prepare()
    _open(out)
    opened = wb.open_run(
        out, model=model, prompts=prompts, config=config, dtype=dtype.value, device=device
    )
    wb.paths(opened)
    typer.echo(f"paths: {out / 'paths.parquet'}")


@app.command()
def report(
    out: Out,
    show_text: Annotated[
        bool, typer.Option(help="Write a second report that holds the decoded prompts.")
    ] = False,
    model: Model = None,
) -> None:
    """The tables of a run as one HTML page; after `pool`."""
    path = wb.report(out, show_text=show_text, model=model)
    typer.echo(f"report: {path}")


def _open(out: Path) -> None:
    """Refuse a folder that holds no run, before a model is loaded."""
    from workbench.runs.folder import RunFolder

    RunFolder.open(out)


def _summarise(out: Path) -> None:
    from rich.console import Console

    from workbench.runs.summary import summary

    Console().print(summary(out))
