"""The command that makes the paper's figures for a model."""

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from workbench.cli.app import GOES_ON, MAINTAINERS, command, prepare
from workbench.cli.flags import Device, Dtype, Model, Prompts, setting_flags, some_run_flags
from workbench.cli.studies import study


def _flags() -> dict[str, Any]:
    from workbench.analysis.chains.reading import ChainSettings

    return setting_flags(ChainSettings) | some_run_flags("n_resamples", "n_permutations", "seed")


@command(MAINTAINERS, of=study, settings=_flags, stopped=GOES_ON)
def paper(
    out: Annotated[Path, typer.Option(help="Folder of the study: new, or the same study's.")],
    settings: dict[str, Any],
    model: Model = None,
    student: Annotated[
        list[str] | None, typer.Option(help="A student beside the model; may be given again.")
    ] = None,
    n: Annotated[int, typer.Option("--n", min=1, help="Prompts of the task.")] = 16,
    task: Annotated[
        str, typer.Option(help="Task of the prompts; auto: what the model was trained on.")
    ] = "auto",
    given: Annotated[
        bool, typer.Option("--given", help="The task's own, correct chains, not the model's.")
    ] = False,
    split: Annotated[
        Literal["seen", "unseen"], typer.Option(help="Categories of the training, or not.")
    ] = "unseen",
    prompts: Prompts = None,
    chains: Annotated[
        Path | None, typer.Option(help="File of your own documents, chains and labels (.jsonl).")
    ] = None,
    embedding: Annotated[
        str, typer.Option(help="Of texts: own, own:LAYER, or a folder of sentence-transformers.")
    ] = "own",
    stage_ends: Annotated[
        str, typer.Option(help="Chain tokens after which a new stage begins.")
    ] = "10,20,35,50",
    device: Device = None,
    dtype: Dtype = "float32",
) -> None:
    """The paper's figures 1, 2 and 4: heads at chain tokens, trajectories, stages of the chain."""
    from workbench.analysis.chains.reading import ChainSettings
    from workbench.errors import InputError
    from workbench.files import write_table
    from workbench.models.loading import bundled_model_path
    from workbench.plots.page import write_figure
    from workbench.studies.paper import FIGURES, PaperStudy, study_paper
    from workbench.studies.paper_chains import Asked

    prepare()
    ends = stage_ends.split(",")
    if not all(end.strip().isdecimal() for end in ends):
        raise InputError(f"--stage-ends {stage_ends}: give numbers, as 10,20,35,50")
    run = {name: settings.pop(name) for name in ("n_resamples", "n_permutations", "seed")}
    teacher = str(bundled_model_path()) if model is None else model
    made = study_paper(
        PaperStudy(
            models=(teacher, *(student or ())),
            asked=Asked(teacher, n, task, given, split, prompts, chains),
            chains=ChainSettings(stage_ends=tuple(map(int, ends)), **settings),
            embedding=embedding,
            **run,
        ),
        out,
        device=device,
        dtype=dtype,
    )
    for name, table in made.items():
        write_table(out / f"{name}.csv", table, private=True, float_format="%.5g")
    for name, figure in FIGURES.items():
        write_figure(out / f"{name}.html", figure(made))
    shown = made["compared"][["what", "paper", "ours", "agrees", "note"]]
    typer.echo(shown.round(3).fillna("").to_string(index=False))
    typer.echo(f"tables and figures: {out}")
