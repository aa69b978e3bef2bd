import copy
import io
import json
import shutil
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from random import Random

import pandas as pd
import pytest
import torch
from fixtures.distillation import POOLS, QUIET, SMALL, save_traces
from rich.console import Console
from safetensors.torch import load_file
from transformers import AutoTokenizer, LlamaForCausalLM

from workbench.analysis.readout import Roles, focus_confusion, select_options
from workbench.distill.arms import arm_config
from workbench.distill.config import CopiedLayers, LossConfig, plain
from workbench.distill.examples.traces import SCHEMA
from workbench.distill.targets.make import Making
from workbench.distill.targets.packing import Packing
from workbench.distill.training import run
from workbench.distill.training.folder import held, last_checkpoint
from workbench.distill.training.monitor import direct_readout
from workbench.distill.training.run import distill
from workbench.distill.training.student import check_tokenizers
from workbench.errors import InputError
from workbench.progress import Reporter
from workbench.prompts.events import make_events
from workbench.prompts.templates import PlainTemplate

CONFIG = replace(
    SMALL, loss=LossConfig(attention=0.5, update=0.1, interaction=0.1, hidden=0.1), steps=4
)


@pytest.fixture
def prompts(small_task, tokenizer):
    return make_events(small_task, PlainTemplate(), tokenizer, n_prompts=5, seed=9)


@pytest.fixture
def distilled(teacher, small_task, prompts, trace_file):
    """`distill` with traces of a teacher that knows the task."""

    def call(out, config=CONFIG, pools=POOLS, **options):
        settings = {"readout_every": 2, "checkpoint_every": 2, "workers": 0, "prompts": prompts}
        settings |= {"traces": trace_file, "reporter": QUIET, "task": small_task}
        return distill(out, teacher, pools, config, **{**settings, **options})

    return call


def test_folder_has_student_map_readout_and_record(distilled, tmp_path, tokenizer):
    out = tmp_path / "student"
    record = distilled(out)
    student, report = LlamaForCausalLM.from_pretrained(out, output_loading_info=True)
    assert not report["unexpected_keys"] and not report["missing_keys"]
    assert student.config.num_hidden_layers == 2 and student.config.hidden_size == 16
    assert AutoTokenizer.from_pretrained(out).get_vocab() == tokenizer.get_vocab()
    assert record == json.loads((out / "training.json").read_text())
    assert [row["step"] for row in record["loss"]] == [1, 2, 3, 4]
    terms = {"loss_chain", "loss_attention", "loss_update", "loss_interaction", "loss_hidden"}
    assert terms | {"step", "loss", "grad_norm"} == set(record["loss"][0])
    headmap = json.loads((out / "headmap.json").read_text())
    assert headmap == record["headmap"] and len(headmap["pairs"]) == 3
    readout = pd.read_parquet(out / "readout.parquet")
    assert readout["step"].tolist() == [0, 2, 4] and set(readout["n"]) == {5}
    assert not list(out.rglob("*.bin")) and not (out / "checkpoints").exists()


def test_traces_that_are_missing_or_of_another_teacher_are_refused(distilled, tmp_path):
    path = tmp_path / "others.jsonl"
    path.write_text(json.dumps({"schema": SCHEMA, "teacher": "x", "n": 0, "part": [0, 1]}) + "\n")
    with pytest.raises(InputError, match="traces of another teacher"):
        distilled(tmp_path / "student", traces=path)
    with pytest.raises(InputError, match=r"trcaes\.jsonl: cannot be read, No such file"):
        distilled(tmp_path / "student", traces=tmp_path / "trcaes.jsonl")


def test_losses_and_readouts_are_told_as_a_table(distilled, tmp_path):
    console = Console(record=True, width=200, quiet=False, file=io.StringIO())
    record = distilled(tmp_path / "student", reporter=Reporter(console))
    lines = [line.split() for line in console.export_text().splitlines()]
    at = next(n for n, line in enumerate(lines) if line[:2] == ["step/4", "loss"])
    names = "loss chain attention update interaction hidden focus confusion accuracy"
    assert lines[at][1:] == names.split()
    rows = [line for line in lines[at + 1 :] if line and line[0].isdecimal()]
    assert [int(row[0]) for row in rows] == [1, 2, 3, 4]
    told = [float(row[1]) for row in rows]
    assert told == pytest.approx([row["loss"] for row in record["loss"]], abs=1e-3)
    assert all(len(row) == 10 for row in rows)


@pytest.fixture
def stopped(distilled, monkeypatch, tmp_path):
    """A folder in which training ended as if killed at the start of a step, and the steps run.

    Training that goes on there is not stopped, and adds its steps.
    """

    def at(step):
        compute, steps = run.MechanisticDistillationTrainer.compute_loss, []

        def stopping(self, *args, **kwargs):
            steps.append(self.state.global_step)
            if len(steps) == step + 1:
                raise KeyboardInterrupt
            return compute(self, *args, **kwargs)

        monkeypatch.setattr(run.MechanisticDistillationTrainer, "compute_loss", stopping)
        with pytest.raises(KeyboardInterrupt):
            distilled(tmp_path / "student")
        return tmp_path / "student", steps

    return at


def test_interrupted_distillation_ends_as_uninterrupted(distilled, stopped, tmp_path):
    whole, folder = distilled(tmp_path / "whole"), tmp_path / "whole"
    out, steps = stopped(3)
    with pytest.raises(InputError, match=r"other settings \(config.loss.attention\)"):
        distilled(out, replace(CONFIG, loss=replace(CONFIG.loss, attention=1.0)))
    with pytest.raises(InputError, match=r"other settings \(pools\)"):
        distilled(out, pools={"coarse": [(0, 0)], "refine": [(1, 1)]})
    parts = distilled(out)
    assert steps == [0, 1, 2, 3, 2, 3]
    assert parts["loss"] == whole["loss"]
    weights, others = (load_file(each / "model.safetensors") for each in (folder, out))
    assert weights.keys() == others.keys()
    assert all(weight.equal(others[name]) for name, weight in weights.items())
    tables = [pd.read_parquet(each / "readout.parquet") for each in (folder, out)]
    pd.testing.assert_frame_equal(*tables)
    with pytest.raises(InputError, match="holds a trained student already"):
        distilled(out)


def test_training_that_ended_takes_no_step_more(distilled, monkeypatch, tmp_path):
    out, whole = tmp_path / "student", distilled(tmp_path / "whole")

    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(run, "write_student", full)
        with pytest.raises(OSError):
            distilled(out)
    assert distilled(out)["loss"] == whole["loss"]
    weights = [load_file(tmp_path / name / "model.safetensors") for name in ("whole", "student")]
    assert all(weight.equal(weights[1][name]) for name, weight in weights[0].items())


def test_a_checkpoint_that_was_cut_off_is_passed_over(distilled, stopped):
    out, _ = stopped(3)
    whole, cut = out / "checkpoints" / "checkpoint-2", out / "checkpoints" / "checkpoint-3"
    shutil.copytree(whole, cut)
    state = cut / "trainer_state.json"
    state.write_text(state.read_text()[:20])
    (cut / "optimizer.pt").unlink()
    assert last_checkpoint(out) == str(whole)
    record = distilled(out)
    assert [row["step"] for row in record["loss"]] == [1, 2, 3, 4]


@pytest.mark.parametrize("content", [b"", b"[" * 100_000, b"\xff\x00 no such file"])
def test_damaged_files_of_a_student_are_named(content, distilled, stopped):
    out, _ = stopped(3)
    work = out / "checkpoints"
    checkpoint = Path(last_checkpoint(out))
    said = {
        out / "headmap.json": "headmap.json: .*; delete it, and the heads are matched again",
        out / "readout.parquet": "readout.parquet: is not a readable table .* delete it",
        work / "asked.json": "asked.json: .*; delete .*checkpoints to begin anew",
        work / "traces.json": "traces.json: .*; delete .*checkpoints to begin anew",
        checkpoint / "model.safetensors": "checkpoint-2: is a damaged checkpoint .*; delete it",
        checkpoint / "optimizer.pt": "checkpoint-2: is a damaged checkpoint .*; delete it",
    }
    for path, message in said.items():
        whole = path.read_bytes()
        path.write_bytes(content)
        with pytest.raises(InputError, match=message) as refused:
            distilled(out)
        assert "\n" not in str(refused.value)
        path.write_bytes(whole)
    (checkpoint / "trainer_state.json").write_bytes(content)
    assert last_checkpoint(out) is None


def test_examples_of_another_stream_than_the_targets_are_refused_before_training(
    distilled, tmp_path
):
    config, targets = replace(CONFIG, loss=LossConfig(attention=0.5)), tmp_path / "targets"
    distilled(tmp_path / "work", config, making=Making(targets, Packing()))
    for other in (replace(config, seed=5), replace(config, steps=6)):
        with pytest.raises(
            InputError, match=r"holds no targets for \d+ of \d+ examples"
        ) as refused:
            distilled(tmp_path / "other", other, pools=None, targets=targets, workers=2)
        assert "\n" not in str(refused.value)
    assert distilled(tmp_path / "same", config, pools=None, targets=targets)["loss"]


def test_training_goes_on_with_the_same_traces_only(distilled, stopped, trace_file, tmp_path):
    out, _ = stopped(3)
    lines = trace_file.read_text().splitlines(keepends=True)
    other = tmp_path / "other.jsonl"
    drawn = [json.loads(line) for line in lines[:0:-1]]
    drawn = [json.dumps(line | {"draw": at}) + "\n" for at, line in enumerate(drawn)]
    other.write_text("".join([lines[0], *drawn]))
    with pytest.raises(InputError, match=r"other settings \(traces.sha256, traces.examples\)"):
        distilled(out, traces=other)
    moved = shutil.copy(trace_file, tmp_path / "moved.jsonl")
    assert distilled(out, traces=moved)["traces"]["kept"] == len(lines) - 1


def test_training_goes_on_with_the_same_task_only(distilled, stopped, small_task, monkeypatch):
    out, _ = stopped(3)
    other, draw = copy.copy(small_task), small_task.draw
    monkeypatch.setattr(other, "draw", lambda name, rng, *rest: draw(name, Random(7), *rest))
    with pytest.raises(InputError, match=r"other settings \(traces.examples\)"):
        distilled(out, task=other)
    assert distilled(out)["traces"]["examples"]


def test_a_start_that_failed_binds_nobody(distilled, stopped):
    out, _ = stopped(1)
    others = {"coarse": [(0, 2)], "refine": [(1, 3)]}
    assert (out / "headmap.json").is_file() and (out / "readout.parquet").is_file()
    busy = "another process is training into it"
    with held(out), ThreadPoolExecutor(1) as other, pytest.raises(InputError, match=busy):
        other.submit(distilled, out, pools=others).result()
    assert (out / "headmap.json").is_file() and (out / "readout.parquet").is_file()
    record = distilled(out, pools=others)
    assert [pair["teacher"] for pair in record["headmap"]["pairs"]] == [[0, 2], [1, 3]]


@pytest.mark.parametrize(
    ("config", "pools", "message"),
    [
        (CONFIG, None, "need the teacher's pooled heads"),
        (CONFIG, {"coarse": [(0, 1)]}, "need heads of the refine pool, the head set has none"),
        (CONFIG, {"coarse": [(0, 9)]}, "head 0-9 is outside"),
        (replace(CONFIG, heads="random"), POOLS, "random heads need the scores table"),
        (
            replace(CONFIG, loss=LossConfig(attention=0.0, circuit=1.0)),
            None,
            "need the teacher's pooled heads",
        ),
    ],
)
def test_heads_are_checked_before_traces_are_drawn(
    distilled, config, pools, message, monkeypatch, tmp_path
):
    monkeypatch.setattr(run, "write_traces", lambda *_, **__: pytest.fail("draws traces"))
    with pytest.raises(InputError, match=message):
        distilled(tmp_path / "student", config, pools, traces=None)
    assert not (tmp_path / "student").exists()


def test_checkpoints_stay_where_no_weights_were_written(distilled, monkeypatch, tmp_path):
    out = tmp_path / "student"
    save = run.MechanisticDistillationTrainer.save_model

    def only_checkpoints(self, output_dir=None, _internal_call=False):
        if _internal_call:
            save(self, output_dir, _internal_call)

    monkeypatch.setattr(run.MechanisticDistillationTrainer, "save_model", only_checkpoints)
    with pytest.raises(InputError, match=r"no weights.* the last checkpoint is kept in"):
        distilled(out)
    assert (out / "checkpoints" / "checkpoint-4").is_dir() and not (out / "training.json").exists()
    monkeypatch.setattr(run.MechanisticDistillationTrainer, "save_model", save)
    assert [row["step"] for row in distilled(out)["loss"]] == [1, 2, 3, 4]


def test_a_teacher_that_would_be_empty_in_other_processes_is_refused(
    distilled, monkeypatch, tmp_path
):
    monkeypatch.setattr(run, "is_fsdp_enabled", lambda: True)
    with pytest.raises(InputError, match="fsdp_cpu_ram_efficient_loading"):
        distilled(tmp_path / "student")


def test_a_pretrained_student_goes_on_from_its_weights(distilled, teacher, make_model, tmp_path):
    loss = LossConfig(attention=0.5, circuit=0.1)
    config = replace(CONFIG, loss=loss, student=str(teacher), steps=1, learning_rate=0.0)
    record = distilled(tmp_path / "student", config, prompts=None)
    assert record["headmap"]["method"] == "attention"
    assert all(pair["teacher"] == pair["student"] for pair in record["headmap"]["pairs"])
    assert all(theirs == ours for theirs, ours in record["circuit"])
    assert record["loss"][0]["loss_attention"] == pytest.approx(0, abs=1e-5)
    kept = LlamaForCausalLM.from_pretrained(tmp_path / "student").state_dict()
    for name, weight in make_model().state_dict().items():
        torch.testing.assert_close(kept[name], weight)


def test_copied_layers_are_compared_with_themselves(
    distilled, teacher, traces, make_model, tmp_path
):
    loss = LossConfig(attention=0.5, minilm=0.1, hidden=0.1)
    config = replace(CONFIG, loss=loss, student=CopiedLayers(2), steps=1, learning_rate=0.0)
    record = distilled(tmp_path / "student", config, prompts=None)
    assert record["headmap"]["method"] == "copied"
    first = record["loss"][0]
    for name in ("attention", "minilm", "hidden"):
        assert first[f"loss_{name}"] == pytest.approx(0, abs=1e-5)
    make_model(n_layers=3).save_pretrained(teacher)
    path = save_traces(tmp_path / "given" / "three.jsonl", traces, teacher)
    found = []
    for number, layers in enumerate([None, ((0, 0), (1, 2))]):
        loss = LossConfig(attention=0.0, minilm=0.1, layers=layers)
        out = tmp_path / f"of-three-{number}"
        record = distilled(out, replace(config, loss=loss), prompts=None, traces=path)
        assert record["config"]["loss"]["layers"] == plain(layers)
        found.append(record["loss"])
    assert found[0] == found[1] and found[0][0]["loss_minilm"] > 0


def test_students_of_another_tokenizer_are_refused(distilled, make_model, chat_tokenizer, tmp_path):
    other = tmp_path / "other"
    make_model().save_pretrained(other)
    chat_tokenizer.save_pretrained(other)
    with pytest.raises(InputError, match="tokenizers of teacher and student differ in 4 entries"):
        distilled(tmp_path / "student", replace(CONFIG, student=str(other)))
    check_tokenizers(chat_tokenizer, None)


def test_a_family_pads_its_vocabularies_differently(distilled, make_model, tokenizer, tmp_path):
    other = tmp_path / "padded"
    make_model(vocab_size=864).save_pretrained(other)
    config = replace(
        CONFIG, student=str(other), loss=arm_config("cot+logits", CONFIG).loss, steps=1
    )
    with pytest.raises(InputError, match="no two tokenizers to compare"):
        distilled(tmp_path / "student", config, prompts=None)
    tokenizer.save_pretrained(other)
    rows = distilled(tmp_path / "student", config, prompts=None)["loss"]
    assert 0 < rows[0]["loss_logit"] < float("inf")
    assert LlamaForCausalLM.from_pretrained(tmp_path / "student").config.vocab_size == 864
    make_model(vocab_size=500).save_pretrained(other)
    with pytest.raises(InputError, match="300 tokens of the tokenizer have no embedding"):
        distilled(tmp_path / "other", config)


def test_readout_equals_one_prompt_at_a_time(make_model, prompts):
    model = make_model()
    found = direct_readout(model, prompts, batch_size=3)
    each = []
    for event in prompts:
        with torch.no_grad():
            logits = model.eval()(input_ids=torch.tensor([event.clean])).logits[0, -1]
        focus, confusion = focus_confusion(select_options(logits, event), Roles.of(event))
        each.append((float(focus), float(confusion)))
    focus, confusion = (sum(column) / len(each) for column in zip(*each, strict=True))
    assert found["focus"] == pytest.approx(focus, abs=1e-5)
    assert found["confusion"] == pytest.approx(confusion, abs=1e-5)
    assert found["n"] == 5 and 0 <= found["accuracy"] <= 1
