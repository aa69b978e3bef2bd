"""The command that says how well chains of thought tell what a model answers."""

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from workbench.cli.app import GOES_ON, STUDENTS, command, prepare
from workbench.cli.flags import Flag, ModelPart, OneDevice, setting_flags, some_run_flags

SHOWN = ["las", "las_low", "las_high", "n_leaking", "n_other", "x", "e", "xe", "n"]


def _flags() -> dict[str, Flag]:
    from workbench.distill.evaluation.config import SimulatorConfig

    return setting_flags(SimulatorConfig) | some_run_flags("n_resamples")


@command(STUDENTS, settings=_flags, stopped=GOES_ON, beats=True)
def simulability(
    out: Annotated[Path, typer.Option(help="Folder for the tables; taken up if it is there.")],
    settings: dict[str, Any],
    student: Annotated[
        list[str] | None,
        typer.Option(help="NAME=FOLDER of a student, named by its arm; again for each."),
    ] = None,
    teacher: Annotated[str, typer.Option(help="Their teacher, whose task it is.")] = "reasoner",
    rows: Annotated[
        Path | None,
        typer.Option(
            help="Your own JSON lines of input, chain and output.",
            show_default="the teacher's task",
        ),
    ] = None,
    simulator: Annotated[
        str | None,
        typer.Option(
            help="Model that simulators are made of: folder, name or hub id.",
            show_default="the teacher",
        ),
    ] = None,
    task: Annotated[
        str, typer.Option(help="Task of the prompts; auto: what the teacher was trained on.")
    ] = "auto",
    n_train: Annotated[
        int, typer.Option("--n-train", min=1, help="Prompts that a simulator learns from.")
    ] = 1024,
    n_test: Annotated[
        int, typer.Option("--n-test", min=1, help="Other prompts, that it is tested on.")
    ] = 256,
    test_share: Annotated[
        float, typer.Option(min=0, max=1, help="Of --rows: share of prompts to test on.")
    ] = 0.2,
    split: Annotated[
        Literal["seen", "unseen"], typer.Option(help="Categories of the training, or not.")
    ] = "unseen",
    max_new_tokens: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Tokens of a chain and its answer.",
            show_default="the longest right one, and some more",
        ),
    ] = None,
    write_batch: Annotated[int, typer.Option(min=1, help="Chains written together.")] = 640,
    part: ModelPart = None,
    device: OneDevice = None,
) -> None:
    """Leakage-adjusted simulability of chains: do they help to tell what a model answers?"""
    from workbench.cli.app import check_new, new_folder
    from workbench.distill.evaluation.config import SimulatorConfig
    from workbench.errors import InputError
    from workbench.files import check_writable, read_text, write_table
    from workbench.models.sources import check_source
    from workbench.processes import parted
    from workbench.prompts.choices import check_task
    from workbench.studies.named_models import NamedModels

    n_resamples = settings.pop("n_resamples")
    config = SimulatorConfig(**settings)
    models = NamedModels.read(teacher, student or ())
    check_task(task)
    if part is not None:
        parted(part)
    if rows is not None:
        if student or part:
            raise InputError("--rows are of one model: they go without --student and --part")
        check_new(out)
        read_text(rows)
        check_source(simulator or teacher)
    else:
        check_writable(out)
        for source in (*models.all.values(), *([simulator] if simulator else [])):
            check_source(source)

    from workbench.distill.evaluation import simulability as measure
    from workbench.studies.simulability import SimulabilityStudy, study_simulability

    prepare()
    if rows is not None:
        with new_folder(out):
            own = measure.simulability(
                rows,
                simulator=simulator or teacher,
                config=config,
                test_share=test_share,
                n_resamples=n_resamples,
                device=device,
            )
            write_table(out / "cases.csv", own.cases, private=True)
            write_table(out / "summary.csv", own.summary, float_format="%.5g")
        shown = own.summary.set_index("kind")
    else:
        sizes = {"n_train": n_train, "n_test": n_test, "split": split, "n_resamples": n_resamples}
        study = SimulabilityStudy(
            models, simulator, task, config=config, max_new_tokens=max_new_tokens, **sizes
        )
        found = study_simulability(study, out, part=part, batch_size=write_batch, device=device)
        if found is None:
            typer.echo(f"part {part}: done; without --part, when all are, come the tables")
            return
        for name, table in vars(found).items():
            write_table(out / f"{name}.csv", table, float_format="%.5g")
        shown = found.summary.set_index(["model", "kind"])
    typer.echo(shown[SHOWN].round(3).to_string())
    for row in shown.reset_index().to_dict("records"):
        if row["note"]:
            named = [str(row[name]) for name in shown.index.names]
            typer.echo(f"{', '.join(named)}: {row['note']}")
    typer.echo(f"tables: {out}")
