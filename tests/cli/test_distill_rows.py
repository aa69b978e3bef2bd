"""Rows of a task, from the command that writes them to the student that reads them."""

import json

import pandas as pd
import pytest
from fixtures.calling import call
from fixtures.chats import write_rows

from workbench.cli.distill import config_of, prepared

SMALL = "--n-layers 2 --n-heads 2 --n-kv-heads 1 --d-model 16 --d-mlp 24 --no-bf16 --workers 0"
SHORT = "--steps 2 --batch-size 2 --readout-every 2 --warmup-steps 1 --arm cot"

pytestmark = pytest.mark.usefixtures("few_labels")


@pytest.fixture
def few_readouts(monkeypatch):
    monkeypatch.setattr("workbench.cli.distill.READOUT_PROMPTS", 4)


@pytest.mark.usefixtures("few_readouts")
def test_parts_of_rows_train_a_student_that_is_read_out(teacher, tmp_path):
    rows = tmp_path / "rows"
    given = ["--task icd10cm --by rule --n-traces 6 --model", teacher]
    for which in (0, 1):
        out = rows / f"{which}.jsonl"
        code, said, errors = call("traces --part", f"{which}/2", "--out", out, *given)
        assert code == 0, errors
        assert said == f"rows: {out}, 3 of 3 draws are right\n"
    out = tmp_path / "student"
    student = ["--out", out, "--teacher", teacher, "--prompts", rows, SMALL, SHORT]
    code, _, errors = call("distill --task icd10cm", *student)
    assert code == 0, errors
    record = json.loads((out / "training.json").read_text())
    assert record["traces"]["drawn"] == 6 and len(record["loss"]) == 2
    assert len(pd.read_parquet(out / "readout.parquet"))
    code, _, errors = call("distill --task nothing", *student)
    assert code == 2 and "task 'nothing' is not one of" in errors


@pytest.mark.usefixtures("few_readouts")
@pytest.mark.parametrize(("template", "reply"), [("auto", True), ("plain", False)])
def test_readouts_of_a_teacher_that_chats(template, reply, make_model, chat_tokenizer, tmp_path):
    teacher, rows = tmp_path / "teacher", tmp_path / "rows.jsonl"
    make_model(vocab_size=len(chat_tokenizer)).save_pretrained(teacher)
    chat_tokenizer.save_pretrained(teacher)
    given = ["--task icd10cm --by rule --n-traces 4 --model", teacher]
    code, _, errors = call("traces --out", rows, *given)
    assert code == 0, errors
    *_, data = prepared(
        config_of("cot", None, {}),
        teacher=str(teacher),
        headset=None,
        pool=None,
        prompts=rows,
        task="icd10cm",
        template=template,
    )
    for event in data["prompts"]:
        assert ("<reply>" in chat_tokenizer.decode(event.clean)) == reply


@pytest.mark.parametrize("name", ["file/student", "gone/student"])
def test_a_folder_that_cannot_be_made_is_named_itself(name, teacher, tmp_path):
    (tmp_path / "file").touch()
    (tmp_path / "gone").symlink_to(tmp_path / "nowhere")
    rows = write_rows(tmp_path / "mine.jsonl")
    given = ["--teacher", teacher, "--prompts", rows, SMALL, SHORT]
    code, _, errors = call("distill --out", tmp_path / name, *given)
    assert code == 2 and f"error: {tmp_path / name}: cannot be written" in errors, errors


def test_rows_that_cannot_be_are_refused_in_one_line(teacher, tmp_path):
    out = tmp_path / "rows.jsonl"
    for arguments, message in [
        ("--by rule", "--by rule writes rows of a task; give --task"),
        ("--task icd10cm --part 2/2", "parts count from 0 to 1"),
        ("--task icd10cm --predictions none", "none"),
    ]:
        code, _, errors = call("traces", arguments, "--out", out, "--teacher", teacher)
        assert code == 2 and message in errors and errors.count("\n") == 1
