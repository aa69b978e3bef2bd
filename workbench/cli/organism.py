"""The command that trains the bundled model."""

from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from workbench.cli.app import GOES_ON, MAINTAINERS, command, prepare
from workbench.cli.flags import Flag, setting_flags

SIZES = ("steps", "batch_size", "n_layers", "learning_rate", "warmup_steps", "seed")
MIX = ("direct", "prompt_weight", "ramp", "invented")


def _flags() -> dict[str, Flag]:
    from workbench.organism.mix import ExampleMix
    from workbench.organism.train import OrganismConfig

    return setting_flags(OrganismConfig, SIZES) | setting_flags(ExampleMix, MIX)


@command(MAINTAINERS, settings=_flags, stopped=GOES_ON)
def organism(
    out: Annotated[Path, typer.Option(help="Model folder to write.")],
    settings: dict[str, Any],
    n_eval: Annotated[int, typer.Option(min=1, help="Prompts per accuracy.")] = 1000,
    workers: Annotated[int, typer.Option(min=0, help="Processes that make examples.")] = 2,
    snapshots: Annotated[
        int, typer.Option(min=0, help="Models of the way there to keep, evenly spaced.")
    ] = 0,
) -> None:
    """Train the bundled model again; takes up the last checkpoint in its folder."""
    from workbench.files import alone_in
    from workbench.organism.train import OrganismConfig, train_organism

    prepare()
    mix = {name: settings.pop(name) for name in MIX}
    config = OrganismConfig()
    config = replace(config, **settings, mix=replace(config.mix, **mix))
    with alone_in(out):
        train_organism(out, config, n_eval=n_eval, workers=workers, snapshots=snapshots)
    typer.echo(f"model: {out}")
