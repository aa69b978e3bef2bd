"""The command that adapts a model to a label set."""

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from workbench.cli.app import GOES_ON, LABELS, command, prepare
from workbench.cli.flags import Flag, OneDevice, setting_flags


def _flags() -> dict[str, Flag]:
    from workbench.predicting.adapting.config import AdaptConfig

    return setting_flags(AdaptConfig)


@command(LABELS, settings=_flags, stopped=GOES_ON)
def adapt(
    task: Annotated[str, typer.Option(help="xmc:FOLDER or mimic4:FOLDER; its training split.")],
    model: Annotated[str, typer.Option(help="Folder of a model, name (smollm2), or hub id.")],
    shortlist: Annotated[
        Path,
        typer.Option(
            help="Folder of `workbench retrieve --split train`, or its table; see --groups."
        ),
    ],
    out: Annotated[Path, typer.Option(help="Folder of the adapter: new, or one to go on with.")],
    settings: dict[str, Any],
    form: Annotated[
        str | None,
        typer.Option(
            help="How documents are asked about: name or file.", show_default="the task's"
        ),
    ] = None,
    groups: Annotated[
        Path | None,
        typer.Option(help="What documents belong to, as for retrieve: held out together."),
    ] = None,
    device: OneDevice = None,
    dtype: Annotated[
        Literal["float32", "bfloat16"] | None,
        typer.Option(
            help="Dtype of the model's weights.", show_default="bfloat16; float32 on a CPU"
        ),
    ] = None,
    checkpoint_every: Annotated[
        int, typer.Option(min=1, help="Steps after which a killed training can go on.")
    ] = 100,
) -> None:
    """Make an adapter that ranks the retrieved labels of a document, from the training split."""
    from workbench.predicting.adapting.adapt import adapt
    from workbench.predicting.adapting.config import AdaptConfig
    from workbench.progress import Reporter

    prepare()
    record = adapt(
        out,
        task,
        model,
        shortlist,
        AdaptConfig(**settings),
        form=form,
        groups=groups,
        dtype=dtype,
        device=device,
        checkpoint_every=checkpoint_every,
        reporter=Reporter(),
    )
    held = record["held_out"]
    rows = [("as retrieved", held["retrieved"])]
    rows += [(f"step {row['step']}", row) for row in held["by_step"]]
    for name, row in rows:
        told = ", ".join(f"{key} {value:.3f}" for key, value in row.items() if key != "step")
        typer.echo(f"{name}: {told}")
    typer.echo(f"adapter: {out} ({record['megabytes']} MB)")
