"""Commands beside the steps of a run: check and convert files, measure cost, train the model."""

from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from workbench.cli.app import app, complain, prepare
from workbench.cli.options import (
    BOTH,
    F32,
    DtypeFlag,
    Force,
    Form,
    Model,
    PositionsFlag,
)
from workbench.errors import InputError


@app.command()
def validate(
    files: Annotated[list[Path], typer.Argument(help="Prompt files (.jsonl), head sets (.json).")],
    model: Annotated[
        str | None, typer.Option(help="Model that the files must fit: folder or hub id.")
    ] = None,
) -> None:
    """Check prompt files and head-set files."""
    from workbench.models.hooked import HookedModel
    from workbench.runs.validate import validate as check

    prepare()
    loaded = None if model is None else HookedModel.load(model)
    bad = 0
    for file in files:
        try:
            typer.echo(check(file, model=loaded))
        except InputError as error:
            complain(f"error: {error}")
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
def bench(
    out: Annotated[Path, typer.Option(help="JSON file to write.")],
    model: Model = None,
    shape: Annotated[
        str | None, typer.Option(help="Random weights instead: llama3-8b, llama3-70b, tiny.")
    ] = None,
    positions: PositionsFlag = BOTH,
    length: Annotated[int, typer.Option(help="Tokens of a prompt.")] = 512,
    suffix: Annotated[int, typer.Option(help="Shared tokens that a span patches.")] = 384,
    sample: Annotated[int, typer.Option(help="Heads that the loop is timed on.")] = 8,
    repeats: Annotated[int, typer.Option(help="Timings, of which the best counts.")] = 3,
    sweep: Annotated[
        int,
        typer.Option(
            help="Prompts of the bundled task to sweep whole, with and without screening."
        ),
    ] = 0,
    device: Annotated[
        str | None, typer.Option(help="Device, or auto for all accelerators.")
    ] = None,
    dtype: DtypeFlag = F32,
    force: Force = False,
) -> None:
    """Patching every head by this engine and by others, timed side by side."""
    from workbench.bench.patching import bench as measure
    from workbench.bench.patching import summary_lines, write
    from workbench.progress import Reporter

    if out.exists() and not force:
        raise InputError(f"{out}: exists already; give another --out, or --force to replace it")
    prepare()
    result = measure(
        model=model,
        shape=shape,
        positions=positions.positions,
        length=length,
        suffix=suffix,
        sample=sample,
        dtype=dtype.value,
        device=device,
        repeats=repeats,
        sweep_prompts=sweep,
        reporter=Reporter(),
    )
    write(result, out)
    for line in summary_lines(result):
        typer.echo(line)
    typer.echo(f"benchmark: {out}")


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
    snapshots: Annotated[
        int, typer.Option(min=0, help="Models of the way there to keep, evenly spaced.")
    ] = 0,
) -> None:
    """Train the bundled model again; takes up the last checkpoint in its folder."""
    from workbench.organism.train import OrganismConfig, train_organism

    prepare()
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
    train_organism(out, config, n_eval=n_eval, workers=workers, snapshots=snapshots)
    typer.echo(f"model: {out}")


def _given(flags: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in flags.items() if value is not None}
