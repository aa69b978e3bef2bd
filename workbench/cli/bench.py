"""Commands that measure cost: patching, predictions, large label spaces, distillation."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from workbench.cli.app import MAINTAINERS, app, check_new, command, commands, prepare
from workbench.cli.flags import (
    Dtype,
    Flag,
    Force,
    Model,
    OneDevice,
    OutFile,
    Teacher,
    setting_flags,
    some_distillation_flags,
    some_run_flags,
)
from workbench.errors import InputError
from workbench.processes import Processes

MEASURED = "cot,cot+logits,mechanistic,minilm,hidden,circuit"
"""Arms whose steps are timed: all but those that compute what the full objective does, or part."""
Part = StrEnum("Part", ["index", "decoding", "neighbours", "clusters"])

bench = commands("Measured comparisons of cost.")
app.add_typer(bench, name="bench", rich_help_panel=MAINTAINERS)


@command(MAINTAINERS, settings=lambda: some_run_flags("positions"), of=bench)
def patching(
    out: OutFile,
    settings: dict[str, Any],
    model: Model = None,
    shape: Annotated[
        str | None, typer.Option(help="Random weights instead: llama3-8b, llama3-70b, tiny.")
    ] = None,
    length: Annotated[int, typer.Option(help="Tokens of a prompt.")] = 512,
    suffix: Annotated[int, typer.Option(help="Shared tokens that a span patches.")] = 384,
    sample: Annotated[int, typer.Option(help="Heads that the loop is timed on.")] = 8,
    repeats: Annotated[int, typer.Option(help="Timings, of which the best counts.")] = 3,
    sweep: Annotated[
        int,
        typer.Option(
            help="Prompts of the bundled task to sweep whole, with and without screening."
        ),
    ] = 0,
    device: Annotated[
        str | None, typer.Option(help="Device, or auto for all accelerators.")
    ] = None,
    dtype: Dtype = "float32",
    force: Force = False,
) -> None:
    """Patching every head by this engine and by others, timed side by side."""
    from workbench.bench.patching import bench as measure
    from workbench.bench.patching import summary_lines, write
    from workbench.progress import Reporter

    check_new(out, force)
    prepare()
    result = measure(
        model=model,
        shape=shape,
        positions=settings["positions"],
        length=length,
        suffix=suffix,
        sample=sample,
        dtype=dtype,
        device=device,
        repeats=repeats,
        sweep_prompts=sweep,
        reporter=Reporter(),
    )
    write(result, out)
    for line in summary_lines(result):
        typer.echo(line)
    typer.echo(f"benchmark: {out}")


@command(MAINTAINERS, of=bench)
def labels(
    out: OutFile,
    n: Annotated[int, typer.Option("--n", min=2, help="Labels, of synthetic titles.")] = 1_000_000,
    part: Annotated[
        list[Part] | None, typer.Option(help="What to measure; again for more.", show_default="all")
    ] = None,
    generations: Annotated[
        int, typer.Option(min=1, help="Labels written under the constraint.")
    ] = 10_000,
    sample: Annotated[
        int, typer.Option(min=1, help="Labels whose neighbours are compared with brute force.")
    ] = 2000,
    n_threads: Annotated[int, typer.Option(min=1, help="Threads of the sparse products.")] = 2,
    seed: Annotated[int, typer.Option(help="Seed of titles, prompts and samples.")] = 0,
    force: Force = False,
) -> None:
    """What large label sets cost: index, constrained decoding, nearest labels, clusters."""
    import json

    from workbench.bench.labels import bench_labels
    from workbench.files import write_text

    check_new(out, force)
    parts = tuple(dict.fromkeys(str(one) for one in part or Part))
    if "decoding" in parts:
        prepare()  # loads torch, whose memory is none of the other parts'
    sizes = {"generations": generations, "sample": sample, "n_threads": n_threads}
    result = bench_labels(n, parts, seed=seed, **sizes)
    write_text(out, json.dumps(result, indent=2) + "\n")
    for name in parts:
        typer.echo(f"{name}: {result[name]['seconds']:.3g} s")
    typer.echo(f"benchmark: {out}")


def _prediction_flags() -> dict[str, Flag]:
    from workbench.predicting.config import PredictionConfig

    names = ("split", "candidates", "max_tokens", "way", "order", "batch_tokens")
    return setting_flags(PredictionConfig, names)


@command(MAINTAINERS, settings=_prediction_flags, of=bench)
def predict(
    out: OutFile,
    settings: dict[str, Any],
    task: Annotated[str, typer.Option(help="xmc:FOLDER or mimic4:FOLDER.")],
    shortlist: Annotated[
        Path, typer.Option(help="retrieved.parquet of `workbench retrieve` for the split.")
    ],
    model: Annotated[
        str, typer.Option(help="Gives weights and tokenizer; folder, name, or hub id.")
    ] = "smollm2",
    shape: Annotated[
        str | None, typer.Option(help="Random weights instead: llama3-8b, llama3-70b, tiny.")
    ] = None,
    documents: Annotated[int, typer.Option(min=1, help="From the start of the split.")] = 10_000,
    loop_documents: Annotated[
        int, typer.Option(min=1, help="Of these, so many go through the plain loops.")
    ] = 1000,
    form: Annotated[
        str | None,
        typer.Option(help="Name or file of how documents are asked.", show_default="the task's"),
    ] = None,
    device: OneDevice = None,
    dtype: Dtype = "float32",
    force: Force = False,
) -> None:
    """Predictions by this engine and by plain loops: documents a second, and memory."""
    import json

    from workbench.bench.predicting import bench_predict
    from workbench.files import write_text
    from workbench.predicting.config import PredictionConfig
    from workbench.progress import Reporter

    check_new(out, force)
    prepare()
    result = bench_predict(
        task,
        model,
        shortlist,
        PredictionConfig(**settings, n_documents=documents),
        shape=shape,
        loop_documents=loop_documents,
        form=form,
        dtype=dtype,
        device=device,
        reporter=Reporter(),
    )
    write_text(out, json.dumps(result, indent=2) + "\n")
    engine = result["engine"]
    typer.echo(f"engine: {engine['documents_a_second']:.3g} documents a second")
    for loop in result["loops"]:
        pace, ratio = loop["documents_a_second"], loop["ratio"]
        said = f"{pace:.3g}; the engine is {ratio:.2f} times as fast"
        typer.echo(f"loop, {loop['batch']} at a time: {said}")
    typer.echo(f"benchmark: {out}")


@command(
    MAINTAINERS,
    settings=lambda: some_distillation_flags("batch_size", "bf16"),
    of=bench,
    stopped="rounds that were finished are in --out",
)
def distill(
    out: OutFile,
    settings: dict[str, Any],
    headset: Annotated[Path, typer.Option(help="The teacher's head set.")],
    traces: Annotated[Path, typer.Option(help="Trace file, or folder of all its parts.")],
    teacher: Teacher = None,
    arms: Annotated[str, typer.Option(help="Arms by name.")] = MEASURED,
    n_batches: Annotated[int, typer.Option(min=1, help="Batches that steps go through.")] = 4,
    n_steps: Annotated[int, typer.Option(min=1, help="Steps that are timed.")] = 50,
    repeats: Annotated[int, typer.Option(min=1, help="Of every arm; the best counts.")] = 3,
) -> None:
    """What a training step of each arm costs, side by side on the same batches."""
    import json
    from dataclasses import replace

    import torch

    from workbench.bench.distill import step_costs
    from workbench.distill.config import DEFAULTS
    from workbench.distill.examples.stream import Collator, DistillationStream
    from workbench.distill.examples.traces import read_traces
    from workbench.distill.matching.files import heads_for
    from workbench.distill.training.student import word_encoder
    from workbench.files import write_text
    from workbench.models import loading
    from workbench.prompts.choices import open_task

    check_new(out)
    prepare()
    config = replace(DEFAULTS, **settings)
    size = config.batch_size
    folder = loading.model_folder(loading.bundled_model_path() if teacher is None else teacher)
    on_gpu = torch.cuda.is_available()
    model: Any = loading.read_model(folder, dtype=torch.bfloat16 if on_gpu else torch.float32)
    model.to("cuda" if on_gpu else "cpu").eval()
    stream = DistillationStream(
        open_task(model=folder, split="seen", full_size=False),
        word_encoder(loading.read_tokenizer(folder), folder),
        read_traces(traces, loading.weights_sha256(folder)),
        config.mix,
        n_samples=n_batches * size,
        context=config.context,
        same_size=size,
        seed=config.seed,
    )
    batches = [
        Collator()([stream[index] for index in range(start, start + size)])
        for start in range(0, n_batches * size, size)
    ]
    about = {
        "device": torch.cuda.get_device_name() if on_gpu else "cpu",
        "torch": torch.__version__,
        "shapes": [list(batch["input_ids"].shape) for batch in batches],
        "bf16": config.bf16,
    }
    rounds = step_costs(
        model,
        heads_for(headset, folder),
        batches,
        arms.split(","),
        config,
        n_steps=n_steps,
        repeats=repeats,
        say=typer.echo,
    )
    for rows in rounds:  # written after each: a stopped measurement keeps what it has
        write_text(out, json.dumps(about | {"arms": rows}, indent=1))
    typer.echo(f"benchmark: {out}")


@command(MAINTAINERS, of=bench, several=True, stopped="arms that were measured are in --out")
def distill_shapes(
    out: OutFile,
    teacher: Annotated[str, typer.Option(help="Shape: 70b, 8b, 1b, tiny.")],
    student: Annotated[str, typer.Option(help="Shape of the student.")],
    arms: Annotated[str, typer.Option(help="Arms by name.")] = "cot+logits,mechanistic",
    tokens: Annotated[int, typer.Option(help="Of an example.")] = 2048,
    batch: Annotated[int, typer.Option(help="Examples of a forward on a card.")] = 1,
    steps: Annotated[int, typer.Option(help="Steps that are timed, after three.")] = 8,
    heads: Annotated[int, typer.Option(help="Heads of each pool.")] = 8,
    teacher_sharded: Annotated[
        bool, typer.Option(help="Spread the teacher over all processes.")
    ] = False,
    targets: Annotated[
        Path | None,
        typer.Option(help="Folder for the teacher's targets, made first and then trained on."),
    ] = None,
    checkpointing: Annotated[
        bool, typer.Option(help="Compute the student's activations again in the backward.")
    ] = False,
    layers: Annotated[
        str | None, typer.Option(help="Layers of teacher and student, T,S.", show_default="all")
    ] = None,
) -> None:
    """Steps between two shapes of random weights: tokens a second and memory, on all cards.

    Start it by `torchrun --nproc_per_node N -m workbench bench distill-shapes …`, one process a
    card.
    """
    from workbench.bench.distill_plan import Plan, find_shape
    from workbench.bench.distill_shapes import bench_shapes

    numbers = None
    if layers is not None:
        given = layers.split(",")
        if len(given) != 2 or not all(one.isdecimal() and int(one) for one in given):
            raise InputError(f"layers {layers!r} are not TEACHER,STUDENT; give 8,4")
        numbers = int(given[0]), int(given[1])
    prepare()
    plan = Plan(
        find_shape(teacher),
        find_shape(student),
        tuple(arms.split(",")),
        tokens,
        batch,
        steps,
        heads,
        source="disk" if targets is not None else "sharded" if teacher_sharded else "whole",
        checkpointing=checkpointing,
        layers=numbers,
    )
    result = bench_shapes(
        plan, out, lambda line: print(line, flush=True), targets=targets, sharded=teacher_sharded
    )
    for row in result["arms"]:
        speed, peak = row["tokens_a_second"], row["peak_gib"]
        ratio = f", {row['ratio']:.2f} of cot+logits" if "ratio" in row else ""
        typer.echo(f"{row['arm']}: {speed:,.0f} tokens a second, {peak:.1f} GiB a card{ratio}")
    typer.echo(f"benchmark: {out}")


@command(MAINTAINERS, of=bench, several=True)
def steps(
    out: OutFile,
    shape: Annotated[str, typer.Option(help="Random weights of it: 70b, 8b, 1b, tiny-4k.")] = "8b",
    prompts: Annotated[int, typer.Option(min=2, help="How many.")] = 64,
    heads: Annotated[int, typer.Option(min=1, help="Heads that are patched.")] = 32,
    dtype: Dtype = "bfloat16",
    force: Force = False,
) -> None:
    """Scores and patches on a shape, shared among all processes of a launch: seconds of each.

    Start it by `accelerate launch --num_processes N -m workbench bench steps …`, one process a
    card.
    """
    from workbench.bench.steps import bench_steps
    from workbench.progress import Reporter

    if Processes.here().is_main:
        check_new(out, force)
    prepare()
    result = bench_steps(
        shape, out, n_prompts=prompts, n_heads=heads, dtype=dtype, reporter=Reporter()
    )
    for name in ("score", "patch"):
        typer.echo(f"{name}: {result[name]['seconds']:.1f} s")
    typer.echo(f"benchmark: {out}")
