"""The command that compares rankings of heads by what their first heads do together."""

from pathlib import Path
from typing import Annotated, Any

import typer

from workbench.cli.app import GOES_ON, MAINTAINERS, command, prepare
from workbench.cli.flags import Device, Dtype, Flag, Model, Prompts, setting_flags, some_run_flags
from workbench.cli.studies import study


def _flags() -> dict[str, Flag]:
    from workbench.studies.cumulative import CumulativeStudy

    names = ("interventions", "alone", "n_random", "n_early", "t_star", "n_resamples", "seed")
    return some_run_flags("task", "n_prompts") | setting_flags(CumulativeStudy, names)


@command(MAINTAINERS, of=study, settings=_flags, stopped=GOES_ON)
def cumulative(
    out: Annotated[Path, typer.Option(help="Folder of the study: new, or the same study's.")],
    settings: dict[str, Any],
    model: Model = None,
    prompts: Prompts = None,
    places: Annotated[
        str, typer.Option(help="Where heads are patched: span,early,late,written; see the docs.")
    ] = "span",
    sizes: Annotated[
        str,
        typer.Option(help="Heads patched together: 3,8,16.", show_default="by the model's size"),
    ] = "",
    scores: Annotated[
        list[Path] | None,
        typer.Option(help="Table of scores, .csv or .parquet: its coarse… and refine… are orders."),
    ] = None,
    device: Device = None,
    dtype: Dtype = "float32",
) -> None:
    """Which ranking explains more: cumulative heads, z and patterns, and a double dissociation."""
    import workbench as wb
    from workbench.files import write_table
    from workbench.models.loading import bundled_model_path
    from workbench.plots.cumulative import cumulative_figure
    from workbench.plots.page import write_figure
    from workbench.progress import Reporter
    from workbench.prompts.files import read_prompts
    from workbench.studies.cumulative import CumulativeStudy, read_ranking, run_cumulative
    from workbench.studies.reported import reported_cumulative

    prepare()
    asked = {name: settings.pop(name) for name in ("task", "n_prompts")}
    chosen = CumulativeStudy(
        places=tuple(part.strip() for part in places.split(",")),  # pyright: ignore
        sizes=_numbers(sizes),
        **settings,
    )
    rankings = dict(read_ranking(path) for path in scores or ())
    reporter = Reporter()
    source = bundled_model_path() if model is None else model
    made = run_cumulative(
        out,
        wb.HookedModel.load(source, dtype=dtype, device=device, reporter=reporter),
        read_prompts(prompts)
        if prompts
        else wb.make_prompts(model=source, seed=chosen.seed, reporter=reporter, **asked),
        chosen,
        rankings,
        reporter=reporter,
    )
    for name, table in made.items():
        write_table(out / f"{name}.csv", table.round(4), private=True)
    curves, paper = made["curves"], reported_cumulative()
    for intervention in chosen.interventions:
        figure = cumulative_figure(curves, paper, intervention=intervention, place=chosen.places[0])
        write_figure(out / f"figure3_{intervention}.html", figure)
    areas = made["areas"]
    shown = areas[(areas["axis"] == "log") & (areas["place"] == chosen.places[0])]
    keys = ["intervention", "direction", "readout"]
    typer.echo("area under the explained share, first heads weighing more (axis log):")
    wide = shown.pivot(index="order", columns=keys, values="area")
    typer.echo(wide.round(2).to_string())
    typer.echo(f"tables and figure: {out}")


def _numbers(text: str) -> tuple[int, ...]:
    from workbench.errors import InputError

    parts = [part.strip() for part in text.split(",") if part.strip()]
    if not all(part.isdecimal() for part in parts):
        raise InputError(f"--sizes {text}: give numbers, as 3,8,16")
    return tuple(sorted({int(part) for part in parts}))
