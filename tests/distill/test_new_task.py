"""A task that nobody has heard of is distilled and evaluated: one file has all that is new."""

from dataclasses import replace
from pathlib import Path

import pytest
from fixtures.distillation import QUIET, SMALL, right_traces, save_traces
from fixtures.shades import ShadesTask, shades_tokenizer

from workbench.distill.config import LossConfig
from workbench.distill.evaluation import answers
from workbench.distill.evaluation.evaluate import evaluate_students
from workbench.distill.examples.traces import read_traces
from workbench.distill.training.run import distill
from workbench.prompts.events import make_events
from workbench.prompts.templates import PlainTemplate
from workbench.prompts.word_encoder import WordEncoder

TASK = ShadesTask()
LOSS = LossConfig(attention=0.5, update=0.0, interaction=0.0)
CONFIG = replace(SMALL, loss=LOSS, steps=2, n_traces=8)


@pytest.fixture
def teacher(make_model, tmp_path) -> Path:
    tokenizer = shades_tokenizer()
    make_model(vocab_size=len(tokenizer)).save_pretrained(tmp_path / "teacher")
    tokenizer.save_pretrained(tmp_path / "teacher")
    return tmp_path / "teacher"


@pytest.fixture
def traces(teacher, tmp_path) -> Path:
    encode = WordEncoder(shades_tokenizer().backend_tokenizer)
    chains = right_traces(TASK, encode, CONFIG.n_traces)
    return save_traces(tmp_path / "traces.jsonl", chains, teacher)


def test_a_new_task_is_distilled_and_evaluated(teacher, traces, tmp_path, monkeypatch):
    assert len(read_traces(traces)) == CONFIG.n_traces
    prompts = make_events(TASK, PlainTemplate(), shades_tokenizer(), n_prompts=2, seed=9)
    pools = {"coarse": [(0, 1)], "refine": [(1, 2)]}
    record = distill(
        tmp_path / "one",
        teacher,
        pools,
        CONFIG,
        task=TASK,
        prompts=prompts,
        traces=traces,
        workers=0,
        reporter=QUIET,
    )
    assert len(record["loss"]) == 2 and record["traces"]["kept"] == 8
    written = [["?"], *[["A", "A"]] * 3]
    monkeypatch.setattr(answers, "written_answers", lambda *_, **__: written)
    found = evaluate_students(
        tmp_path / "out",
        teacher,
        {"one": tmp_path / "one"},
        task=TASK,
        n_prompts=4,
        n_trajectory_prompts=2,
        n_resamples=10,
        max_new_tokens=8,
        reporter=QUIET,
    )
    own = found.metrics[found.metrics["measure"] == "colour"]
    assert set(own["student"]) == {"teacher", "one"} and own["value"].between(0, 1).all()
    assert found.answers["colour"].iloc[0] == 0 < found.answers["colour"].max()
    assert {"exact", "ndcg3", "macro_f1"} <= set(found.metrics["measure"])
