import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
from typer.testing import CliRunner

from workbench.cli import app

ROOT = Path(__file__).parents[2]
SAMPLE = ROOT / "data" / "debian"


def call(*arguments):
    return CliRunner().invoke(app, [str(one) for one in arguments])


def index_files(folder):
    """An index of twenty packages that each name the next one."""
    rows = [
        f"Package: p{n}\nDescription: thing {n}\nDescription-md5: {n}\nSuggests: p{n + 1}\n"
        for n in range(20)
    ]
    texts = [
        f"Package: p{n}\nDescription-md5: {n}\nDescription-en: thing {n}\n Long {n}.\n"
        for n in range(20)
    ]
    (folder / "Packages").write_text("\n".join(rows))
    (folder / "Translation-en").write_text("\n".join(texts))
    return ["--packages", folder / "Packages", "--translation", folder / "Translation-en"]


def test_debian_builds_a_folder_and_checks_a_pin(tmp_path):
    files = index_files(tmp_path)
    made = call("debian", "--out", tmp_path / "set", *files)
    assert made.exit_code == 0, made.output
    assert "labels: 20; documents: 15 train, 4 test" in made.output and "unchecked" in made.output
    pin = tmp_path / "set" / "debian.json"
    assert json.loads(pin.read_text())["labels"] == 20
    same = call("debian", "--out", tmp_path / "same", *files, "--expect", pin)
    assert same.exit_code == 0, same.output
    other = call("debian", "--out", tmp_path / "no", *files, "--expect", SAMPLE / "whole.json")
    assert other.exit_code == 2 and "expects suite bookworm" in other.output
    assert not (tmp_path / "no").exists()
    half = call("debian", "--out", tmp_path / "no", *files[:2])
    assert half.exit_code == 2 and "go together" in half.output
    again = call("debian", "--out", tmp_path / "set", *files)
    assert again.exit_code == 2 and "exists already" in again.output


def test_retrieve_chooses_ways_and_writes_tables(tmp_path):
    flags = ["--task", f"xmc:{SAMPLE}", "--n-documents", 24, "--n-resamples", 20, "--k", 100]
    flags += ["--n-threads", 1, "--n-chosen", 40]
    out = tmp_path / "found"
    made = call("retrieve", *flags, "--out", out, "--among", "bm25,names,examples")
    assert made.exit_code == 0, made.output
    assert "\nrecall@100 " in made.output and "documents: 24 of test" in made.output
    assert sorted(path.name for path in out.iterdir() if path.name != ".lock") == [
        "retrieval.csv",
        "retrieve.json",
        "retrieved.parquet",
        "ways.csv",
    ]
    ways = pd.read_csv(out / "ways.csv")
    taken = ways.loc[ways["taken"].notna(), "way"].tolist()
    assert set(pd.read_csv(out / "retrieval.csv")["ways"]) == {",".join(taken)}
    assert len(pd.read_parquet(out / "retrieved.parquet")) == 24
    again = call("retrieve", *flags, "--out", out, "--among", "bm25,names,examples")
    assert again.exit_code == 0 and "labels of test" not in again.output
    changed = call("retrieve", *flags, "--out", out, "--ways", "bm25")
    assert changed.exit_code == 2 and "with other settings (ways, among)" in changed.output


def test_training_documents_are_retrieved_without_their_siblings(tmp_path):
    flags = ["--task", f"xmc:{SAMPLE}", "--split", "train", "--n-documents", 40, "--n-threads", 1]
    flags += ["--n-resamples", 2, "--k", 20, "--ways", "examples"]
    for name, more in (("alone", []), ("apart", ["--groups", SAMPLE / "sources.tsv"])):
        made = call("retrieve", *flags, *more, "--out", tmp_path / name)
        assert made.exit_code == 0, made.output
    alone, apart = (
        pd.read_parquet(tmp_path / name / "retrieved.parquet") for name in ("alone", "apart")
    )
    found = [
        sum(map(len, map(np.intersect1d, one["labels"], one["gold"]))) for one in (alone, apart)
    ]
    assert 0 < found[1] < found[0]
    again = call("retrieve", *flags, "--out", tmp_path / "apart")
    assert again.exit_code == 2 and "other settings (groups)" in again.output


def test_retrieve_refuses_in_one_line(tmp_path):
    task = ["--task", f"xmc:{SAMPLE}", "--out", tmp_path / "out"]
    for flags, said in (
        (["--task", "icd10cm", "--out", tmp_path / "out"], "is of no documents"),
        ([*task, "--ways", "bm52"], "is not one of bm25"),
        ([*task, "--split", "val"], "has no split 'val'"),
        ([*task, "--groups", tmp_path / "none"], "none: cannot be read"),
        ([*task, "--dense", tmp_path / "none", "--ways", "dense"], "no folder of sentence"),
    ):
        made = call("retrieve", *flags)
        assert made.exit_code == 2 and said in made.output, made.output
        assert len(made.output.splitlines()) == 1


def test_notes_writes_a_folder_that_retrieve_reads(tmp_path, space, monkeypatch):
    for module in ("bench.notes", "labels.mimic4"):
        monkeypatch.setattr(f"workbench.{module}.load_icd10cm", lambda: space)
    out = str(tmp_path / "notes")
    made = call("notes", "--n", "6", "--n-training", "4", "--out", out)
    assert made.exit_code == 0, made.output
    assert "6 test, 4 train" in made.output
    found = call("retrieve", "--task", f"mimic4:{out}", "--ways", "bm25", "--out", f"{out}-found")
    assert found.exit_code == 0, found.output
    assert call("notes", "--out", out).exit_code == 2


def test_notes_check_needs_the_notes(tmp_path):
    (tmp_path / "p.jsonl").write_text("")
    made = call("notes-check", "--notes", tmp_path, "--prompts", tmp_path / "p.jsonl")
    assert made.exit_code == 2 and "Error" not in made.output


def test_notes_check_says_counts_in_full_and_in_part(tmp_path, monkeypatch):
    table = pd.DataFrame(
        {"prompt": ["p0", "p1"], "told": 3, "clean": 3, "far": 0, "near": [1, 2]}
        | {"far_whole": 0, "near_whole": [0, 1]}
    )
    monkeypatch.setattr("workbench.bench.notes_told.tellings_left", lambda *_: table)
    prompts = SimpleNamespace(with_tokenizer=lambda _: None)
    monkeypatch.setattr("workbench.prompts.files.read_prompts", lambda *_: prompts)
    made = call("notes-check", "--notes", tmp_path, "--prompts", tmp_path / "p.jsonl")
    assert made.exit_code == 0, made.output
    assert made.output.splitlines()[1:] == [
        "far variants that tell gold: 0 of 2",
        "near variants that tell gold: 2 of 2 (1 in full, 1 only in part): p0, p1",
    ]
