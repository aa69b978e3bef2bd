"""The steps of a run as commands, one after the other on the same folder."""

from functools import partial
from typing import Any

import typer

import workbench as wb
from workbench.cli.app import GOES_ON, STEPS, command, prepare
from workbench.cli.daily import summarise
from workbench.cli.flags import Device, Dtype, Model, Out, Prompts, run_flags

ABOUT = {
    "score": "CoarseScore and RefineScore of every head; starts a run folder.",
    "patch": "Causal effects of heads one by one; after `score`.",
    "pool": "Pools, their joint effects beside controls, and the head set; after `patch`.",
    "paths": "What heads do through one another's query, key or value; after `pool`.",
    "evidence": "Stability, chain of thought, faithfulness curves, and the report; after `run`.",
}
TABLES = {
    "score": ("scores", "scores.parquet"),
    "patch": ("causal effects", "patching.parquet"),
    "paths": ("paths", "paths.parquet"),
}


def _register(name: str) -> None:
    def step(
        out: Out,
        settings: dict[str, Any],
        model: Model = None,
        prompts: Prompts = None,
        device: Device = None,
        dtype: Dtype = "float32",
    ) -> None:
        config = wb.RunConfig(**settings)
        if name != "score":
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

    step.__doc__ = ABOUT[name]
    command(STEPS, name, settings=partial(run_flags, name), stopped=GOES_ON)(step)


for _name in ABOUT:
    _register(_name)
