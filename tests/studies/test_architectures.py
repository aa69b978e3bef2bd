"""Architectures against plain hooks: a few of each outcome; the whole table is a command."""

import logging

import pytest
import torch
from typer.testing import CliRunner

from workbench.cli import app
from workbench.errors import InputError
from workbench.studies import architectures
from workbench.studies.architectures import check_architecture, run_architectures, summary
from workbench.studies.tiny_models import VARIANTS, names, tiny_model, type_of


@pytest.mark.parametrize(
    ("name", "dtype", "engine"),
    [
        ("gemma2+window-6", torch.bfloat16, "shared forward"),
        ("llama4_text+floor-16", torch.bfloat16, "one forward per patch"),
        ("phi3+longrope", torch.float32, "shared forward"),
        ("glm4", torch.bfloat16, "shared forward"),  # rotated in its own dtype, not in float32
        ("gptj", torch.float32, "one forward per patch"),
    ],
)
def test_logits_and_patches_are_those_of_plain_hooks(name, dtype, engine):
    row = check_architecture(name, dtype)
    assert (row.outcome, row.engine) == ("equal", engine), row
    assert row.effect > 0.1 > row.allowed


@pytest.mark.parametrize("name", ["mamba", "bert", "openai-gpt", "deepseek_v2", "hrm_text"])
def test_what_is_no_model_for_heads_is_refused_in_one_line(name):
    row = check_architecture(name, torch.float32)
    assert row.outcome == "refused" and "\n" not in row.reason, row


def test_a_wrong_number_and_a_traceback_are_faults(monkeypatch, tmp_path):
    compute = architectures.patch_heads
    monkeypatch.setattr(architectures, "patch_heads", lambda *a: compute(*a) * 1.001)
    runner, out = CliRunner(), tmp_path / "table.csv"
    arguments = ["selftest", "--architectures", "--only", "arcee", "--out", str(out)]
    result = runner.invoke(app, arguments)
    assert result.exit_code == 1
    assert "1/1 arcee, float32: WRONG: off by 0.00" in result.stdout
    assert "wrong: 1 architectures" in result.stdout and out.read_text().count("arcee") == 4
    monkeypatch.setattr(architectures, "patch_heads", lambda *_: 1 // 0)
    result = runner.invoke(app, arguments[:4])
    assert result.exit_code == 1
    assert "failed: ZeroDivisionError: integer division or modulo by zero" in result.stdout
    assert logging.root.manager.disable == logging.NOTSET


def test_a_type_has_its_variants_and_an_unknown_name_is_named(monkeypatch):
    checked = []
    row = check_architecture("mamba", torch.float32)
    monkeypatch.setattr(
        architectures, "check_architecture", lambda name, *_: checked.append(name) or row
    )
    table = run_architectures(["opt", "bert"])
    assert checked == ["bert", "bert+decoder", "opt", "opt+narrow-embedding", "opt+norm-after"]
    assert summary(table)[1] == "refused: 1 architectures and variants (1 types)"
    with pytest.raises(InputError, match="'lama' is no architecture"):
        run_architectures(["lama"])


def test_tiny_models_are_the_same_again_and_named_once():
    first, second = (tiny_model("qwen3", torch.float32).state_dict() for _ in range(2))
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert len(names()) == len(set(names())) and {type_of(name) for name in VARIANTS} <= {*names()}
