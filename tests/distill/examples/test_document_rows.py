"""Rows of documents, out of predictions of a tiny model whose choices mean nothing."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from fixtures.distillation import build
from rich.console import Console

from workbench.distill.examples.chats import examples_from_chats
from workbench.distill.examples.document_rows import write_document_rows
from workbench.distill.examples.row_files import Draws, row_files
from workbench.errors import InputError
from workbench.files import write_table
from workbench.labels.folders import open_corpus
from workbench.predicting.config import PredictionConfig
from workbench.predicting.run import predict
from workbench.progress import Reporter

TASK = f"xmc:{Path(__file__).parents[3] / 'data' / 'synthetic' / 'xmc'}"
CONFIG = PredictionConfig(split="train", candidates=5, shortlisted=8, ways="bm25", n_documents=5)
ALL = Draws(100)
QUIET = Reporter(Console(quiet=True))


@pytest.fixture(scope="module")
def folder(qwen_tokenizer, tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    model = build(vocab_size=len(qwen_tokenizer), context=4000)
    model.save_pretrained(folder)
    qwen_tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def predicted(folder, tmp_path_factory):
    """Predictions of a way to ask."""
    made = {}

    def find(way):
        if way not in made:
            made[way] = tmp_path_factory.mktemp("predictions") / way
            config = replace(CONFIG, way=way, max_tokens=1500)
            predict(made[way], TASK, folder, config, device="cpu", reporter=QUIET)
        return made[way]

    return find


def rows_of(path, predictions, folder, draws=ALL, **options):
    write_document_rows(path, predictions, folder, draws, reporter=QUIET, **options)
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.mark.parametrize("way", ["plain", "chat"])
def test_rows_ask_as_was_asked_and_answer_as_the_teacher_did(
    way, predicted, folder, qwen_tokenizer, tmp_path
):
    corpus = open_corpus(TASK)
    rows = rows_of(tmp_path / "rows.jsonl", predicted(way), folder, n_choices=2)
    samples = examples_from_chats(rows, qwen_tokenizer)
    table = pd.read_parquet(predicted(way) / "predictions.parquet")
    assert len(rows) == len(table) == 5
    some_gold = 0
    for row, sample, given in zip(rows, samples, table.to_dict("records"), strict=True):
        turn = row["prompt"] if way == "plain" else row["prompt"][-1]["content"]
        options = [turn[slice(*option["span"])] for option in row["options"]]
        shown = [corpus.label_texts[label] for label in given["retrieved"][:5]]
        assert [line.partition(". ")[2] for line in options] == shown
        named = ["A", "B", "C", "D", "E"][: len(shown)]
        best = [corpus.label_texts[label] for label in given["labels"][:2]]
        assert [shown[named.index(label)] for label in row["labels"]] == best
        right = {corpus.label_texts[label] for label in given["gold"]}
        for at, near, chosen in zip(row["gold"], row["near_options"], best, strict=True):
            assert (at is None) == right.isdisjoint(shown)
            some_gold += at is not None
            true = None if at is None else shown[at]
            assert true is None or true in right
            assert chosen not in right or true == chosen
            assert near and right.isdisjoint(shown[x] for x in near)
            assert chosen not in [shown[x] for x in near]
        if way == "plain":  # this tokenizer has two tokens for " A"
            assert "label" not in row["options"][0] and "option_tokens" not in sample
            continue
        asked = [sample["ids"][place + 1] for place in sample["decisions"]]
        tokens = dict(zip(named, sample["option_tokens"], strict=True))
        assert asked == [tokens[label] for label in row["labels"]]
    assert some_gold


def test_parts_of_documents_and_what_is_gone_on_with(predicted, folder, tmp_path):
    whole = rows_of(tmp_path / "whole.jsonl", predicted("plain"), folder)
    parts = tmp_path / "parts"
    parts.mkdir()
    for which in (1, 0):
        rows_of(parts / f"{which}.jsonl", predicted("plain"), folder, Draws(100, 0, (which, 2)))
    both = [json.loads(x) for path in row_files(parts) for x in path.read_text().splitlines()]
    assert both == whole
    assert all("answer" in row and len(row["labels"]) == 1 for row in whole)


@pytest.fixture
def reasoned(predicted, tmp_path):
    """Predictions as of a model that wrote a chain, and named an option, but for two documents."""
    out = tmp_path / "reasoned"
    shutil.copytree(predicted("chat"), out)
    record = json.loads((out / "predictions.json").read_text())
    record |= {"reason": True, "room": 60, "way": "think", "max_tokens": 1500}
    (out / "predictions.json").write_text(json.dumps(record))
    table = pd.read_parquet(out / "predictions.parquet")
    texts = open_corpus(TASK).label_texts
    chains = [
        f"\nIt is the second one.\n\n# Answer\n{texts[found[1]]}" for found in table["retrieved"]
    ]
    chains[2], chains[4] = "\nIt never comes to an end", "\nNothing\n\n# Answer\nnone"
    write_table(
        out / "chains.parquet", pd.DataFrame({"document": table["document"], "chain": chains})
    )
    return out


def test_a_chain_that_was_kept_stands_before_the_answer(reasoned, folder, qwen_tokenizer, tmp_path):
    rows = rows_of(tmp_path / "rows.jsonl", reasoned, folder)
    assert len(rows) == 3
    for row in rows:
        assert "It is the second one." in row["chain"]
        assert row["labels"] == ["B"]
    sample = examples_from_chats(rows, qwen_tokenizer)[0]
    assert "second one.\n\n# Answer\nB" in qwen_tokenizer.decode(sample["ids"])


def test_what_is_no_folder_of_predictions_is_refused(predicted, folder, tmp_path):
    out = tmp_path / "other"
    shutil.copytree(predicted("plain"), out)
    path = tmp_path / "rows.jsonl"
    record = json.loads((out / "predictions.json").read_text())
    for change, message in [
        ({"form": {"name": "debian", "sha256": "0"}}, "was asked in another form than debian"),
        ({"split": "none"}, "has no split 'none'"),
        ({"split": "test"}, "is of another document than that of split test"),
    ]:
        (out / "predictions.json").write_text(json.dumps(record | change))
        with pytest.raises(InputError, match=message):
            rows_of(path, out, folder)
        (tmp_path / "rows.made.json").unlink(missing_ok=True)
        path.unlink(missing_ok=True)
    (out / "predictions.json").write_text(json.dumps({"task": TASK, "n_labels": 64}))
    with pytest.raises(InputError, match="says no split; a folder of workbench predict is needed"):
        rows_of(path, out, folder)
    (out / "predictions.json").write_text(json.dumps(record))
    table = pd.read_parquet(out / "predictions.parquet")
    write_table(out / "predictions.parquet", table.drop(columns="retrieved"))
    with pytest.raises(InputError, match="no column 'retrieved'"):
        rows_of(path, out, folder)
