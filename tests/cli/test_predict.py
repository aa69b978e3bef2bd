import json
from pathlib import Path

import pandas as pd
import pytest
from typer.testing import CliRunner

from workbench.cli import app

XMC = Path(__file__).parents[2] / "data" / "synthetic" / "xmc"
FLAGS = ["--task", f"xmc:{XMC}", "--device", "cpu", "--ways", "bm25", "--shortlisted", "9"]


@pytest.fixture(autouse=True)
def alone(monkeypatch):
    monkeypatch.delenv("RANK", raising=False)
    monkeypatch.delenv("WORLD_SIZE", raising=False)


def call(*arguments):
    return CliRunner().invoke(app, ["predict", *map(str, arguments)])


def test_predict_writes_tables_and_says_what_is_next(tmp_path):
    out = tmp_path / "out"
    flags = [*FLAGS, "--out", out, "--n-documents", 2, "--candidates", 30, "--way", "plain"]
    made = call(*flags)
    assert made.exit_code == 0, made.output
    assert "documents: 2\n" in made.output and f"score-predictions {out}" in made.output
    assert "2 of 2 documents have fewer than 30 candidates" in made.output
    assert pd.read_parquet(out / "predictions.parquet")["labels"].map(len).tolist() == [9, 9]
    assert json.loads((out / "predictions.json").read_text())["candidates"] == 30
    other = call(*flags, "--order", "shuffled")
    assert other.exit_code == 2 and "other settings (order)" in other.output


@pytest.mark.parametrize(
    ("more", "why"),
    [
        (["--candidates", 201], "201"),
        (["--part", "2/2"], "count from 0 to 1"),
        (["--form", "nothing"], "form nothing: is no file"),
        (["--shortlist", "nothing.parquet"], "nothing.parquet"),
    ],
)
def test_bad_flags_are_refused_in_one_line(tmp_path, more, why):
    made = call(*FLAGS, "--out", tmp_path / "out", *more)
    assert made.exit_code == 2 and why in made.output
    assert "Traceback" not in made.output
