"""One command from a user's own lines to a student."""

import json

import pytest
import torch
from fixtures.calling import call
from fixtures.chats import ROWS, write_rows
from transformers import LlamaForCausalLM, Qwen2Config, Qwen2ForCausalLM


@pytest.fixture
def folders(qwen_tokenizer, make_model, tmp_path):
    """A Qwen 2 teacher and a Llama student, tiny and random."""
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "initializer_range": 0.2}
    n = len(qwen_tokenizer)
    end = {"eos_token_id": qwen_tokenizer.eos_token_id, "pad_token_id": 0, "bos_token_id": None}
    models = {
        "teacher": Qwen2ForCausalLM(Qwen2Config(vocab_size=n + 6, **sizes, **heads, **end)),
        "student": make_model(seed=1, vocab_size=n),
    }
    for name, model in models.items():
        model.save_pretrained(tmp_path / name)
        qwen_tokenizer.save_pretrained(tmp_path / name)
    return tmp_path


@pytest.fixture
def config(folders):
    path = folders / "run.yaml"
    path.write_text(
        f"teacher: {folders / 'teacher'}\n"
        f"student: {folders / 'student'}\n"
        "arm: mechanistic\ninteraction: 0\nsteps: 12\nbatch-size: 4\nbf16: false\nworkers: 0\n"
        "warmup_steps: 1\nlearning-rate: 3e-3\n"
        "trainer: {logging_steps: 1, save_strategy: no}\n"
    )
    return path


def test_ones_own_lines_a_list_of_heads_and_a_file_of_flags(folders, config):
    heads = folders / "retrieval.json"
    heads.write_text(json.dumps({"0-1": [0.5, 0.9], "1-2": [0.0], "1-3": [0.3]}))
    out, lines = folders / "out", write_rows(folders / "mine.jsonl")
    given = ["--config", config, "--prompts", lines, "--template", "chat", "--out", out]
    given += ["--headset", heads, "--trainer", "max_grad_norm=0.5"]
    code, _, errors = call("distill", *given)
    assert code == 2 and "does not say pools; give --pool coarse" in errors
    code, _, errors = call("distill", *given, "--pool", "coarse", "--warmup-steps", "2")
    assert code == 0, errors
    record = json.loads((out / "training.json").read_text())
    arguments = {"logging_steps": 1, "save_strategy": "no", "max_grad_norm": 0.5}
    assert record["arguments"] == arguments
    assert record["config"]["warmup_steps"] == 2 and record["config"]["steps"] == 12
    assert [pair["teacher"] for pair in record["headmap"]["pairs"]] == [[0, 1], [1, 3]]
    assert record["traces"]["kept"] == len(ROWS)
    rows = record["loss"]
    assert len(rows) == 12
    assert all(torch.tensor(list(row.values())).isfinite().all() for row in rows)
    for name in ("loss", "loss_chain"):
        assert sum(row[name] for row in rows[-4:]) < 0.9 * sum(row[name] for row in rows[:4])
    assert LlamaForCausalLM.from_pretrained(out).config.num_hidden_layers == 2


def test_refusals_are_one_line(folders, config):
    lines = write_rows(folders / "mine.jsonl")
    wrong = folders / "wrong.yaml"
    base = ["--config", config, "--out", folders / "out", "--prompts", lines, "--arm", "cot"]
    for text, more, message in [
        ("stepz: 3\n", ["--config", wrong], "unknown key 'stepz'"),
        ("steps: [3]\n", ["--config", wrong], "steps is a list or mapping, must be one value"),
        ("steps\n", ["--config", wrong], "must be a mapping of flags to values"),
        ("", ["--trainer", "max_steps=3"], "trainer: max_steps is set by --steps"),
        ("", ["--trainer", "max_stepz=3"], "trainer: TrainingArguments has no 'max_stepz'"),
        ("", ["--trainer", "logging_steps"], "give KEY=VALUE"),
        ("", ["--context", "8"], "no examples to train on, all 12 have 8 tokens or more"),
        ("", ["--traces", lines], "give one of both"),
    ]:
        wrong.write_text(text)
        code, _, errors = call("distill", *base, *more)
        assert code == 2 and message in errors, errors
        assert errors.count("\n") == 1


def test_stopped_training_on_ones_own_lines_goes_on(folders, config, monkeypatch):
    from workbench.distill.training import run

    compute, steps = run.MechanisticDistillationTrainer.compute_loss, []

    def stopping(self, *args, **kwargs):
        steps.append(self.state.global_step)
        if len(steps) == 4:
            raise KeyboardInterrupt
        return compute(self, *args, **kwargs)

    lines = write_rows(folders / "mine.jsonl")
    base = ["--config", config, "--prompts", lines, "--arm", "cot", "--steps", 4]
    base += ["--trainer", "save_strategy=steps", "--checkpoint-every", 2]
    whole = folders / "whole"
    assert call("distill", *base, "--out", whole)[0] == 0
    monkeypatch.setattr(run.MechanisticDistillationTrainer, "compute_loss", stopping)
    parts = folders / "parts"
    assert call("distill", *base, "--out", parts)[0] != 0
    assert call("distill", *base, "--out", parts)[0] == 0
    assert steps == [0, 1, 2, 3, 2, 3]
    records = [json.loads((each / "training.json").read_text()) for each in (whole, parts)]
    assert records[0]["loss"] == records[1]["loss"]
