"""The steps of a run as commands, one after the other on the same folder."""

from functools import partial
from pathlib import Path
from typing import Any

import typer

import workbench as wb
from workbench.cli.app import GOES_ON, STEPS, command, prepare
from workbench.cli.daily import settings_of_run, summarise
from workbench.cli.flags import Device, Dtype, Model, Out, Prompts, run_flags

ABOUT = {
    "score": "CoarseScore and RefineScore of every head; starts a run folder.",
    "patch": "Causal effects of heads one by one; more heads are added to those that are there.",
    "pool": "Pools, their joint effects beside controls, and the head set.",
    "paths": "What heads do through one another's query, key or value; named ends are added.",
    "evidence": "Stability, chain of thought, faithfulness curves, and the report.",
}
TABLES = {
    "score": ("scores", "scores.parquet"),
    "patch": ("causal effects", "patching.parquet"),
    "paths": ("paths", "paths.parquet"),
}


def say_outdated(out: Path) -> str:
    """One line on finished steps that rest on what has changed since, and who does them again."""
    from workbench.runs.folder import RunFolder

    outdated = RunFolder.open(out).outdated
    names = ", ".join(step.name for step in outdated)
    again = " and ".join(f"`workbench {name}`" for name in {step.command: 0 for step in outdated})
    return f"of before this: {names}; {again} with the same --out bring them up to date" * bool(
        names
    )


def _register(name: str) -> None:
    def step(
        ctx: Any,
        out: Out,
        settings: dict[str, Any],
        model: Model = None,
        prompts: Prompts = None,
        device: Device = None,
        dtype: Dtype = "float32",
    ) -> None:
        config = wb.RunConfig(**settings_of_run(ctx, out, settings))
        if name != "score" and prompts is None:
            from workbench.runs.folder import RunFolder

            RunFolder.open(out)  # a folder without a run is refused before a model is loaded
        prepare()
        opened = wb.open_run(
            out, model=model, prompts=prompts, config=config, dtype=dtype, device=device
        )
        getattr(wb, name)(opened)
        if name == "pool":
            summarise(out)
        elif name == "evidence":
            typer.echo(f"report: {wb.report(out, reporter=opened.reporter)}")
        else:
            said, file = TABLES[name]
            typer.echo(f"{said}: {out / file}")
        if before := say_outdated(out):
            typer.echo(before)

    step.__doc__ = ABOUT[name]
    command(STEPS, name, settings=partial(run_flags, name), stopped=GOES_ON)(step)


for _name in ABOUT:
    _register(_name)
