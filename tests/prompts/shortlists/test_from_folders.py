"""Prompts of folders of documents, as commands make them."""

import gzip

import pytest
from fixtures.tiny_runs import FAST, save_reader
from typer.testing import CliRunner

from workbench.bench.synthetic import write_mimic4, write_xmc
from workbench.cli import app
from workbench.errors import InputError
from workbench.labels import cache as label_cache
from workbench.prompts.documents import open_corpus
from workbench.prompts.make import make_prompts
from workbench.prompts.sentences import cut
from workbench.runs.config import RunConfig


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setattr(label_cache, "user_cache_path", lambda *_: tmp_path / "cache")


@pytest.fixture
def model(tokenizer, tmp_path):
    return save_reader(tokenizer, tmp_path / "model", context=900)


@pytest.fixture
def taxonomy(space, monkeypatch):
    for module in ("labels.mimic4", "bench.synthetic"):
        monkeypatch.setattr(f"workbench.{module}.load_icd10cm", lambda: space)


def test_a_run_on_notes_ends_in_a_head_set_without_a_word_of_them(model, tmp_path, taxonomy):
    notes = write_mimic4(tmp_path / "notes", documents=40)
    out = tmp_path / "run"
    arguments = ["--task", f"mimic4:{notes}", "--n", "4", "--model", str(model), "--out", str(out)]
    result = CliRunner().invoke(app, ["run", *arguments, *FAST])
    assert result.exit_code == 0, result.output
    assert "mimic4:mimic4-icd10, split test" in result.stderr and "gold recall" in result.stderr
    corpus = open_corpus(f"mimic4:{notes}")
    found = [cut(doc.text).sentences for doc in corpus.documents("test")]
    sentences = {sentence.lower() for each in found for sentence in each}
    assert any("feels unwell" in sentence for sentence in sentences)
    shown = [(out / name).read_text().lower() for name in ("headset.json", "report.html")]
    for text in (*shown, (out / "manifest.json").read_text().lower(), result.output.lower()):
        assert not any(sentence in text for sentence in sentences if len(sentence) > 10)
    assert '"mimic4:mimic4-icd10"' in shown[0]


def test_what_is_left_out_of_notes_is_said_with_the_prompts(model, tmp_path, taxonomy):
    notes = write_mimic4(tmp_path / "notes", documents=40)
    path = notes / "hosp/diagnoses_icd.csv.gz"
    lines = gzip.decompress(path.read_bytes()).decode().splitlines()
    codes = [line.split(",") for line in lines[1:]]
    ten = [row for row in codes if row[4] == "10"]
    for row in ten[: len(ten) // 3]:
        row[3] = "X99999"
    lost = sum(row[3] == "X99999" for row in codes)
    path.write_bytes(
        gzip.compress("\n".join(lines[:1] + [",".join(row) for row in codes]).encode())
    )
    arguments = ["--task", f"mimic4:{notes}", "--n", "2", "--model", str(model)]
    result = CliRunner().invoke(app, ["prompts", "--out", str(tmp_path / "p.jsonl"), *arguments])
    assert result.exit_code == 0, result.output
    assert f"warning: {lost} of " in result.stderr
    assert "are of 1 codes without a description (X99.999); their text is the code" in result.stderr


def test_prompts_of_an_xmc_folder_fit_the_model(model, tmp_path):
    folder = write_xmc(tmp_path / "titles", words=600)
    config = RunConfig(task=f"xmc:{folder}", n_prompts=3, split="seen")
    prompts = make_prompts(tmp_path / "p.jsonl", model=model, **config.of_prompts())
    assert prompts.task == "xmc:titles" and len(prompts) == 3
    assert 0.8 * 900 < max(len(event.clean) for event in prompts) <= 900


def test_a_split_that_a_folder_does_not_have_is_no_other(model, tmp_path):
    folder = write_xmc(tmp_path / "titles", words=20)
    for path in folder.glob("tst*"):
        path.unlink()
    config = RunConfig(task=f"xmc:{folder}", n_prompts=3, split="unseen")
    with pytest.raises(InputError, match="no test documents here for split 'unseen', only train"):
        make_prompts(tmp_path / "p.jsonl", model=model, **config.of_prompts())


@pytest.mark.parametrize("task", ["icd11", "xmc", "xmc:", "csv:folder"])
def test_unknown_tasks_are_refused(task):
    with pytest.raises(InputError, match=f"task '{task}' is not one of auto, icd10cm, "):
        RunConfig(task=task)


def test_a_missing_folder_is_refused_in_one_line(model, tmp_path):
    arguments = ["--task", f"xmc:{tmp_path / 'none'}", "--model", str(model)]
    result = CliRunner().invoke(app, ["prompts", "--out", str(tmp_path / "p.jsonl"), *arguments])
    assert result.exit_code == 2 and "no such folder" in result.stderr
    assert not (tmp_path / "p.jsonl").exists()
