"""Rows out of documents and a teacher's choices: the folder that `workbench predict` wrote.

The prompt is the question that the teacher was asked, the answer the options that it holds most
probable, and the chain what it wrote before, where that was kept. Right labels are in no answer;
they are told beside it (`gold`).
"""

from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import pandas as pd

from workbench.distill.examples.row_files import Draws, write_rows
from workbench.errors import InputError
from workbench.files import file_sha256, read_json, read_parquet
from workbench.labels.corpus import Document, LabelledCorpus, check_split
from workbench.labels.folders import open_corpus
from workbench.labels.predictions import predictions_path, read_predictions
from workbench.predicting.config import PredictionConfig
from workbench.predicting.merging import CHAINS
from workbench.predicting.reranking import MARGIN, in_order, kept
from workbench.progress import Reporter
from workbench.prompts.chat_form import CLOCK
from workbench.prompts.forms.asking import Asker, Question
from workbench.prompts.forms.form import open_form
from workbench.prompts.make import needed_tokenizer
from workbench.prompts.text import SpanError, tokenize

N_NEAR = 3
"""Near misses of a document: wrong options that the teacher holds most probable."""


def write_document_rows(
    out: Path,
    predictions: Path,
    folder: Path,
    draws: Draws,
    *,
    task: str | None = None,
    form: str | Path | None = None,
    n_choices: int = 1,
    reporter: Reporter | None = None,
) -> int:
    """Rows of documents with what a model chose for them; see `write_rows`.

    Args:
        out: the file of rows.
        predictions: a folder of `workbench predict`.
        folder: of the model whose tokenizer writes the questions.
        draws: which of its documents; all there are where it has fewer.
        task: where the documents are, if they lie elsewhere now.
        form: how was asked, if it was no packaged form.
        n_choices: options in an answer, best first, where the teacher listed none itself.
        reporter: where progress is told.

    Returns:
        how many rows the file holds; documents without a candidate have none.

    Raises:
        InputError: no such folder, or one without shortlists; another form than was asked with;
            other documents; what `write_rows` refuses.
    """
    reporter = reporter or Reporter()
    if n_choices < 1:
        raise InputError(f"n_choices is {n_choices}, must be at least 1")
    path = predictions_path(predictions)
    table, record = read_predictions(path).table, _record(path)
    if "retrieved" not in table:
        raise InputError(f"{path}: no column 'retrieved'; a folder of workbench predict has it")
    corpus = open_corpus(task or record["task"])
    check_split(corpus, record["split"])
    asked = open_form(form or record["form"]["name"], task or record["task"])
    if asked.sha256 != record["form"]["sha256"]:
        raise InputError(f"{path}: was asked in another form than {asked.name}; give --form")
    config = PredictionConfig(
        **{name: record[name] for name in ("candidates", "order", "seed", "reason", "room")}
    )
    tokenizer = needed_tokenizer(folder)
    asker = Asker(asked, tokenizer, way=record["way"], max_tokens=record["max_tokens"])
    chains = _chains(path.with_name(CHAINS), table) if record["reason"] else None
    draws = Draws(min(draws.n, len(table)), 0, draws.part)
    settings = {
        "predictions": file_sha256(path),
        "teacher": record["model"]["weights_sha256"],
        "task": record["task"],
        "split": record["split"],
        "n_choices": n_choices,
        "chains": chains is not None,
    }
    rows = _Rows(corpus, record["split"], table, config, asker, tokenizer, chains, n_choices)
    reporter.say(f"documents of split {record['split']}: measure students on another")
    with reporter.step("rows", len(draws.numbers), "documents") as advance:
        private = corpus.text_is_private
        return write_rows(out, rows, draws, settings, private=private, progress=advance)


def _record(path: Path) -> Mapping[str, Any]:
    beside = path.with_suffix(".json")
    needed = ("task", "split", "form", "model", "way", "max_tokens", "candidates", "order", "seed")
    needed = (*needed, "reason", "room")
    found = read_json(beside) if beside.is_file() else None
    missing = [x for x in needed if not isinstance(found, dict) or x not in found]
    if missing or not isinstance(found, dict):
        raise InputError(f"{beside}: says no {missing[0]}; a folder of workbench predict is needed")
    return found


def _chains(path: Path, table: pd.DataFrame) -> Sequence[str] | None:
    """What the model wrote, one text a document; None where it was not kept."""
    if not path.is_file():
        return None
    found = read_parquet(path)
    if found["document"].astype(str).tolist() != table["document"].tolist():
        raise InputError(f"{path}: is of other documents than the predictions beside it")
    return found["chain"].tolist()


class _Rows:
    """Makes rows of documents by number; numbers rise from call to call."""

    def __init__(
        self,
        corpus: LabelledCorpus,
        split: str,
        table: pd.DataFrame,
        config: PredictionConfig,
        asker: Asker,
        tokenizer: Any,
        chains: Sequence[str] | None,
        n_choices: int,
    ) -> None:
        self._corpus, self._split, self._table, self._config = corpus, split, table, config
        self._asker, self._tokenizer, self._chains = asker, tokenizer, chains
        self._n_choices = n_choices
        self._documents, self._at = iter(()), 0

    def __call__(self, numbers: Sequence[int]) -> list[dict[str, Any] | None]:
        if not self._at or numbers[0] < self._at:
            self._documents, self._at = self._corpus.documents(self._split), 0
        some = list(islice(self._documents, numbers[0] - self._at, numbers[-1] + 1 - self._at))
        self._at = numbers[-1] + 1
        return [self._row(n, document) for n, document in zip(numbers, some, strict=True)]

    def _row(self, number: int, document: Document) -> dict[str, Any] | None:
        given = self._table.iloc[number]
        if given["document"] != document.id:
            raise InputError(
                f"row {number + 1} of the predictions is of another document than that of split "
                f"{self._split} of {self._corpus.name}"
            )
        shown, question = self._question(document, kept(document, given["retrieved"]))
        if question is None:
            return None
        ranks = [shown.index(label) for label in given["labels"][: len(shown)]]
        chosen, chain = ranks[: self._n_choices], None
        if self._chains is not None:
            chain = self._chains[number]
            if self._asker.cues is None or self._asker.cues.closing not in chain:
                return None  # it came to no answer
            listed = self._asker.listed(chain, [self._corpus.label_texts[x] for x in shown])
            if not listed:
                return None
            chosen = listed
        right = set(document.labels)
        golds = [at for at in ranks if shown[at] in right]
        near = [at for at in ranks if shown[at] not in right and at not in chosen][:N_NEAR]
        written = self._written(question, [question.names[at] for at in chosen], chain)
        if written is None:
            return None
        return {
            "id": document.id,
            **written,
            "gold": [at if at in golds else golds[0] if golds else None for at in chosen],
            "near_options": [near for _ in chosen],
        }

    def _question(
        self, document: Document, retrieved: Sequence[int]
    ) -> tuple[list[int], Question | None]:
        """As predictions ask: with fewer candidates where they are too long."""
        n = self._config.candidates
        room = self._config.room + MARGIN if self._config.reason else 0
        while some := in_order(retrieved[:n], document.id, self._config):
            try:
                texts = [self._corpus.label_texts[label] for label in some]
                return some, self._asker.ask(document.full_text, texts, room=room)
            except InputError:
                n = len(some) * 3 // 4
        return [], None

    def _written(
        self, question: Question, names: Sequence[str], chain: str | None
    ) -> dict[str, Any] | None:
        """Prompt, reply and the places in the prompt."""
        decided = question
        if chain is not None:
            try:
                decided = self._asker.reasoned(question, chain)
            except InputError:  # read again, it is longer than it was
                return None
        text, start = decided.text, 0
        prompt: Any = text
        if self._asker.way != "plain":
            prompt = self._asker.messages(question)
            asked = self._tokenizer.apply_chat_template(
                prompt,
                tokenize=False,
                add_generation_prompt=True,
                chat_template=CLOCK + self._tokenizer.get_chat_template(),
            )
            if not text.startswith(asked):
                raise InputError(
                    "this model's chat form asks otherwise than its template by itself; predict "
                    "with --way plain"
                )
            begin, end = question.document[0], question.options[-1][1]
            start = text.index(prompt[-1]["content"])
            assert start <= begin < end <= start + len(prompt[-1]["content"])
            reply = text[len(asked) :]
        else:
            reply = ""
        row: dict[str, Any] = {"prompt": prompt}
        if chain is not None:
            if not reply.endswith("\n"):
                raise InputError("this model's answers do not begin on a line of their own")
            row["chain"], reply = reply[:-1], ""
        between = ", " if question.gap else "\n"
        options = [{"span": [a - start, b - start]} for a, b in question.options]
        if all(len(tokens) == 1 for tokens in question.option_tokens):  # else one token tells none
            options = [
                {**one, "label": name} for one, name in zip(options, question.names, strict=True)
            ]
        return {
            **row,
            "answer": reply + question.gap + between.join(names),
            "labels": list(names),
            "options": options,
            "evidence": [self._document(question, start) for _ in names],
        }

    def _document(self, question: Question, start: int) -> list[int] | None:
        """The document's place in the turn; None where it is not on borders of tokens."""
        first, end = question.document
        try:
            tokenize(self._tokenizer, question.text, question.quoted).token_span((first, end))
        except (SpanError, ValueError):
            return None
        return [first - start, end - start] if first < end else None
