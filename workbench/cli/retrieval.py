"""The commands around retrieval: label sets that anybody can make, and labels of whole splits."""

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from workbench.cli.app import GOES_ON, LABELS, command, new_folder
from workbench.cli.flags import Model

BEST = "best"
BEGUN = "retrieve.json"
"""In the folder: what decides its tables."""
PARTS = "parts"


@command(LABELS)
def debian(
    out: Annotated[Path, typer.Option(help="Folder to write, read as xmc:FOLDER.")],
    packages: Annotated[
        Path | None,
        typer.Option(
            help="Packages of main, plain or packed; with --translation.",
            show_default="apt's lists of this machine",
        ),
    ] = None,
    translation: Annotated[
        Path | None, typer.Option(help="Translation-en of the same suite and day.")
    ] = None,
    release: Annotated[
        Path | None, typer.Option(help="InRelease of that day: its date, and hashes to check.")
    ] = None,
    suite: Annotated[
        str | None,
        typer.Option(help="Which of apt's suites.", show_default="the one that is whole"),
    ] = None,
    arch: Annotated[
        str | None, typer.Option(help="Its architecture.", show_default="the only one")
    ] = None,
    expect: Annotated[
        Path | None, typer.Option(help="A debian.json; refuse what differs from it.")
    ] = None,
    sample: Annotated[
        int | None,
        typer.Option(
            min=4, help="Documents of a small, closed part.", show_default="all, not a part"
        ),
    ] = None,
) -> None:
    """A real label set in XMC's shape: Debian's 63 thousand packages, and which belong together."""
    from workbench.errors import InputError
    from workbench.labels.debian import debian_set
    from workbench.labels.debian_index import IndexFiles, find_index

    if (packages is None) != (translation is None):
        raise InputError("--packages and --translation go together; give both or none")
    if packages and translation:
        files = IndexFiles(packages, translation, release)
    else:
        files = find_index(suite=suite, arch=arch)
    with new_folder(out):
        made = debian_set(files, sample=sample)
        if expect:
            made.check(expect)
        made.write(out)
    told = made.record
    counts = ", ".join(f"{n:,} {split}" for split, n in told["documents"].items())
    origin = told["built_from"]
    checked = {True: "as released", False: "NOT as its Release lists it", None: "unchecked"}
    typer.echo(f"labels: {told['labels']:,}; documents: {counts}")
    typer.echo(f"from: {origin['suite']}, {origin['date']}, {checked[origin['as_released']]}")
    typer.echo(f"next: workbench retrieve --task xmc:{out} --out {out}-retrieved")


@command(LABELS)
def notes(
    out: Annotated[Path, typer.Option(help="Folder to write, read as mimic4:FOLDER.")],
    n: Annotated[int, typer.Option("--n", min=1, help="Notes of the test split.")] = 120,
    n_training: Annotated[int, typer.Option(min=1, help="Of the training split.")] = 120,
    seed: Annotated[int, typer.Option(help="Of every choice.")] = 0,
    hard: Annotated[
        bool, typer.Option("--hard", help="In the words that are least like the label's.")
    ] = False,
) -> None:
    """Made-up discharge notes in MIMIC-IV's shape that tell each ICD-10-CM code several ways."""
    from workbench.bench.notes import TELLINGS, write_notes

    with new_folder(out):
        n_codes, n_tellings = write_notes(out, n=n, n_training=n_training, seed=seed, hard=hard)
    typer.echo(f"notes: {n:,} test, {n_training:,} train; {n_codes:,} diagnoses")
    typer.echo(f"tellings: {n_tellings:,}, their places in {out / TELLINGS}")
    typer.echo(f"next: workbench retrieve --task mimic4:{out} --out {out}-retrieved")


@command(LABELS)
def notes_check(
    notes: Annotated[Path, typer.Option(help="Folder of workbench notes.")],
    prompts: Annotated[Path, typer.Option(help="Prompt file of these notes.")],
    model: Model = None,
) -> None:
    """In how many prompts of made-up notes a counterfactual still tells what it takes away."""
    from workbench.bench.notes_told import tellings_left
    from workbench.models import loading
    from workbench.prompts.files import read_prompts

    folder = loading.model_folder(loading.bundled_model_path() if model is None else model)
    tokenizer = loading.read_tokenizer(folder)
    table = tellings_left(read_prompts(prompts, tokenizer).with_tokenizer(tokenizer), notes)
    typer.echo(f"prompts: {len(table)}; tellings of gold in one: {table['clean'].mean():.1f}")
    for variant in ("far", "near"):
        still = table["prompt"][table[variant] > 0].tolist()
        whole = len(table[table[f"{variant}_whole"] > 0])
        in_part = f" ({whole} in full, {len(still) - whole} only in part)" if still else ""
        which = f": {', '.join(still[:20])}" if still else ""
        typer.echo(
            f"{variant} variants that tell gold: {len(still)} of {len(table)}{in_part}{which}"
        )


@command(LABELS, stopped=GOES_ON)
def retrieve(
    task: Annotated[str, typer.Option(help="xmc:FOLDER or mimic4:FOLDER.")],
    out: Annotated[Path, typer.Option(help="Folder to write: new, or one to go on with.")],
    split: Annotated[str, typer.Option(help="Whose documents.")] = "test",
    ways: Annotated[
        str, typer.Option(help="Ways to fuse, as bm25,chars; see the docs. A second time: twice.")
    ] = BEST,
    among: Annotated[
        str | None, typer.Option(help="Ways that the best are of.", show_default="all there are")
    ] = None,
    k: Annotated[int, typer.Option("--k", min=1, help="Labels of a document.")] = 1000,
    chosen_for: Annotated[
        int, typer.Option(min=1, help="The best ways have most right labels in so many places.")
    ] = 100,
    n_chosen: Annotated[
        int, typer.Option(min=1, help="Training documents that the best ways are chosen on.")
    ] = 1000,
    pool: Annotated[
        Literal["max", "sum"], typer.Option(help="How passages are taken together.")
    ] = "max",
    dense: Annotated[
        Path | None, typer.Option(help="Folder of sentence-transformers, for the way dense.")
    ] = None,
    groups: Annotated[
        Path | None,
        typer.Option(
            help="What documents belong to, a line `document group`, a tab between: those of one "
            "group are no examples of one another, and intervals are over groups.",
            show_default="each is alone",
        ),
    ] = None,
    n_documents: Annotated[
        int | None, typer.Option(min=1, help="Documents from its start.", show_default="all")
    ] = None,
    n_resamples: Annotated[int, typer.Option(min=1, help="For the intervals.")] = 2000,
    n_threads: Annotated[
        int | None, typer.Option(min=1, help="Threads.", show_default="all cores")
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the draws.")] = 0,
) -> None:
    """Labels of every document of a split, out of all labels, and how many right ones are found."""
    from workbench.files import alone_in, claim, file_sha256
    from workbench.labels.corpus import check_split
    from workbench.labels.folders import open_corpus
    from workbench.labels.retrieving.groups import read_groups
    from workbench.labels.retrieving.ways import check_ways

    grouped = read_groups(groups) if groups else None
    names = None if ways == BEST else check_ways(ways)
    candidates = check_ways(among) if among else None
    corpus = open_corpus(_checked_task(task))
    check_split(corpus, split)
    asked: dict[str, Any] = {
        "task": task,
        "split": split,
        "labels": len(corpus.label_texts),
        "ways": ways,
        "among": candidates,
        "k": k,
        "chosen_for": chosen_for,
        "n_chosen": n_chosen,
        "pool": pool,
        "dense": str(dense) if dense else None,
        "groups": file_sha256(groups) if groups else None,
        "n_documents": n_documents,
        "seed": seed,
    }
    with alone_in(out, private=corpus.text_is_private):
        claim(out, out / BEGUN, asked, "labels")
        _retrieve(out, corpus, names, candidates, asked, groups, grouped, n_resamples, n_threads)


def _checked_task(task: str) -> str:
    from workbench.errors import InputError
    from workbench.prompts.choices import check_task

    if not check_task(task).takes_folder:
        raise InputError(f"task {task!r} is of no documents; give xmc:FOLDER or mimic4:FOLDER")
    return task


def _retrieve(
    out: Path,
    corpus: Any,
    names: list[str] | None,
    candidates: list[str] | None,
    asked: dict[str, Any],
    groups: Path | None,
    grouped: dict[str, int] | None,
    n_resamples: int,
    n_threads: int | None,
) -> None:
    import shutil
    from itertools import islice

    from workbench.analysis.label_space.retrieval import best_ways, read_retrieved, retrieved_split
    from workbench.analysis.label_space.scored import score_predictions
    from workbench.cli.predictions import shown
    from workbench.files import write_table
    from workbench.labels.retrieving.retriever import Retriever
    from workbench.progress import Reporter

    reporter = Reporter()
    private = corpus.text_is_private
    embed = _embedding(asked["dense"]) if asked["dense"] else None
    retriever = Retriever(
        corpus, pool=asked["pool"], embed=embed, n_threads=n_threads, groups=grouped
    )
    if names is None:
        names = best_ways(
            out / "ways.csv",
            retriever,
            asked["chosen_for"],
            n=asked["n_chosen"],
            seed=asked["seed"],
            among=candidates,
            reporter=reporter,
        )
    retriever.ways = tuple(names)
    whole = out / "retrieved.parquet"
    if whole.is_file():
        found = read_retrieved(whole)
    else:
        with reporter.step("documents"):
            n = sum(1 for _ in islice(corpus.documents(asked["split"]), asked["n_documents"]))
        with reporter.step(f"labels of {asked['split']}", n) as advance:
            found = retrieved_split(
                retriever,
                asked["split"],
                out / PARTS,
                asked["k"],
                limit=n,
                private=private,
                advance=advance,
            )
        write_table(whole, found, private=private)
    shutil.rmtree(out / PARTS, ignore_errors=True)
    with reporter.step("measures"):
        table = score_predictions(
            whole,
            task=corpus,
            split=asked["split"],
            groups=groups if set(grouped or ()).intersection(found["document"]) else None,
            n_resamples=n_resamples,
            seed=asked["seed"],
        )
    table.insert(0, "ways", ",".join(names))
    write_table(out / "retrieval.csv", table, float_format="%.4f")
    for line in corpus.left_out:
        reporter.say(f"{corpus.name}: {line}")
    typer.echo(f"ways: {', '.join(names)}")
    typer.echo(f"documents: {len(found):,} of {asked['split']}")
    for line in shown(table):
        typer.echo(line)
    typer.echo(f"tables: {out / 'retrieval.csv'}, {whole}")


def _embedding(folder: str) -> Any:
    from workbench.analysis.chains.embeddings import SentenceTransformer

    model = SentenceTransformer(folder)
    return lambda texts: model.of_texts(texts).numpy()
