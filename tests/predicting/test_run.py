import json
import multiprocessing
from dataclasses import replace
from multiprocessing import forkserver
from pathlib import Path

import pandas as pd
import pytest
from predicting.split_of_many import CONFIG, in_process, predict_some

from workbench.errors import InputError
from workbench.files import write_table
from workbench.labels.predictions import read_predictions
from workbench.predicting import blocks
from workbench.predicting.reranking import Reranker
from workbench.processes import Processes

TESTS = Path(__file__).parents[1]
DATA = TESTS.parent / "data" / "synthetic"


@pytest.fixture(autouse=True)
def block_size(monkeypatch):
    monkeypatch.setattr(blocks, "BLOCK", blocks.BLOCK)  # set by `predict_some`


@pytest.fixture(scope="module")
def whole(folder, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("predictions") / "whole"
    predict_some(out, folder)
    return out


def test_a_split_becomes_a_table_that_is_read_as_predictions(whole, folder):
    assert sorted(path.name for path in whole.iterdir()) == [
        ".lock",
        "predict.json",
        "predictions.json",
        "predictions.parquet",
        "retrieved.parquet",
    ]
    found = read_predictions(whole)
    assert len(found) == 30 and found.record["n_labels"] == 64
    assert "log-probability" in found.record["scores"]
    retrieved = pd.read_parquet(whole / "retrieved.parquet")
    assert found.table["document"].tolist() == retrieved["document"].tolist()
    for labels, short in zip(found.table["labels"], retrieved["labels"], strict=True):
        assert sorted(labels[:5]) == sorted(short[:5])
        assert labels[5:].tolist() == short[5:].tolist()
    record = json.loads((whole / "predictions.json").read_text())
    assert record["counts"]["documents"] == 30 and record["model"]["dtype"] == "float32"
    assert record["counts"]["cut"] == 0 < record["counts"]["longest"]
    before = (whole / "predictions.parquet").stat().st_mtime_ns
    assert len(predict_some(whole, folder)) == 30
    assert (whole / "predictions.parquet").stat().st_mtime_ns == before


def test_other_settings_are_refused_in_a_folder_that_is_begun(whole, folder):
    with pytest.raises(InputError, match=r"other settings \(candidates\); give another --out"):
        predict_some(whole, folder, config=replace(CONFIG, candidates=4))
    assert predict_some(whole, folder, config=replace(CONFIG, batch_tokens=99)) is not None


def test_a_stopped_command_goes_on_where_it_was(whole, folder, tmp_path, monkeypatch):
    table, seen = Reranker.table, []

    def stopped(self, block, advance=None):
        if len(seen) == 2:
            raise KeyboardInterrupt
        seen.append(block.number)
        return table(self, block, advance)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Reranker, "table", stopped)
        predict_some(tmp_path / "out", folder)
    assert blocks.parts_there(tmp_path / "out") == {0, 1}
    (tmp_path / "out" / blocks.PARTS / "000004 (1).parquet").write_text("a copy of somebody's")

    def watched(self, block, advance=None):
        seen.append(block.number)
        return table(self, block, advance)

    monkeypatch.setattr(Reranker, "table", watched)
    predict_some(tmp_path / "out", folder)
    assert seen == [0, 1, 2, 3, 4]
    assert_same(tmp_path / "out", whole)


def assert_same(one: Path, other: Path) -> None:
    tables = [pd.read_parquet(path / "predictions.parquet") for path in (one, other)]
    pd.testing.assert_frame_equal(*tables, atol=1e-6)
    for name in ("predictions.json", "predict.json"):
        assert (one / name).read_text() == (other / name).read_text()


def test_two_processes_give_what_one_does(whole, folder, tmp_path):
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["predicting.split_of_many"])
    with pytest.MonkeyPatch.context() as patch:
        # Python 3.11 does not tell the server its own path; what it cannot import it passes over.
        patch.setenv("PYTHONPATH", str(TESTS))
        forkserver.ensure_running()
    both, logs = [], [tmp_path / f"{rank}.txt" for rank in range(2)]
    for rank, log in enumerate(logs):
        names = {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2"}
        given = (names, log, tmp_path / "two", folder)
        both.append(context.Process(target=in_process, args=given))
    for each in reversed(both):  # the one that waits first
        each.start()
    for each in both:
        each.join(timeout=100)
        each.kill()  # nothing where it ended by itself
    told = [log.read_text() for log in logs]
    assert [each.exitcode for each in both] == [0, 0], "".join(told)[-2000:]
    assert_same(tmp_path / "two", whole)
    assert "documents of train: 30 documents" in told[0]
    assert "documents of train" not in told[1]  # the main process speaks
    assert not (tmp_path / "two" / ".team").exists()


def test_a_process_that_waits_in_vain_says_so(folder, tmp_path):
    config = replace(CONFIG, patience=1e-3)
    with pytest.raises(InputError, match="the first process of other processes, and 0 of 1"):
        predict_some(tmp_path / "out", folder, config=config, here=Processes(1, 2))


def test_a_shortlist_can_be_given(whole, folder, tmp_path):
    given = whole / "retrieved.parquet"
    found = predict_some(tmp_path / "out", folder, shortlist_file=given)
    pd.testing.assert_frame_equal(found, pd.read_parquet(whole / "predictions.parquet"))
    with pytest.raises(InputError, match="has 30 documents, 48 are asked about"):
        config = replace(CONFIG, n_documents=None)
        predict_some(tmp_path / "more", folder, shortlist_file=given, config=config)
    table, found = pd.read_parquet(given), tmp_path / "found"
    found.mkdir()
    other = found / "retrieved.parquet"

    def refused(why: str, table: pd.DataFrame, said: str = "{}", out: str = "wrong") -> None:
        write_table(other, table)
        (found / "retrieve.json").write_text(said)
        with pytest.raises(InputError, match=why):
            predict_some(tmp_path / out, folder, shortlist_file=found)

    refused(r"parquet: row 1 is of another document than that of split train", table.iloc[::-1])
    refused("of split test, and train is asked about", table, '{"split": "test"}')
    refused("labels that xmc has not; it is of another set", table, '{"labels": 7}')
    others = table.assign(gold=[table["gold"][0]] * len(table))
    refused("with other right labels than that of split train", others)
    turned = table.assign(labels=table["labels"].map(lambda labels: labels[::-1]))
    refused(r"other settings \(shortlisted\)", turned, out="out")
    with pytest.raises(InputError, match=r"no predictions.parquet in this folder"):
        predict_some(tmp_path / "wrong", folder, shortlist_file=tmp_path)
    with pytest.raises(InputError, match=r"none.parquet: cannot be read, No such file"):
        predict_some(tmp_path / "wrong", folder, shortlist_file=tmp_path / "none.parquet")


def test_private_documents_stay_their_owners(chat_model, tmp_path):
    out, config = tmp_path / "out", replace(CONFIG, reason=True, room=4, keep_chains=True)
    task = f"mimic4:{DATA / 'mimic4'}"
    config = replace(config, n_documents=8, candidates=2, order="shuffled")
    found = predict_some(out, chat_model, task=task, config=config)
    assert "chain" not in found and len(found) == 8
    chains = pd.read_parquet(out / "chains.parquet")
    assert chains.columns.tolist() == ["document", "chain"] and len(chains) == 8
    assert out.stat().st_mode & 0o777 == 0o700
    for name in ("chains.parquet", "predictions.parquet", "retrieved.parquet"):
        assert (out / name).stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ({"task": "icd10cm"}, "is of no documents"),
        ({"config": replace(CONFIG, split="dev")}, "no split 'dev'"),
        ({"config": replace(CONFIG, max_tokens=4096)}, "--max-tokens 4096: the context of"),
        ({"config": replace(CONFIG, reason=True)}, "--reason needs a model with a chat form"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(folder, tmp_path, given, why):
    with pytest.raises(InputError, match=why):
        predict_some(tmp_path / "out", folder, **given)
    assert not (tmp_path / "out" / "parts").exists()
