"""The command that compares rankings of heads by what their first heads do together."""

from pathlib import Path
from typing import Annotated, Any

import typer

from workbench.cli.app import GOES_ON, MAINTAINERS, command, prepare
from workbench.cli.flags import (
    Device,
    Dtype,
    Flag,
    Model,
    Places,
    Prompts,
    Sizes,
    numbers,
    setting_flags,
    some_run_flags,
)
from workbench.cli.studies import study


def _flags() -> dict[str, Flag]:
    from workbench.studies.cumulative import CumulativeStudy

    names = (
        "interventions",
        "alone",
        "rivals",
        "n_random",
        "n_last",
        "n_early",
        "t_star",
        "n_resamples",
        "seed",
    )
    return some_run_flags("task", "n_prompts") | setting_flags(CumulativeStudy, names)


@command(MAINTAINERS, of=study, settings=_flags, stopped=GOES_ON)
def cumulative(
    out: Annotated[Path, typer.Option(help="Folder of the study: new, or the same study's.")],
    settings: dict[str, Any],
    model: Model = None,
    prompts: Prompts = None,
    places: Places = "span",
    sizes: Sizes = "",
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
    from workbench.plots.cumulative import cumulative_figures, dissociation_figure
    from workbench.plots.page import write_figure
    from workbench.progress import Reporter
    from workbench.prompts.files import read_prompts
    from workbench.studies.cumulative import CumulativeStudy, run_cumulative
    from workbench.studies.cumulative_orders import read_ranking
    from workbench.studies.reported import reported_cumulative

    prepare()
    asked = {name: settings.pop(name) for name in ("task", "n_prompts")}
    chosen = CumulativeStudy(
        places=tuple(part.strip() for part in places.split(",")),  # pyright: ignore
        sizes=numbers("--sizes", sizes),
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
    for name, figure in cumulative_figures(made["curves"], reported_cumulative()).items():
        write_figure(out / f"{name}.html", figure)
    write_figure(out / "dissociation.html", dissociation_figure(made["dissociation"]))
    areas = made["areas"]
    shown = areas[(areas["axis"] == "log") & (areas["place"] == chosen.places[0])]
    keys = ["intervention", "direction", "readout"]
    typer.echo("area under the explained share, first heads weighing more (axis log):")
    wide = shown.pivot(index="order", columns=keys, values="area")
    typer.echo(wide.round(2).to_string())
    typer.echo("positions patched, of those that a place has, mean over valid pairs:")
    typer.echo(made["positions"].round(1).to_string(index=False))
    typer.echo(f"tables and figures: {out}")
