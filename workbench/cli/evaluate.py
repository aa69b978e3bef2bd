"""Commands about students of a head set: their evaluation, and its figures."""

from pathlib import Path
from typing import Annotated, Any

import typer

import workbench as wb
from workbench.cli.app import GOES_ON, STUDENTS, command, prepare
from workbench.cli.flags import OneDevice, Teacher, some_run_flags
from workbench.errors import InputError

PAGE = "students.html"


@command(
    STUDENTS,
    "evaluate-students",
    settings=lambda: some_run_flags("n_resamples"),
    stopped=GOES_ON,
    beats=True,
)
def evaluate(
    students: Annotated[list[Path], typer.Argument(help="Folders of finished students.")],
    out: Annotated[Path, typer.Option(help="Folder for the tables; taken up if it is there.")],
    settings: dict[str, Any],
    teacher: Teacher = None,
    headset: Annotated[
        Path | None,
        typer.Option(
            help="The teacher's head set, or a list of heads made by hand.",
            show_default="the heads students were taught",
        ),
    ] = None,
    n: Annotated[int, typer.Option("--n", min=1, help="Prompts to answer.")] = 1000,
    n_trajectory: Annotated[
        int, typer.Option("--n-trajectory", min=1, help="Prompts for trajectories and patching.")
    ] = 64,
    seed: Annotated[int, typer.Option(help="Seed of prompts and resamples.")] = 1,
    device: OneDevice = None,
) -> None:
    """Teacher and students side by side, on labels that none of them was trained on."""
    from workbench.distill.given import read_record
    from workbench.files import alone_in, check_writable
    from workbench.headsets.foreign import read_foreign
    from workbench.models.sources import check_source

    named = student_names(students)
    for one in named.values():
        read_record(one)
    if teacher is not None:
        check_source(teacher)
    if headset is not None:
        listed = read_foreign(headset)
        if listed is not None:
            raise InputError(
                f"{headset}: {listed.form} does not say pools, and each has effects of its own; "
                "write the heads by hand, with pools"
            )
    check_writable(out)

    from workbench.distill.evaluation.evaluate import evaluate_students
    from workbench.distill.matching.files import heads_for
    from workbench.models import loading
    from workbench.plots.students_page import read_tables, write_students_page

    prepare()
    folder = loading.model_folder(loading.bundled_model_path() if teacher is None else teacher)
    with alone_in(out):
        found = evaluate_students(
            out,
            folder,
            named,
            pools=None if headset is None else heads_for(headset, folder),
            n_prompts=n,
            n_trajectory_prompts=n_trajectory,
            seed=seed,
            n_resamples=wb.RunConfig(**settings).n_resamples,
            device=device,
        )
        found.save(out)
        page = write_students_page(out / PAGE, read_tables(out))
    table = found.metrics.assign(
        measure=found.metrics["setting"] + " " + found.metrics["measure"]
    ).pivot(index="student", columns="measure", values="value")
    shown = [f"{setting} {name}" for setting in ("direct", "chain") for name in ("exact", "ndcg3")]
    typer.echo(table.loc[found.metrics["student"].unique(), shown].round(3).to_string())
    if len(found.speed):
        speed = found.speed[["student", "level", "steps", "last_step", "last_accuracy"]]
        typer.echo(speed.round(3).to_string(index=False))
    typer.echo(f"tables: {out}; figures: {page}")


@command(STUDENTS, "evaluation-page")
def evaluation_page(
    tables: Annotated[Path, typer.Argument(help="Folder of the tables of an evaluation.")],
    out: Annotated[
        Path | None, typer.Option(help="HTML file.", show_default="in the folder")
    ] = None,
) -> None:
    """The tables of an evaluation as one HTML page of figures; no model is needed."""
    from workbench.plots.students_page import read_tables, write_students_page

    path = write_students_page(out or tables / PAGE, read_tables(tables))
    typer.echo(f"figures: {path}")


def student_names(folders: list[Path]) -> dict[str, Path]:
    """Folders by their own names, with the parent's in front where two are the same.

    Raises:
        InputError: a folder twice, or two folders that cannot be told apart by these.
    """
    folders = [folder.resolve() for folder in folders]
    again = [folder for folder in folders if folders.count(folder) > 1]
    if again:
        raise InputError(f"{again[0]}: is given twice; each student is evaluated once")
    names = [folder.name for folder in folders]
    if len(set(names)) < len(names):
        names = [f"{folder.parent.name}-{folder.name}" for folder in folders]
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        raise InputError(f"two students are called {twice[0]!r}; rename one of the folders")
    return dict(zip(names, folders, strict=True))
