"""Whole evaluations of tiny students, and the parts on models whose results are known."""

import json
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from fixtures.distillation import QUIET
from fixtures.tiny_runs import save_model, save_prompts
from typer.testing import CliRunner

from workbench.analysis.chains import generation
from workbench.analysis.patching.patching import baseline, joint_effects
from workbench.analysis.statistics import Halves
from workbench.cli import app
from workbench.cli.evaluate import student_names
from workbench.distill.arms import ARMS, arm_config, arm_of
from workbench.distill.config import DEFAULTS, StudentShape, plain
from workbench.distill.evaluation import answers as evaluate_answers
from workbench.distill.evaluation.answers import answers
from workbench.distill.evaluation.effects import pool_terms
from workbench.distill.evaluation.evaluate import evaluate_students
from workbench.distill.evaluation.statistics import draw, per_student
from workbench.distill.evaluation.students import (
    Student,
    heads_of,
    read_students,
    steps_to,
    teacher_heads,
)
from workbench.distill.evaluation.trajectories import distances
from workbench.distill.matching.head_map import swap_teacher
from workbench.errors import InputError
from workbench.measures import MEASURES
from workbench.models import loading
from workbench.models.hooked import HookedModel

SMALL = {"n_prompts": 6, "n_trajectory_prompts": 3, "n_resamples": 50, "max_new_tokens": 12}


@pytest.fixture
def write_student(make_model, tokenizer, headmap, teacher, tmp_path):
    digest = loading.weights_sha256(teacher)

    def write(
        name: str, arm: str = "cot", seed: int = 0, weights: int = 1, mapped=headmap, **settings
    ) -> Path:
        folder = tmp_path / name
        make_model(weights).save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        config = plain(asdict(replace(arm_config(arm, DEFAULTS), seed=seed, **settings)))
        needs_map = bool(arm_config(arm, DEFAULTS).loss.taught_pools)
        record = {"config": config, "headmap": mapped.model_dump(mode="json")}
        record |= {"teacher": digest, "traces": {"drawn": 9, "kept": 8}}
        (folder / "training.json").write_text(
            json.dumps(record if needs_map else record | {"headmap": None})
        )
        readout = {
            "step": [0, 200, 400],
            "n": 8,
            "accuracy": [0.0, 0.5, 1.0],
            "focus": 0.5,
            "confusion": 0.5,
        }
        pd.DataFrame(readout).to_parquet(folder / "readout.parquet")
        return folder

    return write


@pytest.fixture
def run(teacher, small_task, tmp_path):
    def call(students, **options):
        settings = {**SMALL, "task": small_task, "reporter": QUIET}
        return evaluate_students(tmp_path / "out", teacher, students, **{**settings, **options})

    return call


def test_a_copy_of_the_teacher_is_like_the_teacher(run, write_student, tmp_path):
    students = {
        "copy": write_student("copy", "cot", weights=0),
        "mech": write_student("mech", "mechanistic"),
    }
    found = run(students)
    assert found.answers.groupby(["student", "setting"]).size().eq(6).all()
    copied, taught = (
        found.answers[found.answers["student"] == name].drop(columns=["student", "arm"])
        for name in ("copy", "teacher")
    )
    pd.testing.assert_frame_equal(*(x.reset_index(drop=True) for x in (copied, taught)))
    by_student = found.trajectories.groupby("student")["value"]
    assert by_student.max()["copy"] == pytest.approx(0, abs=1e-6) and by_student.min()["mech"] > 0
    assert set(found.trajectories["setting"]) == {"teacher_chain", "step_0", "own_chain"}
    # No interval where no event counts, or one by chance.
    nothing = found.causal[found.causal["n"] == 0]
    assert len(nothing) and nothing["value"].isna().all() and found.causal["low"].isna().all()
    whose = found.causal.drop_duplicates("student").set_index("student")["heads_from"].to_dict()
    assert whose == {"teacher": "taught", "copy": "borrowed", "mech": "own"}
    refine = found.causal[found.causal["setting"] == "refine"]
    assert set(refine["heads"]) == {"1-0 1-1", "1-2 1-3"} and len(found.causal) == 3 * 2 * len(
        MEASURES
    )
    assert set(found.seeds["of"]) == {"metrics", "trajectories", "causal"}
    assert set(found.seeds["arm"]) == {"cot", "mechanistic"}
    assert found.speed["student"].tolist() == ["copy", "mech"]
    assert (
        found.readouts.groupby("student")["step"].max().to_dict()
        == found.speed.set_index("student")["last_step"].to_dict()
    )
    found.save(tmp_path / "csv")
    assert "note:" not in (tmp_path / "csv" / "answers.csv").read_text()
    assert set(pd.read_csv(tmp_path / "csv" / "metrics.csv")["measure"]) >= {"ndcg3", "macro_f1"}


def test_what_is_done_is_not_done_again(run, write_student, monkeypatch, tmp_path):
    students = {"one": write_student("one")}
    first = run(students)
    next((tmp_path / "out" / "one").glob("effects-*.parquet")).unlink()
    settings = tmp_path / "out" / "one" / "settings.json"  # as earlier releases wrote it
    settings.write_text(json.dumps(json.loads(settings.read_text()) | {"heads": {"coarse": []}}))
    monkeypatch.setattr(evaluate_answers, "written_answers", None)
    monkeypatch.setattr("workbench.distill.evaluation.work.write_chains", None)
    again = run(students)
    for name in ("answers", "distances", "metrics", "causal", "seeds"):
        pd.testing.assert_frame_equal(getattr(first, name), getattr(again, name))
    for path in (*(tmp_path / "out" / "one").iterdir(),):
        if path.suffix in (".parquet", ".json"):
            whole = path.read_bytes()
            path.write_bytes(whole[:-8] + b"\xff")
            with pytest.raises(InputError, match=f"{path.name}: .*; delete"):
                run(students)
            path.write_bytes(whole)
    with pytest.raises(InputError, match=r"results with other settings \(n_prompts\)"):
        run(students, n_prompts=7)
    with pytest.raises(InputError, match=r"results with other settings \(prompts, seed\)"):
        run(students, seed=2)


def test_bad_students_are_refused_before_any_work(run, write_student, tmp_path):
    with pytest.raises(InputError, match="holds no finished student"):
        run({"none": tmp_path / "nothing"})
    twins = {"a": write_student("a"), "b": write_student("b")}
    with pytest.raises(InputError, match="'a' and 'b' are both of arm 'cot' and seed 0"):
        run(twins)
    with pytest.raises(InputError, match="cannot be called 'teacher'"):
        run({"teacher": twins["a"]})
    record = twins["a"] / "training.json"
    whole = json.loads(record.read_text())
    for damaged in (
        *("", "[]", "[" * 100_000, "{}", '{"config": {}}'),
        json.dumps(whole | {"headmap": {}}),
        json.dumps(whole | {"config": whole["config"] | {"mix": 5}}),
        json.dumps(whole | {"config": whole["config"] | {"steps": "9"}}),
    ):
        record.write_text(damaged)
        with pytest.raises(InputError, match=r"training\.json: is not the record .*; delete it"):
            run({"a": twins["a"]})
    for number in ("n_prompts", "n_trajectory_prompts", "n_resamples"):
        with pytest.raises(InputError, match=f"{number} is 0"):
            run({}, **{number: 0})
    assert not (tmp_path / "out").exists()


def test_students_and_heads_of_another_teacher_are_refused(
    run, write_student, make_model, tokenizer, tmp_path
):
    students = {"a": write_student("a")}
    with pytest.raises(InputError, match="teacher: head 2-0 is outside 2 layers"):
        run(students, pools={"coarse": [(2, 0)]})
    make_model(7).save_pretrained(tmp_path / "teacher")
    with pytest.raises(InputError, match=r"student 'a' was taught by weights .* has .*--teacher"):
        run(students)
    assert not (tmp_path / "out").exists()


def test_students_that_differ_in_more_than_their_arm_are_refused(write_student):
    wide = StudentShape(d_model=256)
    folders = {"a": write_student("a"), "b": write_student("b", "mechanistic", 1, student=wide)}
    with pytest.raises(InputError, match=r"'a' and 'b' differ in student\.d_model, which arms"):
        read_students(folders)
    less = {"a": folders["a"], "c": write_student("c", seed=1, batch_size=64)}
    with pytest.raises(InputError, match="'a' and 'c' differ in batch_size, which arms"):
        read_students(less)
    record = folders["a"] / "training.json"
    written = json.loads(record.read_text())
    del written["config"]["weight_decay"], written["config"]["mix"]["invented"]
    record.write_text(json.dumps(written | {"traces": {"drawn": 9, "kept": 7}}))
    alike = {"a": folders["a"], "d": write_student("d", seed=1, n_traces=9)}
    with pytest.raises(InputError, match="'a' and 'd' differ in traces, which arms"):
        read_students(alike)


def test_an_evaluation_takes_in_further_students(run, write_student):
    students = {"cot": write_student("cot")}
    first = run(students)
    assert set(first.causal["student"]) == set()
    students["mech"] = write_student("mech", "mechanistic")
    both = run(students)
    assert set(both.causal["student"]) == {"teacher", "cot", "mech"}
    kept = both.answers[both.answers["student"] != "mech"].reset_index(drop=True)
    pd.testing.assert_frame_equal(kept, first.answers)


def test_students_of_more_steps_are_an_arm_of_their_own(write_student):
    folders = {"cot-0": write_student("cot-0")}
    folders["cot-compute-0"] = write_student("cot-compute-0", steps=6000)
    found = read_students({"mech-0": write_student("mech-0", "mechanistic"), **folders})
    assert [student.arm for student in found] == ["cot", "cot@6000", "mechanistic"]


def test_students_of_another_head_set_are_an_arm_of_their_own(write_student, headmap):
    heads = {"coarse": [(0, 2)], "refine": [(1, 0), (1, 1)]}
    by_hand = swap_teacher(headmap, heads)
    folders = {
        "chief": write_student("chief", "mechanistic"),
        "other": write_student("other", "mechanistic", mapped=by_hand),
        "less": write_student("less", "mechanistic-update", mapped=by_hand),
        "random": write_student("random", "random", mapped=by_hand),
    }
    named = "(0-2,1-0,1-1)"
    expected = {"chief": "", "other": named, "less": named}
    for pools in (None, {"coarse": [(0, 0)]}):  # without them, and with some nobody learnt from
        found = {student.name: student.arm for student in read_students(folders, pools)}
        assert found.pop("random") == "random"
        assert {name: "".join(arm.partition("(")[1:]) for name, arm in found.items()} == expected
    reverse = {pool: listed[::-1] for pool, listed in heads.items()}
    found = {student.name: student.arm for student in read_students(folders, reverse)}
    assert found["other"] == "mechanistic" and found["less"] == "mechanistic-update"
    assert found["chief"].startswith("mechanistic(") and found["chief"] != f"mechanistic{named}"
    chief = {"chief": write_student("late", "mechanistic-update"), "other": folders["other"]}
    assert teacher_heads(None, read_students(chief))[0]["coarse"] != heads["coarse"]
    assert [student.arm for student in read_students(folders)][:3] == [
        "mechanistic",
        f"mechanistic{named}",
        f"mechanistic-update{named}",
    ]


def test_labels_come_in_the_order_they_were_written(small_task, raw_tokenizer, monkeypatch):
    prompts = generation.draw_prompts(small_task, 3, 5)
    written = []
    for prompt in prompts:
        letters = prompt.letters
        right = [letters[mention.label] for mention in prompt.mentions]
        written.append([[*reversed(right)], ["Q", *right], []][len(written)])
    monkeypatch.setattr(evaluate_answers, "written_answers", lambda *_, **__: written)
    table = answers(None, raw_tokenizer, small_task, n_prompts=3, seed=5, chain=True)
    gold = [[mention.label for mention in prompt.mentions] for prompt in prompts]
    assert table["listed"].tolist() == [" ".join(reversed(gold[0])), " ".join(["?", *gold[1]]), ""]
    assert table["exact"].tolist() == [True, False, False]
    assert table["p1"].tolist() == [1, 0, 0] and table["fp"].tolist() == [0, 1, 0]
    assert table["setting"].unique().tolist() == ["chain"]


def test_effects_are_those_of_joint_patching(tmp_path):
    folder = save_model("llama", tmp_path / "model")
    prompts = save_prompts(folder, tmp_path / "prompts.jsonl", 6)
    model = HookedModel.load(folder, device="cpu")
    heads = {"coarse": [(0, 1), (0, 2)], "refine": [(1, 0)]}
    terms = pool_terms(model, prompts, heads)
    table = per_student(draw(terms.assign(student="s", arm="cot", seed=0), n_resamples=20))
    unpatched = baseline(model, prompts, Halves(frozenset(), frozenset(prompts.prompt_ids)))
    expected = joint_effects(
        model, prompts, unpatched, list(heads.values()), ("span",), halves=("all",), n_resamples=20
    )
    assert set(table["n"]) == {7}
    for target, pool in enumerate(heads):
        own = table[table["setting"] == pool].set_index("measure")
        theirs = expected[expected["target"] == target].set_index("measure").loc[own.index]
        np.testing.assert_allclose(own["value"], theirs["effect"], atol=1e-9)
    assert pool_terms(model, prompts, {}).empty


def test_distances_are_means_over_the_steps_that_both_have():
    def values(source, focus, confusion):
        steps = range(len(focus))
        columns = {"source": source, "id": "p", "event": 0, "step": steps}
        return pd.DataFrame(columns | {"focus": focus, "confusion": confusion})

    teacher = pd.concat([values(s, [0.5, 1.0], [0.4, 0.0]) for s in ("teacher_chain", "own_chain")])
    student = pd.concat(
        [
            values("teacher_chain", [0.2, 0.9], [0.4, 0.2]),
            values("own_chain", [0.2, 1.0, 0.0], [0.4, 0.0, 1.0]),
        ]
    )
    found = distances(student, teacher).set_index("setting")
    assert found["steps"].to_dict() == {"own_chain": 2, "step_0": 1, "teacher_chain": 2}
    assert found["focus"].to_dict() == pytest.approx(
        {"own_chain": 0.15, "step_0": 0.3, "teacher_chain": 0.2}
    )
    assert found["confusion"].to_dict() == pytest.approx(
        {"own_chain": 0, "step_0": 0, "teacher_chain": 0.1}
    )


def test_every_arm_is_known_by_its_record():
    for name in ARMS:
        assert arm_of(json.loads(json.dumps(plain(asdict(arm_config(name, DEFAULTS)))))) == name
    record = plain(asdict(arm_config("mechanistic", DEFAULTS)))
    for changed in ({"attention": 0.25}, {"update_space": "options"}):
        assert arm_of(record | {"loss": record["loss"] | changed}) == "custom"
    del record["loss"]["update_space"]  # as before there was that setting
    assert arm_of(record) == "mechanistic"


def test_heads_are_borrowed_of_a_student_of_the_same_shape(write_student, headmap):
    controls = swap_teacher(headmap, {"coarse": [(0, 2)], "refine": [(1, 0), (1, 1)]})
    folders = [
        write_student("cot"),
        write_student("random", "random", mapped=controls),
        write_student("mech", "mechanistic"),
    ]
    cot, random, mech = (Student.read(folder.name, folder) for folder in folders)
    expected = {"coarse": [(0, 0)], "refine": [(1, 0), (1, 1)]}
    assert heads_of(mech, []) == (expected, "own")
    assert heads_of(cot, [random, mech]) == (expected, "borrowed")
    assert heads_of(cot, [random]) == ({}, "none")


def test_steps_to_a_level():
    readout = pd.DataFrame({"step": [0, 100, 200, 300], "accuracy": [0.0, 0.89, 0.9, 0.8]})
    assert steps_to(readout, 0.9) == 200
    assert np.isnan(steps_to(readout, 0.95))


def _cut(folder):
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])


def _without_a_readout(folder):
    (folder / "readout.parquet").write_bytes(b"no table")


@pytest.mark.parametrize("damage", [_cut, _without_a_readout])
def test_a_damaged_student_is_refused_before_the_teacher_is_read(
    run, write_student, tmp_path, monkeypatch, damage
):
    students = {
        name: write_student(name, seed=seed) for seed, name in enumerate(("whole", "other"))
    }
    damage(students["other"])

    def never(*given, **named):
        raise AssertionError("weights are read")

    monkeypatch.setattr(loading, "read_model", never)
    with pytest.raises(InputError, match=str(students["other"])):
        run(students)
    assert not (tmp_path / "out").exists()


@pytest.mark.usefixtures("few_labels")
def test_a_device_that_is_not_there_leaves_no_folder(write_student, teacher, tmp_path):
    out = tmp_path / "out"
    flags = ["--teacher", str(teacher), "--out", str(out), "--device", "what"]
    result = CliRunner().invoke(app, ["evaluate-students", str(write_student("cot")), *flags])
    assert result.exit_code == 2 and "device what cannot be used" in result.stderr
    assert not out.exists()


def test_command_names_students_by_their_folders(tmp_path):
    a, b = tmp_path / "cot" / "0", tmp_path / "mechanistic" / "0"
    assert student_names([a, b]) == {"cot-0": a, "mechanistic-0": b}
    with pytest.raises(InputError, match="0: is given twice"):
        student_names([a, b, a])
    with pytest.raises(InputError, match="two students are called 'cot-0'"):
        student_names([a, tmp_path / "more" / "cot" / "0"])
    out = tmp_path / "out"
    result = CliRunner().invoke(app, ["evaluate-students", str(a), "--out", str(out)])
    assert result.exit_code == 2 and "holds no finished student" in result.stderr
    assert not out.exists()
