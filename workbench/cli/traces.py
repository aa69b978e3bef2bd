"""The command that writes what students are trained on: chains of a teacher, or rows of text."""

from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from workbench.cli.app import GOES_ON, STUDENTS, command, prepare
from workbench.cli.flags import Flag, OneDevice, setting_flags, some_distillation_flags
from workbench.errors import InputError

TRACES = ("n_traces", "context", "trace_seed")
ROOM = 768
"""Tokens that a chain and its answer may take in rows."""


def _trace_flags() -> dict[str, Flag]:
    from workbench.distill.config import DistillationConfig

    own = f"{DistillationConfig.max_new_tokens}, {ROOM} with --task"
    length = setting_flags(DistillationConfig, ("max_new_tokens",), default=own)
    return some_distillation_flags(*TRACES) | length


@command(STUDENTS, settings=_trace_flags, stopped=GOES_ON, beats=True)
def traces(
    out: Annotated[Path, typer.Option(help="Trace file (.jsonl), continued if it is there.")],
    settings: dict[str, Any],
    teacher: Annotated[
        str | None,
        typer.Option(
            "--teacher",
            "--model",
            help="Folder of a model or an adapter, GGUF file, name (reasoner, smollm2), or hub id.",
            show_default="the bundled model",
        ),
    ] = None,
    task: Annotated[
        str | None,
        typer.Option(
            help="Write rows of text of this task, for distill --prompts: a name.",
            show_default="traces in tokens, of the teacher's task",
        ),
    ] = None,
    by: Annotated[
        Literal["teacher", "rule"],
        typer.Option(help="Who writes the chains of --task: the rule needs no teacher's weights."),
    ] = "teacher",
    predictions: Annotated[
        Path | None,
        typer.Option(help="Rows of documents, with what a model chose: a folder of predict."),
    ] = None,
    form: Annotated[
        str | None,
        typer.Option(help="How --predictions were asked.", show_default="as their folder says"),
    ] = None,
    choices: Annotated[
        int, typer.Option(min=1, help="Options in an answer about a document, best first.")
    ] = 1,
    part: Annotated[
        str, typer.Option(help="Which of how many parts to write, from 0: 3/8.")
    ] = "0/1",
    batch_size: Annotated[int, typer.Option(min=1, help="Chains written together.")] = 128,
    device: OneDevice = None,
) -> None:
    """Let the teacher write chains of thought, and keep the right ones; many machines can share."""
    import torch

    from workbench.distill.config import DEFAULTS
    from workbench.distill.examples.document_rows import write_document_rows
    from workbench.distill.examples.row_files import Draws
    from workbench.distill.examples.traces import write_traces
    from workbench.distill.examples.written_rows import write_task_rows
    from workbench.distill.training.run import trace_config
    from workbench.distill.training.student import word_encoder
    from workbench.models import loading
    from workbench.progress import Reporter
    from workbench.prompts.choices import open_task

    prepare()
    which, slash, parts = part.partition("/")
    if not (slash and which.isdecimal() and parts.isdecimal()):
        raise InputError(f"part {part!r} is not WHICH/PARTS; give 0/8, 1/8 and so on")
    whole = {name: value for name, value in settings.items() if value is not None}
    config = trace_config(replace(DEFAULTS, **whole), (int(which), int(parts)))
    folder = loading.model_folder(loading.bundled_model_path() if teacher is None else teacher)
    draws = Draws(config.n, config.seed, config.part)
    if predictions is not None:
        kept = write_document_rows(
            out, predictions, folder, draws, task=task, form=form, n_choices=choices
        )
        typer.echo(f"rows: {out}, {kept}")
        return
    if task is not None:
        room = settings["max_new_tokens"] or ROOM
        kept = write_task_rows(
            out, task, folder, draws, by=by, room=room, batch_size=batch_size, device=device
        )
        typer.echo(f"rows: {out}, {kept} of {len(draws.numbers)} draws are right")
        return
    if by == "rule":
        raise InputError("--by rule writes rows of a task; give --task")
    digest = loading.weights_sha256(folder)
    place = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    dtype = torch.float32 if place.type == "cpu" else torch.bfloat16
    model: Any = loading.read_model(folder, dtype=dtype)
    model.to(place).eval()
    with Reporter().step("traces", len(config.draws)) as advance:
        kept = write_traces(
            out,
            model,
            open_task(model=folder, split="seen", full_size=False),
            word_encoder(loading.read_tokenizer(folder), folder),
            config,
            teacher=digest,
            batch_size=batch_size,
            progress=advance,
        )
    typer.echo(f"traces: {out}, {kept} of {len(config.draws)} draws are right")
