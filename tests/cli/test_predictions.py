import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from workbench.cli import app
from workbench.labels.predictions import FILE, read_predictions, write_predictions
from workbench.labels.xmc import load_xmc

SAMPLE = Path(__file__).parents[2] / "data" / "debian"
RECORD = {"task": f"xmc:{SAMPLE}", "split": "test", "scores": "random"}


def call(*arguments):
    return CliRunner().invoke(app, ["score-predictions", *map(str, arguments)])


def made(folder, shift):
    """Right labels get a little more than others."""
    rng = np.random.default_rng(0)
    corpus = load_xmc(SAMPLE)
    rows = []
    for document in corpus.documents("test"):
        some = rng.choice(len(corpus.label_texts), 20, replace=False)
        some = np.setdiff1d([*some, *document.labels], document.ignored)[:20]
        score = rng.normal(size=len(some)) + shift * np.isin(some, document.labels)
        order = np.argsort(-score)
        rows.append((document.id, some[order], score[order], list(document.labels)))
    table = pd.DataFrame(rows, columns=["document", "labels", "scores", "gold"])
    write_predictions(folder / FILE, table, RECORD)
    return folder


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    folder = tmp_path_factory.mktemp("made")
    return made(folder / "good", 3.0), made(folder / "bad", 0.0)


def test_predictions_are_measured_in_aligned_lines(folders, tmp_path):
    good, bad = folders
    flags = ["--n-resamples", 20, "--out", tmp_path / "scores.csv"]
    done = call(good, *flags, "--against", bad)
    assert done.exit_code == 0, done.output
    lines = done.stdout.splitlines()
    assert lines[0].startswith("documents: 80 of test, labels: ")
    assert max(map(len, lines[:-1])) <= 80 and any("F1 of: first " in line for line in lines)
    columns = {line.index("[") for line in lines if "[" in line}
    assert len(columns) == 1 and sum(line.startswith("p@") for line in lines) == 5
    table = pd.read_csv(tmp_path / "scores.csv")
    row = table[(table["measure"] == "p") & (table["k"] == 1) & (table["bucket"] == "all")]
    assert row["difference"].item() > 0.1 and row["difference_low"].item() > 0
    again = call(good, *flags)
    assert again.exit_code == 2 and "exists already" in again.output
    assert call(good, *flags, "--force").exit_code == 0


def test_predictions_are_written_in_other_forms(folders, tmp_path):
    good, _ = folders
    shown = []
    for name in ("p.npz", "p.txt.gz", "p.parquet"):
        done = call(good, "--n-resamples", 20, "--write", tmp_path / name)
        assert done.exit_code == 0 and f"{name}" in done.output, done.output
        assert ("was added to every score" in done.output) == (name != "p.parquet")
        task = [] if name == "p.parquet" else ["--task", RECORD["task"]]
        shown.append(call(tmp_path / name, *task, "--n-resamples", 20).stdout)
    assert shown[0] == shown[1] == shown[2]
    assert json.loads((tmp_path / "p.json").read_text())["split"] == "test"
    assert len(read_predictions(tmp_path / "p.parquet")) == 80


def test_it_refuses_in_one_line(folders, tmp_path):
    good, bad = folders
    (tmp_path / "empty").mkdir()
    for flags, said in (
        ([tmp_path / "empty"], "no predictions.parquet in this folder"),
        ([good, "--write", tmp_path / "p.csv"], ".parquet, .npz, .txt or .txt.gz is needed"),
        ([good, "--split", "val"], "has no split 'val'"),
        ([good, "--task", "icd10cm"], "no form of documents"),
        ([good, "--threshold-from", bad], "a threshold is chosen on others"),
        ([good, "--against-threshold-from", bad], "without against"),
    ):
        done = call(*flags)
        lines = [line for line in done.stderr.splitlines() if "started" not in line]
        assert done.exit_code == 2 and said in lines[-1], done.output
        assert len([line for line in lines if "finished" not in line]) == 1
