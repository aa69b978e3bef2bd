"""Rows of a task, from the command that writes them to the student that reads them."""

import json

import pandas as pd
import pytest
from fixtures.calling import call

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


def test_rows_that_cannot_be_are_refused_in_one_line(teacher, tmp_path):
    out = tmp_path / "rows.jsonl"
    for arguments, message in [
        ("--by rule", "--by rule writes rows of a task; give --task"),
        ("--task icd10cm --part 2/2", "part 2 of 2 is not there"),
        ("--task icd10cm --predictions none", "none"),
    ]:
        code, _, errors = call("traces", arguments, "--out", out, "--teacher", teacher)
        assert code == 2 and message in errors and errors.count("\n") == 1
