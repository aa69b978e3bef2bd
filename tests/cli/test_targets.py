import json
import shutil

import pytest
import torch
from fixtures.calling import call
from fixtures.chats import write_rows
from safetensors.torch import load_file
from transformers import LlamaForCausalLM

STUDENT = "--n-layers 2 --n-heads 2 --n-kv-heads 1 --d-model 16 --d-mlp 24 --no-bf16"
STEPS = "--steps 2 --batch-size 4 --warmup-steps 1"


@pytest.fixture
def folder(qwen_tokenizer, make_model, tmp_path):
    """A teacher, heads of it that someone chose, and rows of text."""
    make_model(vocab_size=len(qwen_tokenizer) + 3).save_pretrained(tmp_path / "teacher")
    qwen_tokenizer.save_pretrained(tmp_path / "teacher")
    heads = [{"layer": 0, "head": 1, "pool": "coarse"}, {"layer": 1, "head": 2, "pool": "refine"}]
    (tmp_path / "heads.json").write_text(json.dumps({"heads": heads}))
    write_rows(tmp_path / "rows.jsonl")
    return tmp_path


def test_a_student_of_targets_needs_no_teacher(folder):
    teacher = ["--teacher", folder / "teacher", "--headset", folder / "heads.json"]
    data = ["--prompts", folder / "rows.jsonl", STUDENT, STEPS]
    code, _, errors = call("distill", "--out", folder / "a", *teacher, *data, "--workers 0")
    assert code == 0, errors
    made = ["teacher-targets", "--out", folder / "targets", *teacher, *data]
    code, _, errors = call(*made, "--dry-run")
    assert code == 0 and "an example" in errors and not (folder / "targets").exists()
    for part in (1, 0):
        code, said, errors = call(*made, f"--exact --block 5 --part {part}/2")
        assert code == 0 and "12 examples" in said, errors
    assert "3 of 3 blocks" in errors and "targets: 7 examples" in errors  # of its two blocks
    short, targets = [*data[:2], STEPS, "--no-bf16"], ["--targets", folder / "targets"]
    other = folder / "other"
    shutil.copytree(folder / "teacher", other)
    LlamaForCausalLM.from_pretrained(other).to(torch.bfloat16).save_pretrained(other)
    for flags, message in (
        (f"{STUDENT} --template chat", "holds no targets for 12 of 12 examples; make"),
        ("--n-layers 3 --n-heads 4", "targets are for a student of 2 layers × 2 heads"),
        ("--student-layers 2", "copied from the teacher's weights, which targets do not hold"),
        (f"--teacher {other} --student-layers 2", "is not the teacher that the targets are of"),
    ):
        code, _, errors = call("distill", "--out", folder / "c", *targets, *short, flags)
        assert code == 2 and message in " ".join(errors.split()), errors
    (folder / "teacher" / "model.safetensors").unlink()
    given = ["--targets", folder / "targets", *data, "--workers 0"]
    code, _, errors = call("distill", "--out", folder / "b", *given)
    assert code == 0, errors
    one, two = (json.loads((folder / name / "training.json").read_text()) for name in "ab")
    for name in ("teacher", "headmap", "traces"):
        assert one[name] == two[name]
    for mine, theirs in zip(one["loss"], two["loss"], strict=True):
        assert theirs == pytest.approx(mine, abs=2e-5)
    whole, other = (load_file(folder / name / "model.safetensors") for name in "ab")
    for name, weight in whole.items():
        torch.testing.assert_close(other[name], weight, atol=1e-6, rtol=1e-5)


def test_targets_refuse_in_one_line(folder):
    teacher = ["--teacher", folder / "teacher", "--headset", folder / "heads.json"]
    made = ["teacher-targets", "--out", folder / "targets", *teacher]
    for flags, message in (
        ("--part 2/2", "parts count from 0 to 1"),
        ("--top 8", "give --traces or --prompts"),
    ):
        code, _, errors = call(*made, flags)
        assert code == 2 and message in errors


def test_targets_of_one_pool_or_of_heads_paired_for_another_student(folder):
    data = ["--prompts", folder / "rows.jsonl", STEPS, "--no-bf16"]
    one = [{"layer": 0, "head": 1, "pool": "coarse"}]
    (folder / "one.json").write_text(json.dumps({"heads": one}))
    teacher = ["--teacher", folder / "teacher"]
    heads, pool = ["--headset", folder / "heads.json"], ["--headset", folder / "one.json"]
    for name, flags in (
        ("pool", [*pool, "--interaction 0", STUDENT]),
        ("circuit", [*heads, "--arm circuit", STUDENT]),
        ("attention", [*heads, "--matching attention", STUDENT]),
    ):
        code, _, errors = call("teacher-targets", "--out", folder / name, *teacher, *data, *flags)
        assert code == 0, errors
    given = [*teacher, "--targets", folder / "pool", "--interaction 0", STUDENT, "--workers 0"]
    code, _, errors = call("distill", "--out", folder / "one", *data, *given)
    assert code == 0, errors
    assert json.loads((folder / "one/training.json").read_text())["config"]["loss"]["pools"] == [
        "coarse"
    ]
    for name, flags, what in (
        ("circuit", ["--arm circuit", STUDENT, "--seed 3"], "seed"),
        ("circuit", ["--arm circuit", STUDENT.replace("layers 2", "layers 3")], "student"),
        ("attention", [STUDENT], "matching"),
        ("attention", ["--matching attention", STUDENT, "--seed 3"], "seed"),
    ):
        code, _, errors = call(
            "distill", "--out", folder / "c", *data, "--targets", folder / name, *flags
        )
        assert code == 2 and f"were paired for another {what}; make" in " ".join(errors.split())
