"""The command that predicts the labels of a whole split."""

from pathlib import Path
from typing import Annotated, Any

import typer

from workbench.cli.app import GOES_ON, LABELS, command, prepare
from workbench.cli.flags import Device, Dtype, Flag, Model


def _flags() -> dict[str, Flag]:
    from workbench.cli.flags import setting_flags
    from workbench.predicting.config import PredictionConfig

    return setting_flags(PredictionConfig)


@command(LABELS, settings=_flags, stopped=GOES_ON, several=True)
def predict(
    task: Annotated[str, typer.Option(help="xmc:FOLDER or mimic4:FOLDER.")],
    out: Annotated[Path, typer.Option(help="Folder to write: new, or one to go on with.")],
    settings: dict[str, Any],
    model: Model = None,
    shortlist: Annotated[
        Path | None,
        typer.Option(
            help="Folder of workbench retrieve, or its table.", show_default="retrieved here"
        ),
    ] = None,
    form: Annotated[
        str | None,
        typer.Option(help="How is asked: a name, or a file.", show_default="the task's own"),
    ] = None,
    part: Annotated[
        str | None,
        typer.Option(
            help="Which of how many processes this is, from 0: 1/8.",
            show_default="as the launcher says",
        ),
    ] = None,
    dtype: Dtype = "float32",
    device: Device = None,
) -> None:
    """Labels of every document of a split: a shortlist, ordered by the model."""
    from workbench.models.loading import bundled_model_path
    from workbench.predicting.config import PredictionConfig
    from workbench.predicting.run import predict as run
    from workbench.processes import parted

    prepare()
    found = run(
        out,
        task,
        bundled_model_path() if model is None else model,
        PredictionConfig(**settings),
        shortlist_file=shortlist,
        form=form,
        dtype=dtype,
        device=device,
        here=None if part is None else parted(part),
    )
    if found is None:
        return
    typer.echo(f"documents: {len(found):,}")
    typer.echo(f"predictions: {out / 'predictions.parquet'}")
    typer.echo(f"next: workbench score-predictions {out}")
