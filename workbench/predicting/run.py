"""Whole splits: every document's labels, in the order in which a model holds them probable."""

import hashlib
import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pandas as pd

from workbench.errors import InputError
from workbench.files import LOCK, alone, alone_in, claim, file_sha256, make_folder, write_table
from workbench.labels.corpus import LabelledCorpus
from workbench.labels.folders import open_corpus
from workbench.labels.predictions import FILE, write_predictions
from workbench.models.batch_budget import PackBudget
from workbench.predicting.blocks import (
    BLOCK,
    PARTS,
    count_blocks,
    iter_blocks,
    part_path,
    parts_there,
    read_parts,
    size_of,
)
from workbench.predicting.config import PredictionConfig
from workbench.predicting.generating import open_generator
from workbench.predicting.model import PlainModel, load_plain
from workbench.predicting.processes import Place, launched, wait_for
from workbench.predicting.reranking import COLUMNS, Reranker
from workbench.predicting.scoring import OptionScorer
from workbench.predicting.shortlists import count_documents, given_shortlist, shortlist
from workbench.progress import Reporter
from workbench.prompts.choices import check_task
from workbench.prompts.forms.asking import Asker
from workbench.prompts.forms.form import Form, open_form

BEGUN = "predict.json"
"""In the folder: what decides its tables."""
CHAINS = "chains.parquet"
LONGEST = 4096
"""Tokens of a question to a model that names no context."""
SCORES = (
    "log-probability of an option's name where the model answers; labels that it was not shown "
    "follow in the order in which they were retrieved, each 1 below the one before"
)
_NOT_DECIDING = ("patience", "batch_tokens")


def predict(
    out: str | Path,
    task: str,
    model: str | Path | PlainModel,
    config: PredictionConfig | None = None,
    *,
    shortlist_file: str | Path | None = None,
    form: str | Path | Form | None = None,
    dtype: str = "float32",
    device: str | None = None,
    place: Place | None = None,
    reporter: Reporter | None = None,
) -> pd.DataFrame | None:
    """Predict the labels of every document of a split, in a folder that can be gone on with.

    Args:
        out: folder for `predictions.parquet` and what belongs to it.
        task: `xmc:FOLDER` or `mimic4:FOLDER`, with options.
        model: anything that `load_plain` takes, or what it gives.
        config: how; defaults otherwise.
        shortlist_file: the `retrieved.parquet` of `workbench retrieve`; made here otherwise.
        form: how documents are asked about; the task's own otherwise.
        dtype: of the weights.
        device: an accelerator if there is one; "auto" spreads the model over all of them.
        place: which of several processes this is; by default what the launcher says.
        reporter: shows what is done.

    Returns:
        the predictions, in the main process; None in others.

    Raises:
        InputError: one line: a task without documents, a folder with other settings, or what any
            part refuses.
    """
    out, config, reporter = Path(out), config or PredictionConfig(), reporter or Reporter()
    place = place or launched()
    if not check_task(task).takes_folder:
        raise InputError(f"task {task!r} is of no documents; give xmc:FOLDER or mimic4:FOLDER")
    corpus = open_corpus(task)
    with reporter.step("documents"):
        n = count_documents(corpus, config)
    given = None if shortlist_file is None else Path(shortlist_file)
    if given is not None:
        given_shortlist(given, corpus, n)
    form = form if isinstance(form, Form) else open_form(form, task)
    with _held(out, place, corpus.text_is_private):
        if not isinstance(model, PlainModel):
            model = load_plain(model, dtype=dtype, device=device, place=place, reporter=reporter)
        asker, longest = _asker(form, model, config)
        asked = _asked(task, corpus, n, model, form, asker, config, given)
        _claim(out, place, asked, config, reporter)
        if (out / FILE).is_file():
            return pd.read_parquet(out / FILE) if place.main else None
        if given is not None:
            table = given_shortlist(given, corpus, n)
        else:
            table = shortlist(out, corpus, config, n, place=place, reporter=reporter)
        generator = None
        if config.reason:
            generator = open_generator(
                config.generator, model, longest, batch_tokens=config.batch_tokens, place=place
            )
        budget = PackBudget(model.device)
        budget.tokens = config.batch_tokens or budget.tokens
        scorer = OptionScorer(model, budget)
        reranker = Reranker(model, asker, corpus.label_texts, config, scorer, generator)
        _predict(out, corpus, config, table, reranker, place, reporter)
        if not place.main:
            return None
        return _merged(out, corpus, n, asked, config, reporter)


@contextmanager
def _held(out: Path, place: Place, private: bool) -> Iterator[None]:
    """Be the only process of this number that writes there."""
    if place.main:
        with alone_in(out, private=private):
            yield
        return
    make_folder(out, private=private)
    busy = f"{out}: another process is writing there{place.said}; give another --out"
    with alone(out / f"{LOCK}-{place.index}", busy):
        yield


def _asker(form: Form, model: PlainModel, config: PredictionConfig) -> tuple[Asker, int]:
    """What writes the questions, and the most tokens that one may take."""
    context = model.context
    longest = config.max_tokens or context or LONGEST
    if context is not None and longest > context:
        raise InputError(f"--max-tokens {longest}: the context of {model.name} is {context}")
    way = config.way
    if config.reason:
        if not getattr(model.tokenizer, "chat_template", None) or way == "plain":
            raise InputError(
                f"--reason needs a model with a chat form, and to ask it there; {model.name} "
                + ("has none" if way != "plain" else "is asked with --way plain")
            )
        if config.room >= longest:
            raise InputError(
                f"--room {config.room}: a question and its chain take {longest} tokens at most"
            )
        way = "think" if way == "auto" else way
    return Asker(form, model.tokenizer, way=way, max_tokens=longest), longest


def _asked(
    task: str,
    corpus: LabelledCorpus,
    n: int,
    model: PlainModel,
    form: Form,
    asker: Asker,
    config: PredictionConfig,
    given: Path | None,
) -> dict[str, Any]:
    """All that decides the predictions."""
    decides = {k: v for k, v in asdict(config).items() if k not in _NOT_DECIDING}
    if given is not None:
        decides |= {"ways": "given", "shortlisted": file_sha256(given)}
    text = json.dumps({k: v for k, v in asdict(form).items() if k != "where"}, sort_keys=True)
    return {
        "task": task,
        "corpus": corpus.name,
        "n_labels": len(corpus.label_texts),
        **decides,
        "n_documents": n,
        "way": asker.way,
        "max_tokens": asker.max_tokens,
        "form": {"name": form.name, "sha256": hashlib.sha256(text.encode()).hexdigest()},
        "model": {
            "name": model.name,
            "revision": model.revision,
            "weights_sha256": model.weights_sha256,
            "dtype": str(model.dtype).removeprefix("torch."),
        },
        "block": BLOCK,
    }


def _claim(
    out: Path, place: Place, asked: dict[str, Any], config: PredictionConfig, reporter: Reporter
) -> None:
    """The main process says what the folder is for; others must be of the same mind."""
    path = out / BEGUN
    if not place.main:
        patience = 60 * config.patience
        wait_for(lambda: int(path.is_file()), 1, "the first process", patience, reporter)
    claim(out, path, asked, "predictions")


def _predict(
    out: Path,
    corpus: LabelledCorpus,
    config: PredictionConfig,
    table: pd.DataFrame,
    reranker: Reranker,
    place: Place,
    reporter: Reporter,
) -> None:
    """The blocks of this process that are not there, each written when it is done."""
    n, private = len(table), corpus.text_is_private
    make_folder(out / PARTS, private=private)
    there = parts_there(out)
    own = range(place.index, count_blocks(n), place.count)
    missing = [number for number in own if number not in there]
    total = sum(size_of(number, n) for number in own)
    done = total - sum(size_of(number, n) for number in missing)
    if done:
        reporter.say(f"{done} of {total} documents{place.said} are there already")
    if not missing:
        return
    total, done = total - done, 0
    name = f"documents of {config.split}{place.said}"
    with reporter.step(name, total, "documents") as advance:

        def more(count: int) -> None:
            nonlocal done
            done += count
            advance(done, total)

        for block in iter_blocks(corpus, config.split, table, missing):
            rows = reranker.table(block, more)
            write_table(part_path(out, block.number), rows, private=private)


def _merged(
    out: Path,
    corpus: LabelledCorpus,
    n: int,
    asked: dict[str, Any],
    config: PredictionConfig,
    reporter: Reporter,
) -> pd.DataFrame:
    """The tables of all processes as one, once they are there."""
    blocks, patience = count_blocks(n), 60 * config.patience
    wait_for(lambda: len(parts_there(out)), blocks, "blocks of documents", patience, reporter)
    table, private = read_parts(out, n), corpus.text_is_private
    columns = [name for name in (*COLUMNS, "listed") if name in table]
    if "chain" in table:
        write_table(out / CHAINS, table[["document", "chain"]], private=private)
    record = {**asked, "scores": SCORES, "counts": counts(table, config)}
    write_predictions(out / FILE, table[columns], record, private=private)
    shutil.rmtree(out / PARTS, ignore_errors=True)
    for line in said(record["counts"], config):
        reporter.say(line)
    for line in corpus.left_out:
        reporter.say(f"{corpus.name}: {line}")
    return pd.DataFrame(table[columns])


def counts(table: pd.DataFrame, config: PredictionConfig) -> dict[str, int | float]:
    """What of the documents could not be asked about as it is, and how long questions were."""
    asked = table[table["candidates"] > 0]
    found: dict[str, int | float] = {
        "documents": len(table),
        "without_candidates": len(table) - len(asked),
        "with_fewer_candidates": int((asked["candidates"] < config.candidates).sum()),
        "cut": int(table["cut"].sum()),
        "tokens": int(table["tokens"].sum()),
        "longest": int(table["tokens"].max()),
    }
    if "finished" in table:
        found["unfinished_chains"] = int((~asked["finished"]).sum())
    return found


def said(counted: dict[str, int | float], config: PredictionConfig) -> Iterator[str]:
    """Lines about the counts, for people."""
    n = counted["documents"]
    if counted["cut"]:
        yield f"{counted['cut']} of {n} documents were too long and are cut by passages"
    if counted["without_candidates"]:
        yield f"{counted['without_candidates']} of {n} documents have no candidate, and no labels"
    if counted["with_fewer_candidates"]:
        fewer = counted["with_fewer_candidates"]
        yield f"{fewer} of {n} documents have fewer than {config.candidates} candidates"
    if counted.get("unfinished_chains"):
        yield f"{counted['unfinished_chains']} of {n} chains are not finished; give more --room"
