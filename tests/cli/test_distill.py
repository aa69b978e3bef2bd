import json

import pytest
from fixtures.calling import call

from workbench.bench import distill as speed
from workbench.distill.evaluation.students import Student

SMALL = "--n-layers 2 --n-heads 2 --n-kv-heads 1 --d-model 16 --d-mlp 24 --no-bf16 --workers 0"
SHORT = "--steps 2 --batch-size 2 --readout-every 2 --warmup-steps 1"

pytestmark = pytest.mark.usefixtures("few_labels")


@pytest.fixture
def by_hand(tmp_path):
    """A head set that someone wrote: nothing but heads and pools."""
    path = tmp_path / "heads.json"
    heads = [{"layer": 0, "head": 1, "pool": "coarse"}, {"layer": 1, "head": 2, "pool": "refine"}]
    path.write_text(json.dumps({"heads": heads}))
    return path


def test_distill_from_a_head_set_made_by_hand(teacher, trace_file, by_hand, tmp_path):
    out = tmp_path / "student"
    given = ["--teacher", teacher, "--headset", by_hand, "--traces", trace_file.parent]
    code, said, errors = call("distill", "--out", out, *given, SMALL, SHORT, "--attention 1")
    assert code == 0, errors
    assert f"student: {out}" in said
    record = json.loads((out / "training.json").read_text())
    assert record["config"]["loss"]["attention"] == 1.0
    assert record["config"]["loss"]["update"] > 0  # of the arm
    assert [pair["teacher"] for pair in record["headmap"]["pairs"]] == [[0, 1], [1, 2]]
    assert len(record["loss"]) == 2
    code, _, errors = call("distill", "--out", out, *given, SMALL, SHORT)
    assert code == 2 and "holds a trained student already" in errors


def test_layers_of_the_teacher_or_of_another_make_a_student(teacher, trace_file, tmp_path):
    given = ["--teacher", teacher, "--traces", trace_file, "--arm cot", SHORT]
    given += ["--no-bf16 --workers 0"]
    out = tmp_path / "student"
    code, _, errors = call("distill", "--out", out, *given, "--student-layers 1,")
    assert code == 0, errors
    config = json.loads((out / "training.json").read_text())["config"]
    assert config["student"] == {"layers": [1], "from_": None}
    assert json.loads((out / "config.json").read_text())["num_hidden_layers"] == 1
    for layers, message in [
        ("3", "3 cannot be copied from a model of 2 layers"),
        ("1", "1 cannot be spread"),
        ("0,two", "give numbers"),
        ("2 --d-model 64", "--d-model is of a new student"),
        ("2 --lora-alpha 3", "--lora-alpha is of an adapter; give --lora-rank, too"),
        ("2 --lora-rank 2 --lora-saved adapter", "copied layers are in no folder"),
    ]:
        sister = ["--student", teacher, f"--student-layers {layers}"]
        code, _, errors = call("distill", "--out", tmp_path / "other", *given, *sister)
        assert code == 2 and message in " ".join(errors.split()), errors


@pytest.fixture
def only_coarse(tmp_path):
    path = tmp_path / "coarse.json"
    path.write_text(json.dumps({"heads": [{"layer": 0, "head": 1, "pool": "coarse"}]}))
    return path


def test_one_pool_alone_is_taught(teacher, trace_file, only_coarse, tmp_path):
    out = tmp_path / "student"
    given = ["--teacher", teacher, "--headset", only_coarse, "--traces", trace_file]
    code, _, errors = call("distill", "--out", out, *given, SMALL, SHORT, "--interaction 0")
    assert code == 0, errors
    record = json.loads((out / "training.json").read_text())
    assert [pair["pool"] for pair in record["headmap"]["pairs"]] == ["coarse"]
    assert record["config"]["loss"]["pools"] == ["coarse"]
    assert Student.read("one", out).arm == "mechanistic-interaction"


def test_distill_refuses_in_one_line(teacher, trace_file, by_hand, only_coarse, tmp_path):
    given = ["--teacher", teacher, "--traces", trace_file.parent, SMALL, SHORT]
    out = tmp_path / "student"
    for arguments, message in [
        (["--arm", "none"], "arm 'none' is not one of cot, cot+logits"),
        ([], "need the teacher's pooled heads"),
        (["--arm", "random", "--headset", by_hand], "give --scores FILE"),
        (["--arm", "random", "--headset", by_hand, "--scores", by_hand], "is not a scores table"),
        (["--headset", only_coarse], "heads of the refine pool, the head set has none"),
        (["--arm", "cot", "--warmup-steps", "-5"], "warmup_steps: input should be "),
    ]:
        code, _, errors = call("distill", "--out", out, *given, *arguments)
        assert code == 2 and message in errors and "Traceback" not in errors
        assert errors.count("\n") == 1


def test_a_part_of_the_traces(teacher, tmp_path):
    path = tmp_path / "traces" / "1.jsonl"
    arguments = ["--teacher", teacher, "--n-traces 4 --max-new-tokens 4 --part 1/2"]
    code, said, errors = call("traces", "--out", path, *arguments)
    assert code == 0, errors
    head, *draws = map(json.loads, path.read_text().splitlines())
    assert head["part"] == [1, 2] and [row["draw"] for row in draws] == [2, 3]
    assert "0 of 2 draws are right" in said
    code, _, errors = call("traces", "--out", path, "--teacher", teacher, "--part 2")
    assert code == 2 and "part '2' is not WHICH/PARTS" in errors


def test_a_study_passes_further_flags_on_and_names_what_failed(teacher, tmp_path):
    out = tmp_path / "study"
    arguments = ["--arms cot --main-seeds 1 --steps 2 --", "--teacher", teacher, "--n-traces none"]
    code, _, errors = call("study distillation", "--out", out, *arguments, SMALL)
    assert code == 2 and f"1 students failed, first cot-0: see {out}/cot-0.log" in errors
    assert "Invalid value for '--n-traces'" in (out / "cot-0.log").read_text()


@pytest.fixture
def warm_at_once(monkeypatch):
    monkeypatch.setattr(speed, "WARMUP_STEPS", 1)


@pytest.mark.usefixtures("warm_at_once")
def test_steps_of_arms_are_timed_side_by_side(teacher, trace_file, by_hand, tmp_path):
    out = tmp_path / "cost.json"
    given = ["--teacher", teacher, "--headset", by_hand, "--traces", trace_file]
    short = "--arms cot,cot+logits,mechanistic --batch-size 2 --n-steps 1 --repeats 2 --no-bf16"
    code, _, errors = call("bench distill", "--out", out, *given, short)
    assert code == 0, errors
    rows = {row["arm"]: row for row in json.loads(out.read_text())["arms"]}
    assert list(rows) == ["cot", "cot+logits", "mechanistic"]
    assert rows["cot+logits"]["ratio"] == 1.0
    for row in rows.values():
        ratio = row["seconds"] / rows["cot+logits"]["seconds"]
        assert row["seconds"] > 0 and row["ratio"] == pytest.approx(ratio)
        assert len(row["rounds"]) == 2 and row["seconds"] == min(row["rounds"])
    code, _, errors = call("bench distill", "--out", tmp_path / "x", *given, "--arms random")
    assert code == 2 and "costs what mechanistic does" in errors


@pytest.mark.usefixtures("warm_at_once")
def test_a_stopped_measurement_keeps_its_rounds(
    teacher, trace_file, by_hand, tmp_path, monkeypatch
):
    timed, times = speed._timed, []

    def stop_in_round_three(*given):
        times.append(timed(*given))
        if len(times) == 5:
            raise KeyboardInterrupt
        return times[-1]

    monkeypatch.setattr(speed, "_timed", stop_in_round_three)
    out = tmp_path / "cost.json"
    given = ["--teacher", teacher, "--headset", by_hand, "--traces", trace_file]
    short = "--arms cot,cot+logits --batch-size 2 --n-steps 1 --repeats 3 --no-bf16"
    code, _, _ = call("bench distill", "--out", out, *given, short)
    assert code != 0
    assert {row["arm"]: row["rounds"] for row in json.loads(out.read_text())["arms"]} == {
        "cot": [times[0][0], times[2][0]],
        "cot+logits": [times[1][0], times[3][0]],
    }
