"""The command that measures what large label sets cost."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from workbench.cli.app import app, prepare
from workbench.cli.options import Force


class Part(StrEnum):
    """What is measured."""

    INDEX = "index"
    DECODING = "decoding"
    NEIGHBOURS = "neighbours"
    CLUSTERS = "clusters"


@app.command()
def bench_labels(
    out: Annotated[Path, typer.Option(help="JSON file to write.")],
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

    from workbench.bench.labels import bench_labels as measure
    from workbench.errors import InputError
    from workbench.files import write_text

    if out.exists() and not force:
        raise InputError(f"{out}: exists already; give another --out, or --force to replace it")
    parts = tuple(dict.fromkeys(one.value for one in part or Part))
    if Part.DECODING in parts:
        prepare()  # loads torch, whose memory is none of the other parts'
    result = measure(
        n,
        parts,
        seed=seed,
        generations=generations,
        sample=sample,
        n_threads=n_threads,
    )
    write_text(out, json.dumps(result, indent=2) + "\n")
    for name in Part:
        if name in result:
            typer.echo(f"{name}: {result[name]['seconds']:.3g} s")
    typer.echo(f"benchmark: {out}")
