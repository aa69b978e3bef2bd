"""The command line: each command reads its flags and calls the function of the same name.

What the user got wrong is one line on standard error and exit code 2; Ctrl-C is exit code 130; any
other exception is a bug and keeps its traceback. Heavy imports wait for the command that needs
them, so that `--help` is quick.
"""

import os
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from workbench import __version__
from workbench.config import DEFAULTS, RunConfig
from workbench.errors import InputError
from workbench.options import (
    BOTH,
    F32,
    PLAIN,
    UNSEEN,
    Controls,
    Device,
    Draws,
    DtypeFlag,
    Force,
    Form,
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
    Seed,
    SplitFlag,
    TemplateFlag,
)


class _Commands(TyperGroup):
    """Turns exceptions that are meant for the user into one line and an exit code."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except InputError as error:
            _complain(f"error: {error}")
            raise typer.Exit(2) from None
        except KeyboardInterrupt:
            _complain("stopped; run the same command again to go on where it stopped")
            raise typer.Exit(130) from None


app = typer.Typer(
    cls=_Commands,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="Find, prove and export the attention heads with which a language model picks labels.",
)


@app.command()
def run(
    out: Out,
    model: Model = None,
    prompts: Prompts = None,
    n: NPrompts = DEFAULTS.n_prompts,
    template: TemplateFlag = PLAIN,
    split: SplitFlag = UNSEEN,
    heads: Heads = DEFAULTS.heads,
    positions: PositionsFlag = BOTH,
    n_nominated: Nominated = DEFAULTS.n_nominated,
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
        n_prompts=n,
        template=template.value,
        split=split.value,
        seed=seed,
        n_resamples=n_resamples,
        n_permutations=n_permutations,
        heads=heads,
        positions=positions.positions,
        n_nominated=n_nominated,
        n_controls=n_controls,
        false_discovery_rate=false_discovery_rate,
        min_restore_low=min_restore_low,
        read_out_share=read_out_share,
        draws=draws,
    )
    pipeline = _pipeline()
    pipeline.run(out, model=model, prompts=prompts, config=config, dtype=dtype.value, device=device)
    _summarise(out)


@app.command()
def prompts(
    out: Annotated[Path, typer.Option(help="Prompt file to write (.jsonl).")],
    task: Annotated[str, typer.Option(help="What the prompts ask for.")] = DEFAULTS.task,
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
    from workbench.inputs import make_prompts

    made = make_prompts(out, model=model, config=config, force=force)
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
    pipeline = _pipeline()
    opened = pipeline.open_run(
        out, model=model, prompts=prompts, config=config, dtype=dtype.value, device=device
    )
    pipeline.score(opened)
    typer.echo(f"scores: {out / 'scores.parquet'}")


@app.command()
def patch(
    out: Out,
    model: Model = None,
    prompts: Prompts = None,
    heads: Heads = DEFAULTS.heads,
    positions: PositionsFlag = BOTH,
    n_nominated: Nominated = DEFAULTS.n_nominated,
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
        n_controls=n_controls,
        n_resamples=n_resamples,
        seed=seed,
    )
    pipeline = _pipeline()
    pipeline.RunFolder.open(out)
    opened = pipeline.open_run(
        out, model=model, prompts=prompts, config=config, dtype=dtype.value, device=device
    )
    pipeline.patch(opened)
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
    pipeline = _pipeline()
    pipeline.RunFolder.open(out)
    opened = pipeline.open_run(
        out, model=model, prompts=prompts, config=config, dtype=dtype.value, device=device
    )
    pipeline.pool(opened)
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
    pipeline = _pipeline()
    pipeline.RunFolder.open(out)
    opened = pipeline.open_run(
        out, model=model, prompts=prompts, config=config, dtype=dtype.value, device=device
    )
    pipeline.paths(opened)
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
    path = _pipeline().report(out, show_text=show_text, model=model)
    typer.echo(f"report: {path}")


@app.command()
def validate(
    files: Annotated[list[Path], typer.Argument(help="Prompt files (.jsonl), head sets (.json).")],
    model: Annotated[
        str | None, typer.Option(help="Model that the files must fit: folder or hub id.")
    ] = None,
) -> None:
    """Check prompt files and head-set files."""
    from workbench.inputs import validate as check
    from workbench.models.hooked import HookedModel

    _prepare()
    loaded = None if model is None else HookedModel.load(model)
    bad = 0
    for file in files:
        try:
            typer.echo(check(file, model=loaded))
        except InputError as error:
            _complain(f"error: {error}")
            bad += 1
    if bad:
        raise typer.Exit(2)


@app.command()
def export(
    file: Annotated[Path, typer.Argument(help="Head-set file.")],
    form: Annotated[Form, typer.Option(help="Whose form to write.")],
    out: Annotated[Path, typer.Option(help="File to write.")],
    pool: Annotated[
        str | None, typer.Option(help="coarse or refine.", show_default="both pools")
    ] = None,
    force: Force = False,
) -> None:
    """Write a head set in the form that another tool reads."""
    from workbench.headsets.export import export as write
    from workbench.headsets.headset import load

    if out.exists() and not force:
        raise InputError(f"{out}: exists already; give another --out, or --force to replace it")
    write(load(file), out, form.value, pool)
    typer.echo(f"{form.value}: {out}")


@app.command()
def organism(
    out: Annotated[Path, typer.Option(help="Model folder to write.")],
    steps: Annotated[int | None, typer.Option(help="Training steps.")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Examples per step.")] = None,
    n_layers: Annotated[int | None, typer.Option(help="Layers.")] = None,
    learning_rate: Annotated[float | None, typer.Option(help="Peak of the schedule.")] = None,
    warmup_steps: Annotated[int | None, typer.Option(help="Steps up to the peak.")] = None,
    direct: Annotated[float | None, typer.Option(help="Share of direct examples.")] = None,
    prompt_weight: Annotated[float | None, typer.Option(help="Loss weight of prompts.")] = None,
    ramp: Annotated[float | None, typer.Option(help="Share of steps with easier notes.")] = None,
    invented: Annotated[float | None, typer.Option(help="Share of invented families.")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of weights and data.")] = None,
    n_eval: Annotated[int, typer.Option(min=1, help="Prompts per accuracy.")] = 1000,
    workers: Annotated[int, typer.Option(min=0, help="Processes that make examples.")] = 2,
) -> None:
    """Train the bundled model again; takes up the last checkpoint in its folder."""
    from workbench.models.organism import OrganismConfig, train_organism

    _prepare()
    mix = {"direct": direct, "prompt_weight": prompt_weight, "ramp": ramp, "invented": invented}
    top = {
        "steps": steps,
        "batch_size": batch_size,
        "n_layers": n_layers,
        "learning_rate": learning_rate,
        "warmup_steps": warmup_steps,
        "seed": seed,
    }
    config = OrganismConfig()
    config = replace(config, **_given(top), mix=replace(config.mix, **_given(mix)))
    train_organism(out, config, n_eval=n_eval, workers=workers)
    typer.echo(f"model: {out}")


def _given(flags: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in flags.items() if value is not None}


@app.callback(invoke_without_command=True)
def _version(
    version: Annotated[bool, typer.Option("--version", help="Show the version.")] = False,
) -> None:
    if version:
        typer.echo(__version__)
        raise typer.Exit


def _pipeline() -> Any:
    from workbench import pipeline

    _prepare()
    return pipeline


def _prepare() -> None:
    """Torch on all cores unless the environment says otherwise, and no bars but our own."""
    import torch
    from transformers.utils import logging

    logging.disable_progress_bar()
    if "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(os.cpu_count() or 1)


def _summarise(out: Path) -> None:
    from rich.console import Console

    from workbench.summary import summary

    Console().print(summary(out))


def _complain(message: str) -> None:
    """One line on standard error, as it is: brackets in a file name are no markup."""
    from rich.console import Console
    from rich.text import Text

    line = " ".join(message.split())
    Console(stderr=True).print(Text(line), soft_wrap=True)


def main() -> None:
    """Entry point of the `workbench` script."""
    app()
