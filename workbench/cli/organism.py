"""The commands that train the models of the repository."""

from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from workbench.cli.app import GOES_ON, MAINTAINERS, command, prepare
from workbench.cli.flags import Flag, setting_flags

SIZES = ("steps", "batch_size", "n_layers", "learning_rate", "warmup_steps", "seed")
MIX = ("direct", "prompt_weight", "ramp", "invented")
ADAPTER = ("base", "rank", "alpha", "steps", "batch_size", "learning_rate", "warmup_steps")
ADAPTER += ("control", "seed")
INVENTED = ("invented",)


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


def _adapter_flags() -> dict[str, Flag]:
    from workbench.organism.mix import ExampleMix
    from workbench.organism.reasoner import ReasonerConfig

    return setting_flags(ReasonerConfig, ADAPTER) | setting_flags(ExampleMix, INVENTED)


@command(MAINTAINERS, settings=_adapter_flags, stopped=GOES_ON)
def reasoner(
    out: Annotated[Path, typer.Option(help="Folder of the adapter to write.")],
    settings: dict[str, Any],
    n_eval: Annotated[int, typer.Option(min=1, help="Prompts per accuracy.")] = 500,
    workers: Annotated[int, typer.Option(min=0, help="Processes that make examples.")] = 2,
) -> None:
    """Train the reasoner's adapter again; takes up the last checkpoint in its folder."""
    from workbench.files import alone_in
    from workbench.organism.reasoner import DEFAULTS, train_reasoner

    prepare()
    mix = {name: settings.pop(name) for name in INVENTED}
    config = replace(DEFAULTS, **settings, mix=replace(DEFAULTS.mix, **mix))
    with alone_in(out):
        train_reasoner(out, config, n_eval=n_eval, workers=workers)
    typer.echo(f"adapter: {out}")
