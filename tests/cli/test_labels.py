import json
from pathlib import Path

import pandas as pd
import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM
from typer.testing import CliRunner

from workbench.cli import app
from workbench.prompts.files import read_prompts


@pytest.fixture
def small_model(tokenizer, tmp_path: Path) -> Path:
    torch.manual_seed(0)
    shape = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 1}
    shape |= {"num_attention_heads": 2, "num_key_value_heads": 1, "initializer_range": 0.3}
    config = LlamaConfig(vocab_size=len(tokenizer), max_position_embeddings=2048, **shape)
    folder = tmp_path / "model"
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def test_labels_writes_a_prompt_file_tables_and_a_figure(small_model, tmp_path):
    out = tmp_path / "labels"
    flags = ["--out", str(out), "--model", str(small_model), "--n", "2", "--n-decoded", "2"]
    result = CliRunner().invoke(app, ["labels", *flags, "--n-resamples", "20"])
    assert result.exit_code == 0, result.output
    assert len(read_prompts(out / "free.jsonl", None)) == 2
    assert set(pd.read_csv(out / "free.csv")["variant"]) == {"clean", "far", "near"}
    decoded = pd.read_csv(out / "free_decoded.csv")
    assert decoded.groupby("decoding").size().to_dict() == {"constrained": 2, "free": 2}
    assert (out / "free.html").stat().st_size
    command = result.stdout.splitlines()[-1]
    assert command.startswith("next: workbench run") and str(out / "free.jsonl") in command
    assert json.loads((out / "free.jsonl").read_text().splitlines()[0])["options"]
    again = CliRunner().invoke(app, ["labels", *flags])
    assert again.exit_code == 2 and "exists already" in again.output
