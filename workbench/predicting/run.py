"""Whole splits: every document's labels, in the order in which a model holds them probable."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from workbench.errors import InputError
from workbench.files import (
    LOCK,
    alone,
    alone_in,
    claim,
    file_sha256,
    make_folder,
    read_parquet,
    write_table,
)
from workbench.labels.corpus import LabelledCorpus
from workbench.labels.folders import open_corpus
from workbench.labels.predictions import FILE, predictions_path
from workbench.models.batch_budget import PackBudget
from workbench.predicting.blocks import (
    BLOCK,
    PARTS,
    count_blocks,
    iter_blocks,
    part_path,
    parts_there,
    size_of,
)
from workbench.predicting.config import PredictionConfig
from workbench.predicting.generating import open_generator
from workbench.predicting.merging import merged
from workbench.predicting.model import PlainModel, load_plain
from workbench.predicting.reranking import Reranker
from workbench.predicting.scoring import OptionScorer
from workbench.predicting.shortlists import count_documents, given_shortlist, shortlist
from workbench.predicting.waiting import wait_for
from workbench.processes import Alone, Processes
from workbench.progress import Advance, Reporter, beating
from workbench.prompts.choices import check_task
from workbench.prompts.forms.asking import Asker
from workbench.prompts.forms.form import Form, open_form
from workbench.team import Team

BEGUN = "predict.json"
"""In the folder: what decides its tables."""
LONGEST = 4096
"""Tokens of a question to a model that names no context."""
_NOT_DECIDING = ("patience", "batch_tokens")
SECONDS_BETWEEN_COUNTS = 2.0
"""Of blocks that others have done."""


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
    here: Processes | None = None,
    reporter: Reporter | None = None,
) -> pd.DataFrame | None:
    """Predict the labels of every document of a split, in a folder that can be gone on with.

    Args:
        out: folder for `predictions.parquet` and what belongs to it.
        task: `xmc:FOLDER` or `mimic4:FOLDER`, with options.
        model: anything that `load_plain` takes, or what it gives.
        config: how; defaults otherwise.
        shortlist_file: folder of `workbench retrieve`, or its table; made here otherwise.
        form: how documents are asked about; the task's own otherwise.
        dtype: of the weights.
        device: an accelerator if there is one; "auto" spreads the model over all of them.
        here: which of several processes this is, where they are started by hand; what the launcher
            says otherwise.
        reporter: shows what is done.

    Returns:
        the predictions, in the main process; None in others.

    Raises:
        InputError: one line: a task without documents, a folder with other settings, or what any
            part refuses.
    """
    out, config, reporter = Path(out), config or PredictionConfig(), reporter or Reporter()
    launched = here is None
    here = here or Processes.here()
    if launched:
        reporter = here.reporter(reporter)
    if not check_task(task).takes_folder:
        raise InputError(f"task {task!r} is of no documents; give xmc:FOLDER or mimic4:FOLDER")
    corpus = open_corpus(task)
    with reporter.step("documents"):
        n = count_documents(corpus, config)
        given = None if shortlist_file is None else predictions_path(shortlist_file)
        table = None if given is None else given_shortlist(given, corpus, config.split, n)
    form = form if isinstance(form, Form) else open_form(form, task)
    with _held(out, here, corpus.text_is_private), _team(out, here, launched, reporter) as team:
        patience = _Patience(60 * config.patience, reporter, team)
        if not isinstance(model, PlainModel):
            with reporter.step("model"), beating():
                model = load_plain(model, dtype=dtype, device=device, here=here, reporter=reporter)
        asker = _asker(form, model, config)
        asked = _asked(task, corpus, n, model, form, asker, config, given)
        _claim(out, here, asked, patience)
        if (out / FILE).is_file():
            return read_parquet(out / FILE) if here.is_main else None
        if table is None:
            table = shortlist(
                out, corpus, config, n, team=team, reporter=reporter, main=here.is_main
            )
        reranker = _reranker(model, asker, corpus, config, launched and here.world > 1)
        _predict(out, corpus, config, table, reranker, here, reporter)
        if not here.is_main:
            return None
        patience.until(lambda: len(parts_there(out)), count_blocks(n), "blocks of documents")
        return merged(out, corpus, n, asked, config, reporter)


@contextmanager
def _held(out: Path, here: Processes, private: bool) -> Iterator[None]:
    """Be the only process of this number that writes there."""
    if here.is_main:
        with alone_in(out, private=private):
            yield
        return
    make_folder(out, private=private)
    busy = f"{out}: another process {here.rank} is writing there; give another --out"
    with alone(out / f"{LOCK}-{here.rank}", busy):
        yield


@contextmanager
def _team(out: Path, here: Processes, launched: bool, reporter: Reporter) -> Iterator[Alone]:
    """The processes of a launch, of which none waits for one that failed; by hand there is none."""
    team = Team.meet(out, here=here, reporter=reporter) if launched else Alone()
    with team.failing():
        team.everyone()
        yield team
    team.close()


@dataclass(frozen=True)
class _Patience:
    """How this process waits for others."""

    seconds: float
    reporter: Reporter
    team: Alone

    def until(self, done: Callable[[], int], total: int, what: str) -> None:
        wait_for(done, total, what, self.seconds, self.reporter, self.team)


def _reranker(
    model: PlainModel,
    asker: Asker,
    corpus: LabelledCorpus,
    config: PredictionConfig,
    launched: bool,
) -> Reranker:
    budget = PackBudget(model.device)
    budget.tokens = config.batch_tokens or budget.tokens
    generator = None
    if config.reason:
        generator = open_generator(
            config.generator,
            model,
            asker.max_tokens,
            batch_tokens=config.batch_tokens,
            launched=launched,
        )
    scorer = OptionScorer(model, budget)
    return Reranker(model, asker, corpus.label_texts, config, scorer, generator)


def _asker(form: Form, model: PlainModel, config: PredictionConfig) -> Asker:
    """What writes the questions."""
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
    return Asker(form, model.tokenizer, way=way, max_tokens=longest)


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
    return {
        "task": task,
        "corpus": corpus.name,
        "n_labels": len(corpus.label_texts),
        **decides,
        "n_documents": n,
        "way": asker.way,
        "max_tokens": asker.max_tokens,
        "form": {"name": form.name, "sha256": form.sha256},
        "model": {
            "name": model.name,
            "revision": model.revision,
            "weights_sha256": model.weights_sha256,
            "dtype": str(model.dtype).removeprefix("torch."),
        },
        "block": BLOCK,
    }


def _claim(out: Path, here: Processes, asked: dict[str, Any], patience: _Patience) -> None:
    """The main process says what the folder is for; others must be of the same mind."""
    path = out / BEGUN
    if not here.is_main:
        patience.until(lambda: int(path.is_file()), 1, "the first process")
    claim(out, path, asked, "predictions")


def _predict(
    out: Path,
    corpus: LabelledCorpus,
    config: PredictionConfig,
    table: pd.DataFrame,
    reranker: Reranker,
    here: Processes,
    reporter: Reporter,
) -> None:
    """The blocks of this process that are not there, each written when it is done."""
    n, private = len(table), corpus.text_is_private
    make_folder(out / PARTS, private=private)
    began = parts_there(out)
    own = set(here.mine(count_blocks(n))) - began
    left = n - _documents(began, n)
    if left < n:
        reporter.say(f"{n - left} of {n} documents are there already")
    if not own:
        return
    with reporter.step(f"documents of {config.split}", left, "documents") as advance:
        counted = _Counted(advance, left, lambda: _documents(parts_there(out) - began - own, n))
        for block in iter_blocks(corpus, config.split, table, own):
            rows = reranker.table(block, counted.more)
            write_table(part_path(out, block.number), rows, private=private)


def _documents(blocks: set[int], n: int) -> int:
    return sum(size_of(number, n) for number in blocks)


class _Counted:
    """Documents that this process and others have done since it began."""

    def __init__(self, advance: Advance, total: int, others: Callable[[], int]) -> None:
        self._advance, self._total, self._others = advance, total, others
        self._own = self._theirs = 0
        self._looked = 0.0

    def more(self, count: int) -> None:
        self._own += count
        if time.monotonic() - self._looked > SECONDS_BETWEEN_COUNTS:
            self._looked, self._theirs = time.monotonic(), self._others()
        self._advance(self._own + self._theirs, self._total)
