"""The study of students: many arms, many seeds, several devices, a time limit."""

import time
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from workbench.cli.app import GOES_ON, MAINTAINERS, command, prepare
from workbench.cli.studies import study
from workbench.errors import InputError

MAIN_ARMS = "cot,phases"


@command(MAINTAINERS, of=study, stopped=GOES_ON)
def students(
    out: Annotated[Path, typer.Option(help="Folder of the study; goes on if there.")],
    rows: Annotated[Path, typer.Option(help="Training rows: JSON lines, or their folder.")],
    heads: Annotated[
        list[str] | None,
        typer.Option(help="Head set, NAME=FILE; again for each. Arms take the first."),
    ] = None,
    arms: Annotated[
        str, typer.Option(help="Arms by name, or ARM@NAME for other heads: cot,phases@random.")
    ] = MAIN_ARMS,
    few: Annotated[str, typer.Option(help="Those of the arms that get --few-seeds.")] = "",
    layers: Annotated[str, typer.Option(help="Layers of the teacher that are copied.")] = "10",
    steps: Annotated[str, typer.Option(help="Training steps.")] = "300",
    rates: Annotated[str, typer.Option(help="Learning rates.")] = "0.0003,0.001",
    factors: Annotated[
        str, typer.Option(help="Factors of all weights beside that of the chains.")
    ] = "0.3,1,3",
    rates_alone: Annotated[
        str | None,
        typer.Option(
            help="Learning rates of chains alone, which have no factor.", show_default="--rates"
        ),
    ] = None,
    traces: Annotated[str, typer.Option(help="Rows of a student.")] = "8000",
    seeds: Annotated[int, typer.Option(min=1, help="Students of each, from seed 0.")] = 1,
    few_seeds: Annotated[int, typer.Option(min=1, help="Students of each of --few.")] = 2,
    chosen: Annotated[
        bool,
        typer.Option(
            "--chosen", help="Each arm's best rate and factor of those done, instead of all."
        ),
    ] = False,
    teacher: Annotated[str, typer.Option(help="Model folder, hub id or name.")] = "reasoner",
    task: Annotated[str, typer.Option(help="Task that students are asked.")] = "auto",
    n_rows: Annotated[
        int, typer.Option(min=1, help="Rows read, of which a seed draws its own.")
    ] = 24_000,
    batch_size: Annotated[int, typer.Option(min=1, help="Rows of a step.")] = 24,
    accumulation: Annotated[int, typer.Option(min=1, help="Forwards of a step.")] = 1,
    report: Annotated[int, typer.Option(min=1, help="Prompts that results are of.")] = 256,
    select: Annotated[int, typer.Option(min=1, help="Prompts that settings are chosen on.")] = 128,
    seen: Annotated[int, typer.Option(min=1, help="Prompts of labels of the training.")] = 128,
    evaluations: Annotated[
        str, typer.Option(help="Shares of the steps after which a student is asked.")
    ] = "0.25,0.5,0.75,1",
    jobs: Annotated[int, typer.Option(min=1, help="Processes side by side.")] = 1,
    gpus: Annotated[
        int | None, typer.Option(min=0, help="Devices.", show_default="those there are")
    ] = None,
    minutes: Annotated[float | None, typer.Option(min=0, help="Time for all.")] = None,
    until: Annotated[str | None, typer.Option(help="When all ends: HH:MM.")] = None,
    workers: Annotated[int, typer.Option(min=0, help="Collating processes of each.")] = 0,
    keep: Annotated[
        int | None, typer.Option(min=0, help="Keep the models of this seed.", show_default="none")
    ] = None,
    compiled: Annotated[
        Literal["none", "blocks", "all"],
        typer.Option("--compile", help="Compile nothing, models, or losses of every arm, too."),
    ] = "none",
) -> None:
    """Students of copied layers, every arm with the same grid of settings.

    First a grid (--seeds 1), then with --chosen more seeds of each arm's best. Results are a small
    file a student; `study students-page` makes tables and figures of them.
    """
    import torch

    from workbench.studies.students.drive import run_students
    from workbench.studies.students.jobs import Plan

    prepare()
    files = dict(_named(one) for one in heads or ())
    named = [one for one in arms.split(",") if one]
    unknown = set(filter(None, few.split(","))) - set(named)
    if unknown:
        raise InputError(f"--few {sorted(unknown)[0]} is none of --arms")
    plan = Plan(
        arms=named,
        heads=list(files),
        layers=_list("--layers", layers, int),
        steps=_list("--steps", steps, int),
        rates=_list("--rates", rates, float),
        factors=_list("--factors", factors, float),
        rates_alone=_list("--rates-alone", rates_alone or rates, float),
        traces=_list("--traces", traces, int),
        seeds=range(seeds),
        few=dict.fromkeys(filter(None, few.split(",")), few_seeds),
    )
    if chosen:
        from workbench.studies.students.place import read_results

        planned = plan.chosen(read_results(out))
    else:
        planned = plan.grid()
    settings: dict[str, Any] = {
        "teacher": teacher,
        "task": task,
        "heads": files,
        "batch_size": batch_size,
        "accumulation": accumulation,
        "evaluations": _list("--evaluations", evaluations, float),
        "report": report,
        "select": select,
        "seen": seen,
        "workers": workers,
        "keep": keep,
    }
    left = run_students(
        out,
        planned,
        settings,
        rows=rows,
        n_rows=n_rows,
        processes=jobs,
        devices=torch.cuda.device_count() if gpus is None else gpus,
        until=_deadline(minutes, until),
        compiled=compiled,
        say=lambda line: print(time.strftime("%H:%M:%S"), line, flush=True),
    )
    typer.echo(f"students: {out}, {len(planned) + 1 - len(left)} of {len(planned) + 1} finished")
    for job in left:
        typer.echo(f"not run: {job.name}")


def _named(given: str) -> tuple[str, str]:
    name, equals, path = given.partition("=")
    if not (equals and name and path) or "@" in name:
        raise InputError(f"--heads {given}: give NAME=FILE")
    return name, path


def _list(flag: str, given: str, kind: type) -> list[Any]:
    """Positive numbers, separated by commas."""
    try:
        found = [kind(one) for one in given.split(",") if one.strip()]
    except ValueError:
        found = []
    if not found or min(found) <= 0:
        raise InputError(f"{flag} {given}: give positive numbers, separated by commas")
    return found


def _deadline(minutes: float | None, until: str | None) -> float:
    """Seconds since the epoch."""
    if minutes is not None and until is not None:
        raise InputError("give --minutes or --until, not both")
    if minutes is not None:
        return time.time() + 60 * minutes
    if until is None:
        return time.time() + 10.0 * 365 * 86400
    try:
        at = time.strptime(until, "%H:%M")
    except ValueError:
        raise InputError(f"--until {until}: give HH:MM") from None
    today = time.localtime()
    end = time.mktime((*today[:3], at.tm_hour, at.tm_min, 0, 0, 0, -1))
    return end if end > time.time() else end + 86400


@command(MAINTAINERS, of=study)
def students_heads(
    tables: Annotated[
        Path, typer.Option(help="Folder of scores and effects: results of `study paper`.")
    ],
    out: Annotated[Path, typer.Option(help="Folder for the head sets.")],
    rows: Annotated[
        Path | None, typer.Option(help="Rows that heads are probed on, where --out has no table.")
    ] = None,
    headset: Annotated[
        Path | None, typer.Option(help="Head set of a run, for random sets of its layers, too.")
    ] = None,
    n: Annotated[int, typer.Option("--n", min=16, help="Rows to probe on.")] = 64,
    teacher: Annotated[str, typer.Option(help="Model folder, hub id or name.")] = "reasoner",
) -> None:
    """Head sets by the paper's rule, and controls: random, knowing and idle, acting and ignorant.

    What heads know is read from their output by a linear probe (knowing.csv in --out).
    """
    import pandas as pd

    import workbench as wb
    from workbench.distill.matching.head_map import pooled_heads
    from workbench.files import make_folder, write_table
    from workbench.phases import POOLS, Pool
    from workbench.studies.students.heads import choose_heads, described, head_table, write_heads

    prepare()
    make_folder(out)
    knows = out / "knowing.csv"
    if not knows.is_file():
        if rows is None:
            raise InputError(f"{knows} is not there: give --rows to make it")
        write_table(knows, _probed(rows, n, teacher).round(4))
    names = ("scores", "cumulative_chain_dissociation", "cumulative_dissociation")
    for name in names:
        if not (tables / f"{name}.csv").is_file():
            raise InputError(f"{tables}: has no {name}.csv")
    scores, at_chain, at_answer = (pd.read_csv(tables / f"{name}.csv") for name in names)
    table = head_table(scores, at_chain, at_answer, pd.read_csv(knows))
    pools: dict[Pool, Any] | None = None
    if headset is not None:
        pooled = pooled_heads(wb.load_headset(headset))
        pools = {pool: [(x.layer, x.head) for x in pooled if x.pool == pool] for pool in POOLS}
    sets = choose_heads(table, pools)
    write_heads(sets, out)
    said = described(sets, table).round(3)
    write_table(out / "sets.csv", said)
    typer.echo(said.to_string(index=False))


def _probed(rows: Path, n: int, teacher: str) -> Any:
    """What each head of a model knows, on the first rows."""
    from itertools import islice

    import torch

    from workbench.distill.examples.rows import row_lines
    from workbench.files import parse_json
    from workbench.models import loading
    from workbench.progress import Reporter
    from workbench.studies.students.knowing import knowing

    some = [parse_json(line.text) for line in islice(row_lines(rows), n)]
    folder = loading.model_folder(teacher)
    model: Any = loading.read_model(folder, dtype=torch.float32)
    model.set_attn_implementation("sdpa")
    model.to("cuda" if torch.cuda.is_available() else "cpu").eval()
    with Reporter().step("what heads know", len(some)) as advance:
        return knowing(model, loading.read_tokenizer(folder), some, progress=advance)


@command(MAINTAINERS, of=study)
def students_page(
    folder: Annotated[Path, typer.Argument(help="Folder of a study of students.")],
    out: Annotated[
        Path | None,
        typer.Option(help="Folder for tables and figures.", show_default="page, in the folder"),
    ] = None,
    brief: Annotated[bool, typer.Option("--brief", help="Only say what there is.")] = False,
) -> None:
    """Tables, figures and a page in Markdown of a study of students; no model is needed."""
    from workbench.studies.students import page
    from workbench.studies.students.place import read_results

    if brief:
        results = read_results(folder)
        if not any(one["finished"] for one in results):
            raise InputError(f"{folder}: no student is finished")
        for line in page.brief(results):
            typer.echo(line)
        return
    typer.echo(page.write_page(folder, out or folder / "page"))
