"""The command that follows freely written labels: events, trajectory, decoding, prompt file."""

import shlex
from itertools import chain, islice
from pathlib import Path
from typing import Annotated, Any

import typer

from workbench.cli.app import GOES_ON, LABELS, command, prepare
from workbench.cli.flags import Device, Dtype, Model, some_run_flags
from workbench.errors import InputError

BEGUN = "labels.json"
"""In the folder: what decides its tables."""


@command(
    LABELS,
    settings=lambda: some_run_flags("n_prompts", "split", "n_resamples", "seed"),
    stopped=GOES_ON,
)
def labels(
    out: Annotated[Path, typer.Option(help="Folder to write: new, or one to go on with.")],
    settings: dict[str, Any],
    model: Model = None,
    n_decoded: Annotated[
        int, typer.Option("--n-decoded", min=0, help="Prompts whose label is decoded.")
    ] = 64,
    device: Device = None,
    dtype: Dtype = "float32",
) -> None:
    """Labels that the chain of thought writes, token by token, out of all labels of the space."""
    from workbench.files import LOCK, alone_in
    from workbench.runs.config import RunConfig

    prepare()
    config = RunConfig(**settings)
    others = not out.is_dir() or any(path.name != LOCK for path in out.iterdir())
    if out.exists() and others and not (out / BEGUN).is_file():
        raise InputError(f"{out}: exists already, and holds no labels; give another --out")
    with alone_in(out):
        _follow(out, config, model, n_decoded, device, dtype)


def _follow(
    out: Path, config: Any, model: str | None, n_decoded: int, device: str | None, dtype: str
) -> None:
    from workbench.analysis.label_space.cases import FreeLabels, decision_prompts, iter_cases
    from workbench.analysis.label_space.free_labels import (
        decode_labels,
        free_summary,
        free_trajectory,
    )
    from workbench.files import claim, write_table
    from workbench.models.hooked import HookedModel
    from workbench.models.loading import bundled_model_path, model_folder
    from workbench.plots.free_labels import free_labels
    from workbench.plots.page import write_figure
    from workbench.progress import Reporter
    from workbench.prompts.choices import open_task
    from workbench.prompts.files import write_prompts
    from workbench.runs.growing import grown

    reporter = Reporter()
    source = bundled_model_path() if model is None else model
    loaded = HookedModel.load(source, dtype=dtype, device=device, reporter=reporter)
    tokenizer = loaded.tokenizer
    if tokenizer is None:
        raise InputError(f"model {source} has no tokenizer to write labels with")
    asked = {name: getattr(config, name) for name in ("n_prompts", "split", "seed")}
    asked |= {"n_decoded": n_decoded, "dtype": dtype, "model": loaded.info.weights_sha256}
    claim(out, out / BEGUN, asked, "labels")
    task = open_task(model=model_folder(source), split=config.split)
    with reporter.step("index of labels"):
        every = FreeLabels(task.space, tokenizer)
    drawn = iter_cases(task, tokenizer, every, seed=config.seed, context=loaded.context_length)
    with reporter.step("prompts"):
        cases = list(islice(drawn, max(config.n_prompts, n_decoded)))
        usable = sum(case.decision is not None for case in cases)
        events = decision_prompts(
            chain(cases, drawn), config.n_prompts, task=f"{task.space.name} free labels"
        )
    write_prompts(events, out / "free.jsonl")
    with reporter.step("label tokens", config.n_prompts) as advance:
        table = grown(
            out / "free.csv",
            cases[: config.n_prompts],
            lambda some: free_trajectory(loaded, some, every),
            numbers=("focus", "confusion"),
            advance=advance,
        )
        summary = free_summary(table, n_resamples=config.n_resamples, seed=config.seed)
    write_table(out / "free_summary.csv", summary)
    write_figure(out / "free.html", free_labels(summary))
    typer.echo(
        f"labels: {len(every)}, {usable} of {len(cases)} prompts have a common parting token"
    )
    if n_decoded:
        line_end = tokenizer("\n", add_special_tokens=False)["input_ids"][-1]
        with reporter.step("decoding", n_decoded) as advance:
            decoded = grown(
                out / "free_decoded.csv",
                cases[:n_decoded],
                lambda some: decode_labels(loaded, some, every, line_end=line_end),
                advance=advance,
            )
        for decoding, part in decoded.groupby("decoding", sort=False):
            shares = part[["exact", "is_label", "same_cluster"]].mean()
            typer.echo(
                f"{decoding} decoding: {shares['exact']:.3f} exact, {shares['is_label']:.3f} a "
                f"label, {shares['same_cluster']:.3f} in the cluster, of {len(part)}"
            )
    typer.echo(f"figure: {out / 'free.html'}")
    named = "" if model is None else f" --model {shlex.quote(model)}"
    file, run = shlex.quote(str(out / "free.jsonl")), shlex.quote(str(out / "run"))
    typer.echo(f"next: workbench run{named} --prompts {file} --out {run}")
