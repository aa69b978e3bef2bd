"""The benchmark of predictions: engine and loops agree, and the file says what was measured."""

import json
from pathlib import Path

import pandas as pd
import pytest
import torch
from typer.testing import CliRunner

from workbench.cli import app
from workbench.files import write_table
from workbench.labels.folders import open_corpus
from workbench.models.llama import LlamaShape
from workbench.predicting import blocks

TASK = f"xmc:{Path(__file__).parents[2] / 'data' / 'synthetic' / 'xmc'}"


@pytest.fixture
def model(tokenizer, tmp_path) -> Path:
    torch.manual_seed(0)
    shape = LlamaShape(n_layers=2, n_heads=4, n_kv_heads=2, d_model=32, d_mlp=48)
    shape.build(len(tokenizer), 900, initializer_range=0.3).save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    return tmp_path / "model"


def test_engine_and_loops_agree_and_are_written(model, tmp_path, monkeypatch):
    monkeypatch.setattr("workbench.bench.predicting.PART", 4)
    monkeypatch.setattr(blocks, "BLOCK", 2)
    monkeypatch.setattr("workbench.bench.predicting.BLOCK", 2)
    documents = [*open_corpus(TASK).documents("test")]
    ids = [document.id for document in documents]
    listed = [[number % 7, 20 + number % 5, 40, 41] for number in range(len(ids))]
    listed[1] = []
    gold = [document.labels for document in documents]
    table = pd.DataFrame({"document": ids, "labels": listed, "gold": gold})
    write_table(tmp_path / "retrieved.parquet", table)
    out = tmp_path / "bench.json"
    flags = ["--task", TASK, "--shortlist", tmp_path / "retrieved.parquet", "--model", model]
    flags += ["--documents", 9, "--loop-documents", 5, "--candidates", 3, "--device", "cpu"]

    def bench(*more):
        return CliRunner().invoke(app, ["bench", "predict", *map(str, [*flags, *more])])

    made = bench("--out", out)
    assert made.exit_code == 0, made.output
    assert "times as fast" in made.stdout
    found = json.loads(out.read_text())
    assert [row["documents"] for row in found["engine"]["memory"]] == [4, 8, 9]
    assert found["engine"]["documents"] == 9 and found["engine"]["tokens"]["longest"] > 50
    assert [loop["batch"] for loop in found["loops"]] == [1, 8]
    for loop in found["loops"]:
        assert loop["documents"] == 5 and loop["same_best"] == 1
        assert loop["largest_difference"] < 1e-3
    refused = bench("--out", tmp_path / "other.json", "--shape", "tiny")
    assert refused.exit_code == 2 and "shape tiny has 512 tokens" in refused.output
