"""The command that asks a model as it is: how often its answers are right, in two ways."""

from pathlib import Path
from typing import Annotated, Any, NamedTuple

import typer

from workbench.cli.app import DAILY, GOES_ON, command, prepare
from workbench.cli.flags import Device, Dtype, Model, Prompts, run_flags
from workbench.errors import InputError

BEGUN = "answers.json"
"""In the folder: what decides its table."""


class _Asked(NamedTuple):
    id: str


@command(DAILY, settings=lambda: run_flags("prompts"), stopped=GOES_ON)
def answers(
    out: Annotated[Path, typer.Option(help="Folder to write: new, or one to go on with.")],
    settings: dict[str, Any],
    model: Model = None,
    prompts: Prompts = None,
    chain: Annotated[
        bool, typer.Option("--chain", help="Let the model think before it replies.")
    ] = False,
    room: Annotated[
        int | None, typer.Option(min=1, help="Tokens for a chain.", show_default="the template's")
    ] = None,
    device: Device = None,
    dtype: Dtype = "float32",
) -> None:
    """Does a model do the task as it is? Its free replies, and what it holds of the options."""
    import workbench as wb
    from workbench.analysis.replies import explain_replies, reply_table
    from workbench.files import LOCK, alone_in, claim
    from workbench.models.loading import bundled_model_path
    from workbench.progress import Reporter
    from workbench.prompts.files import read_prompts, write_prompts
    from workbench.runs.growing import grown

    prepare()
    others = not out.is_dir() or any(path.name != LOCK for path in out.iterdir())
    if out.exists() and others and not (out / BEGUN).is_file():
        raise InputError(f"{out}: exists already, and holds no answers; give another --out")
    source = bundled_model_path() if model is None else model
    reporter = Reporter()
    with alone_in(out):
        loaded = wb.HookedModel.load(source, dtype=dtype, device=device, reporter=reporter)
        arguments = wb.RunConfig(**settings).of_prompts()
        chosen = (
            read_prompts(prompts, model=loaded)
            if prompts
            else wb.make_prompts(model=source, reporter=reporter, **arguments)
        )
        asked = {"prompts": chosen.sha256, "model": loaded.info.weights_sha256, "dtype": dtype}
        claim(out, out / BEGUN, asked | {"chain": chain, "room": room}, "answers")
        write_prompts(chosen, out / "prompts.jsonl")
        with reporter.step("answers", len(chosen.prompt_ids)) as advance:
            table = grown(
                out / "answers.csv",
                [_Asked(name) for name in chosen.prompt_ids],
                lambda some: reply_table(
                    loaded, chosen.subset([one.id for one in some]), chain=chain, room=room
                ),
                numbers=("focus", "confusion", "option_mass"),
                at_once=1 if loaded.device.type == "cpu" else 8,  # where a batch gains little
                advance=advance,
            )
    for line in explain_replies(table):
        typer.echo(line)
    typer.echo(f"table: {out / 'answers.csv'}; prompts: {out / 'prompts.jsonl'}")
