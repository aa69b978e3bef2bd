"""The command that writes what students are trained on: chains of a teacher, or rows of text."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from workbench.cli.app import GOES_ON, STUDENTS, command, prepare
from workbench.cli.flags import Flag, OneDevice, setting_flags, some_distillation_flags
from workbench.errors import InputError

ROOM = 768
"""Tokens that a chain and its answer may take in rows."""
OTHERS = {
    "traces in tokens": ("form", "choices"),
    "rows of a task": ("context", "form", "choices"),
    "rows by the rule": ("context", "form", "choices", "max_new_tokens"),
    "rows of documents": ("context", "trace_seed", "max_new_tokens", "by"),
}
"""Flags of other kinds than the one that is written, which would change nothing."""


def _trace_flags() -> dict[str, Flag]:
    from workbench.distill.config import DistillationConfig

    shown = {
        "context": f"{DistillationConfig.context}, of traces in tokens",
        "trace_seed": str(DistillationConfig.trace_seed),
        "max_new_tokens": f"{DistillationConfig.max_new_tokens}, {ROOM} with --task",
    }
    flags = some_distillation_flags("n_traces")
    for name, default in shown.items():  # None where not given, so that it can be refused
        flags |= setting_flags(DistillationConfig, (name,), default=default)
    return flags


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
        Literal["teacher", "rule"] | None,
        typer.Option(
            help="Who writes the chains of --task: the rule needs no teacher's weights.",
            show_default="teacher",
        ),
    ] = None,
    predictions: Annotated[
        Path | None,
        typer.Option(help="Rows of documents, with what a model chose: a folder of predict."),
    ] = None,
    form: Annotated[
        str | None,
        typer.Option(help="How --predictions were asked.", show_default="as their folder says"),
    ] = None,
    choices: Annotated[
        int | None,
        typer.Option(
            min=1, help="Options in an answer about a document, best first.", show_default="1"
        ),
    ] = None,
    part: Annotated[
        str, typer.Option(help="Which of how many parts to write, from 0: 3/8.")
    ] = "0/1",
    batch_size: Annotated[int, typer.Option(min=1, help="Chains written together.")] = 128,
    device: OneDevice = None,
) -> None:
    """Let the teacher write chains of thought, and keep the right ones; many machines can share."""
    from workbench.distill.config import DEFAULTS
    from workbench.files import check_writable
    from workbench.models.sources import check_source
    from workbench.processes import parted
    from workbench.prompts.choices import check_task

    here = parted(part)
    if by == "rule" and task is None:
        raise InputError("--by rule writes rows of a task; give --task")
    kind = "rows of a task" if task is not None else "traces in tokens"
    kind = "rows of documents" if predictions is not None else kind
    _refuse(
        "rows by the rule" if by == "rule" and predictions is None else kind,
        {**settings, "by": by, "form": form, "choices": choices},
    )
    if task is not None:
        check_task(task)
    if teacher is not None:
        check_source(teacher)
    if predictions is not None and not predictions.exists():
        raise InputError(f"{predictions}: there is no such folder")
    check_writable(out)

    import torch

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
    whole = {name: value for name, value in settings.items() if value is not None}
    config = trace_config(replace(DEFAULTS, **whole), (here.rank, here.world))
    folder = loading.model_folder(loading.bundled_model_path() if teacher is None else teacher)
    draws = Draws(config.n, config.seed, config.part)
    if predictions is not None:
        kept = write_document_rows(
            out, predictions, folder, draws, task=task, form=form, n_choices=choices or 1
        )
        typer.echo(f"rows: {out}, {kept}")
        return
    if task is not None:
        room = settings["max_new_tokens"] or ROOM
        kept = write_task_rows(
            out,
            task,
            folder,
            draws,
            by=by or "teacher",
            room=room,
            batch_size=batch_size,
            device=device,
        )
        typer.echo(f"rows: {out}, {kept} of {len(draws.numbers)} draws are right")
        return
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


def _refuse(kind: str, given: Mapping[str, Any]) -> None:
    """Refuse flags that this kind does not know; those that were not given are None."""
    for name in OTHERS[kind]:
        if given[name] is not None:
            where = {"context": "; `distill --context` leaves out longer rows"}.get(name, "")
            raise InputError(
                f"--{name.replace('_', '-')} says nothing of {kind}: leave it out{where}"
            )
