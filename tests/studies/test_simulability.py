import shutil

import pandas as pd
import pytest
from fixtures.tiny_runs import save_reader
from typer.testing import CliRunner

from workbench.cli import app
from workbench.studies import simulated_chains
from workbench.studies.simulability import tables
from workbench.studies.simulated_chains import KINDS


@pytest.fixture(scope="module")
def folder(tokenizer, tmp_path_factory):
    return str(save_reader(tokenizer, tmp_path_factory.mktemp("reader") / "model", n_layers=2))


@pytest.fixture
def right_chains(few_labels, monkeypatch):
    """What a model writes: the task's own chain, of which the first mention is answered wrongly."""
    calls = []

    def write(model, tokenizer, task, prompts, room):
        calls.append(len(prompts))
        texts = []
        for prompt in prompts:
            steps = "".join(f"\n{step}" for step in task.chain(prompt))
            letters = task.answer(prompt)
            texts.append(f"{steps}\nanswer: {' '.join([letters[-1], *letters[1:]])}")
        return texts

    monkeypatch.setattr(simulated_chains, "_written", write)
    return calls


def test_parts_are_put_together_and_not_done_again(right_chains, folder, tmp_path):
    flags = ["simulability", "--teacher", folder, "--student", f"phases-0={folder}"]
    flags += ["--n-train", "3", "--n-test", "2", "--steps", "1", "--batch-size", "2"]
    flags += ["--n-resamples", "5", "--device", "cpu", "--out", str(tmp_path / "out")]
    done = CliRunner().invoke(app, [*flags, "--part", "1/2"])
    assert done.exit_code == 0, done.output
    assert right_chains == [5] and not (tmp_path / "out" / "summary.csv").exists()
    done = CliRunner().invoke(app, flags)
    assert done.exit_code == 0, done.output
    assert right_chains == [5, 5]  # the teacher's, and the student's no more
    found = pd.read_csv(tmp_path / "out" / "summary.csv")
    assert found["model"].unique().tolist() == ["teacher", "phases-0"]
    assert found["kind"].tolist() == [*KINDS] * 2 and (found["answered"] == 1).all()
    assert (found["right"] < 1).all() and found["paper"].tolist()[3:] == [0.76] * 3
    # A random simulator is right by chance, so one group or both are empty, which is said.
    assert found.loc[found["las"].isna(), "note"].str.contains("LAS is not defined").all()
    refused = CliRunner().invoke(app, [*flags, "--steps", "2"])
    assert refused.exit_code != 0 and "other settings (steps)" in refused.output


def test_a_model_with_cut_weights_is_refused_before_others_write(right_chains, folder, tmp_path):
    cut = tmp_path / "cut"
    shutil.copytree(folder, cut)
    weights = cut / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    flags = ["simulability", "--teacher", folder, "--student", f"cot-0={cut}"]
    flags += ["--device", "cpu", "--out", str(tmp_path / "out")]
    refused = CliRunner().invoke(app, flags)
    assert refused.exit_code == 2 and str(cut) in "".join(refused.stderr.splitlines())
    assert not right_chains and not (tmp_path / "out").exists()


def test_a_model_without_answers_is_said():
    frame = pd.DataFrame(
        {"id": ["p0"] * 3, "event": 0, "kind": KINDS, "output": "", "right": False}
    )
    right = frame.assign(output=" A", right=True, x=False, e=[True, False, True], xe=True)
    found = tables({"teacher": right, "cot-0": frame.assign(x=False, e=False, xe=False)},
                   n_resamples=5, seed=0)  # fmt: skip
    silent = found.summary.query("model == 'cot-0'")
    assert (silent["note"] == "answers with no option").all() and (silent["answered"] == 0).all()
    assert found.differences.query("model == 'cot-0'")["value"].isna().all()
