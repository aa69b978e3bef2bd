"""The command that measures predictions, by `predict`, by `retrieve` or by others."""

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from workbench.cli.app import LABELS, check_new, command

SHOWN: dict[str, tuple[int | None, ...]] = {
    "p": (1, 3, 5, 8, 15),
    "ndcg": (5,),
    "psp": (1, 3, 5),
    "recall": (20, 100, 1000, None),
    "map": (None,),
    "r_precision": (None,),
    "micro_f1": (None,),
    "macro_f1": (None,),
    "micro_auc": (None,),
    "macro_auc": (None,),
}


@command(LABELS, "score-predictions")
def score_predictions(
    predictions: Annotated[
        Path, typer.Argument(help="Folder of predict or retrieve, parquet, or sparse .npz, .txt.")
    ],
    task: Annotated[
        str | None,
        typer.Option(help="xmc:FOLDER or mimic4:FOLDER.", show_default="what the predictions say"),
    ] = None,
    split: Annotated[
        str | None,
        typer.Option(help="Whose documents.", show_default="what the predictions say, or test"),
    ] = None,
    against: Annotated[
        Path | None,
        typer.Option(help="Others of the same documents: the differences; lists are cut alike."),
    ] = None,
    threshold_from: Annotated[
        Path | None,
        typer.Option(
            help="Predictions of other documents that choose the score from which F1 counts.",
            show_default="as many labels as training documents have",
        ),
    ] = None,
    against_threshold_from: Annotated[
        Path | None, typer.Option(help="The same for --against.")
    ] = None,
    propensity: Annotated[
        Literal["other", "wikipedia", "amazon"], typer.Option(help="Constants of PSP's data.")
    ] = "other",
    groups: Annotated[
        Path | None,
        typer.Option(
            help="File of documents and what they belong to (`document<tab>group`); intervals are "
            "over groups.",
            show_default="each document by itself",
        ),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="CSV file of all measures.", show_default="not written")
    ] = None,
    write: Annotated[
        Path | None,
        typer.Option(help="Write the predictions as .parquet, .npz, or pyxclib's .txt, too."),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace files that are there.")] = False,
    n_resamples: Annotated[int, typer.Option(min=1, help="For the intervals.")] = 2000,
    seed: Annotated[int, typer.Option(help="Of the draws.")] = 0,
) -> None:
    """P, recall, nDCG, PSP, MAP, R-precision, F1 and AUC of predictions, with 95 % intervals."""
    from workbench.analysis.label_space import frequency
    from workbench.analysis.label_space.scored import open_scored
    from workbench.errors import InputError
    from workbench.files import write_table
    from workbench.labels.predictions import is_sparse
    from workbench.progress import Reporter

    for path in (out, write):
        if path:
            check_new(path, force)
    if write and not is_sparse(write) and write.suffix != ".parquet":
        raise InputError(f"{write}: .parquet, .npz, .txt or .txt.gz is needed")
    reporter = Reporter()
    with reporter.step("predictions"):
        scored = open_scored(predictions, task=task, split=split)
        if write:
            _write(write, scored)
    with reporter.step("measures"):
        table = scored.measured(
            against,
            threshold_from=threshold_from,
            against_threshold_from=against_threshold_from,
            propensity=getattr(frequency, propensity.upper()),
            groups=groups,
            n_resamples=n_resamples,
            seed=seed,
        )
    of = f" of {scored.split}" if scored.split else ""
    most = f", at most {scored.predictions.longest:,} listed"
    labels = f", labels: {scored.n_labels:,}" if scored.n_labels else ""
    typer.echo(f"documents: {len(scored.documents):,}{of}{labels}{most}")
    for line in shown(table):
        typer.echo(line)
    if out:
        write_table(out, table, float_format="%.6g")
        typer.echo(f"table: {out}")


def shown(table: Any) -> list[str]:
    """The measures over all labels in aligned lines of at most 80 characters."""
    paired = "difference" in table
    every = table[table["bucket"] == "all"]
    places = [int(k) if k == k else None for k in every["k"].astype(float)]
    keys = zip(every["measure"], places, strict=True)
    rows = dict(zip(keys, every.to_dict("records"), strict=True))
    lines = []
    if paired:
        lines.append(f"{'':13}{'value':5} {'95 %':>16}  against  {'difference':10} {'95 %':>12}")
    for measure, wanted in SHOWN.items():
        for k in wanted:
            row = rows.get((measure, k))
            if row is None:
                continue
            name = f"{measure}@{k}" if k else "all listed" if measure == "recall" else measure
            line = f"{name:12} {_number(row['value'])} {_between(row['low'], row['high']):16}"
            if paired:
                ends = _between(row["difference_low"], row["difference_high"], "+")
                difference = _number(row["difference"], "+")
                line += f" {_number(row['against']):>7}  {difference:>10} {ends}"
            lines.append(line.rstrip())
    if ("micro_f1", None) in rows:
        row = rows["micro_f1", None]
        lines.append(f"F1 of: {row['rule']}")
        if paired and row["against_rule"] != row["rule"]:
            lines.append(f"   against: {row['against_rule']}")
    return lines


def _number(value: float, sign: str = "") -> str:
    return f"{value:{sign}.3f}" if value == value else "-"


def _between(low: float, high: float, sign: str = "") -> str:
    return f"[{low:{sign}.3f}, {high:{sign}.3f}]" if low == low else ""


def _write(path: Path, scored: Any) -> None:
    """The predictions in the form that the name of the file asks for."""
    from workbench.errors import InputError
    from workbench.labels.predictions import is_sparse, write_predictions, write_sparse

    private = bool(scored.corpus and scored.corpus.text_is_private)
    table = scored.table()
    if is_sparse(path):
        if scored.n_labels is None:
            raise InputError(f"{path}: how many labels there are is not known; give --task")
        added = write_sparse(path, table, scored.n_labels, private=private)
        raised = f"; {added:g} was added to every score, so that all are above 0" if added else ""
        typer.echo(f"written: {path}{raised}")
        return
    said = dict(scored.predictions.record) | {"split": scored.split, "n_labels": scored.n_labels}
    record = {key: value for key, value in said.items() if value is not None}
    write_predictions(path, table, record, private=private)
    typer.echo(f"written: {path}, and {path.with_suffix('.json').name} beside it")
