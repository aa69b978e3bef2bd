"""The students in data/students are what their README says."""

import pandas as pd
import pytest
import torch
from typer.testing import CliRunner

from workbench.cli import app
from workbench.distill.evaluation.students import read_students
from workbench.distill.training.monitor import direct_readout
from workbench.models import loading
from workbench.models.loading import bundled_model_path
from workbench.plots.students_page import read_tables
from workbench.prompts.make import make_prompts

DATA = bundled_model_path().parent
ARMS = ("cot", "mechanistic", "random")


def test_each_is_the_first_seed_of_its_arm_and_small():
    found = read_students({arm: DATA / "students" / arm for arm in ARMS})
    assert [(student.arm, student.seed) for student in found] == [(arm, 0) for arm in ARMS]
    teacher = loading.weights_sha256(bundled_model_path())
    for student in found:
        record = (student.folder / "training.json").read_text()
        assert teacher in record
        assert sum(file.stat().st_size for file in student.folder.iterdir()) < 4_000_000


def test_only_those_that_were_shown_heads_pick_unseen_labels():
    prompts = make_prompts(n_prompts=12, seed=5)
    right = {}
    for arm in ARMS:
        model = loading.read_model(DATA / "students" / arm, dtype=torch.float32)
        right[arm] = direct_readout(model, prompts)["accuracy"]
    assert right["mechanistic"] >= 0.5
    assert right["mechanistic"] > right["cot"] + 0.3
    assert right["random"] > right["cot"]


def test_the_command_writes_tables_and_a_page_that_can_be_made_again(tmp_path):
    students = [str(DATA / "students" / arm) for arm in ("cot", "mechanistic")]
    sizes = ["--n", "1", "--n-trajectory", "1", "--n-resamples", "20"]
    call = CliRunner().invoke
    done = call(app, ["evaluate-students", *students, "--out", str(tmp_path), *sizes])
    assert done.exit_code == 0, done.output
    assert f"figures: {tmp_path}/students.html" in done.output
    heads = pd.read_csv(tmp_path / "causal.csv").groupby("student")["heads"].unique()
    assert set(heads["teacher"]) == {"3-0", "4-6"} and set(heads["cot"]) == {"1-0", "2-0"}
    page = (tmp_path / "students.html").read_text()
    (tmp_path / "students.html").unlink()
    assert call(app, ["evaluation-page", str(tmp_path)]).exit_code == 0
    assert (tmp_path / "students.html").read_text() == page


def test_tables_of_the_study_hold_the_shipped_students():
    tables = read_tables(DATA / "results" / "students")
    metrics = tables["metrics"]
    last = tables["readouts"].sort_values("step").groupby("student")["accuracy"].last()
    for arm in ARMS:
        assert (metrics["student"] == f"{arm}-0").any()
        own = pd.read_parquet(DATA / "students" / arm / "readout.parquet").sort_values("step")
        assert last[f"{arm}-0"] == pytest.approx(own["accuracy"].iloc[-1], abs=1e-5)
