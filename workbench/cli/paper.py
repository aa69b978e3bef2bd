"""The command that makes the paper's figures for a model."""

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from workbench.cli.app import GOES_ON, MAINTAINERS, command, prepare
from workbench.cli.flags import (
    Device,
    Dtype,
    Model,
    Places,
    Prompts,
    Sizes,
    numbers,
    setting_flags,
    some_run_flags,
)
from workbench.cli.studies import study

OF_FIGURE_3 = ("interventions", "rivals", "n_random")


def _flags() -> dict[str, Any]:
    from workbench.analysis.chains.reading import ChainSettings
    from workbench.studies.cumulative import CumulativeStudy

    return (
        setting_flags(ChainSettings)
        | some_run_flags("n_resamples", "n_permutations", "seed")
        | setting_flags(CumulativeStudy, OF_FIGURE_3)
    )


@command(MAINTAINERS, of=study, settings=_flags, stopped=GOES_ON)
def paper(
    out: Annotated[Path, typer.Option(help="Folder of the study: new, or the same study's.")],
    settings: dict[str, Any],
    model: Model = None,
    student: Annotated[
        list[str] | None, typer.Option(help="A student beside the model; may be given again.")
    ] = None,
    n: Annotated[int, typer.Option("--n", min=1, help="Prompts of the task.")] = 40,
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
    figure3: Annotated[
        bool,
        typer.Option(
            "--figure3/--no-figure3",
            help="Patch the first heads of each ranking together, on prompts of the task.",
        ),
    ] = True,
    places: Places = "span",
    sizes: Sizes = "",
    device: Device = None,
    dtype: Dtype = "float32",
) -> None:
    """The paper's figures 1 to 4: heads ranked, trajectories, first heads together, stages."""
    from workbench.analysis.chains.reading import ChainSettings
    from workbench.errors import InputError
    from workbench.files import write_table
    from workbench.models.loading import bundled_model_path
    from workbench.plots.page import write_figure
    from workbench.studies.cumulative import CumulativeStudy
    from workbench.studies.paper import PaperStudy, paper_figures, study_paper
    from workbench.studies.paper_chains import Asked

    prepare()
    ends = stage_ends.split(",")
    if not all(end.strip().isdecimal() for end in ends):
        raise InputError(f"--stage-ends {stage_ends}: give numbers, as 10,20,35,50")
    run = {name: settings.pop(name) for name in ("n_resamples", "n_permutations", "seed")}
    chain = ChainSettings(
        stage_ends=tuple(map(int, ends)),
        **{k: v for k, v in settings.items() if k not in OF_FIGURE_3},
    )
    together = CumulativeStudy(
        places=tuple(part.strip() for part in places.split(",")),  # pyright: ignore
        sizes=numbers("--sizes", sizes),
        alone=False,
        n_early=chain.n_early,
        t_star=chain.t_star,
        n_resamples=run["n_resamples"],
        seed=run["seed"],
        **{name: settings[name] for name in OF_FIGURE_3},
    )
    teacher = str(bundled_model_path()) if model is None else model
    made = study_paper(
        PaperStudy(
            models=(teacher, *(student or ())),
            asked=Asked(teacher, n, task, given, split, prompts, chains),
            chains=chain,
            cumulative=together if figure3 else None,
            embedding=embedding,
            **run,
        ),
        out,
        device=device,
        dtype=dtype,
    )
    for name, table in made.items():
        write_table(out / f"{name}.csv", table, private=True, float_format="%.5g")
    for name, figure in paper_figures(made).items():
        write_figure(out / f"{name}.html", figure)
    shown = made["compared"][["what", "paper", "ours", "agrees", "note"]]
    typer.echo(shown.round(3).fillna("").to_string(index=False))
    typer.echo(f"tables and figures: {out}")
