"""The steps of a run as commands, one after the other on the same folder."""

from functools import partial
from pathlib import Path
from typing import Any

import typer

import workbench as wb
from workbench.cli.app import GOES_ON, STEPS, command, prepare
from workbench.cli.daily import settings_of_run, summarise
from workbench.cli.flags import Device, Dtype, Model, Out, Prompts, run_flags
from workbench.processes import Processes

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
    from workbench.runs.folder import REPORT_FILE, RunFolder

    folder = RunFolder.open(out)
    makers = {step.name: step.command for step in folder.outdated}
    if (folder.path / REPORT_FILE).is_file() and not folder.is_done("report"):
        makers["report"] = "report"
    again = ", then ".join(f"`workbench {name}`" for name in dict.fromkeys(makers.values()))
    rest = f"{again} with the same --out: then all is up to date"
    return f"made before this: {', '.join(makers)}; {rest}" if makers else ""


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
        if name != "score" and prompts is None and Processes.here().is_main:
            from workbench.runs.folder import RunFolder

            RunFolder.open(out)  # a folder without a run is refused before a model is loaded
        prepare()
        opened = wb.open_run(
            out, model=model, prompts=prompts, config=config, dtype=dtype, device=device
        )
        getattr(wb, name)(opened)
        opened.together.close()
        if not Processes.here().is_main:
            return
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
    command(STEPS, name, settings=partial(run_flags, name), stopped=GOES_ON, several=True)(step)


for _name in ABOUT:
    _register(_name)
