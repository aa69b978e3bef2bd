import json
import sys
from collections import Counter

import pytest

from workbench.bench.distill import equal_compute, read_costs
from workbench.distill.arms import ON_TRACES
from workbench.errors import InputError
from workbench.studies import distillation as study
from workbench.studies.distillation import Planned, plan, run_study


def test_a_plan_has_every_arm_of_traces_with_its_seeds():
    students = plan(steps=100, costs={"cot": 2.0, "hidden": 4.9, "minilm": 6.0, "mechanistic": 5.0})
    counts = Counter(student.arm for student in students if student.steps == 100)
    assert set(counts) == set(ON_TRACES)
    assert {arm for arm, n in counts.items() if n == 5} == {"cot", "mechanistic", "random"}
    assert set(counts.values()) == {3, 5}
    longer = {student.name: student.steps for student in students if student.steps != 100}
    cheaper = {f"cot-compute-{seed}": 250 for seed in range(5)}
    assert longer == cheaper | {f"hidden-compute-{seed}": 110 for seed in range(3)}
    assert [student.seed for student in students] == sorted(student.seed for student in students)
    assert len({student.name for student in students}) == len(students)


@pytest.mark.parametrize(
    "wrong", [{"arms": ["none"]}, {"arms": ["cot", "cot"]}, {"seeds": 0}, {"costs": {"cot": 1.0}}]
)
def test_plans_that_make_no_sense_are_refused(wrong):
    with pytest.raises(InputError):
        plan(**{"steps": 10, **wrong})


def test_equal_compute_is_rounded_up_and_never_the_same_steps():
    assert equal_compute({"cot": 17.0, "mechanistic": 39.9}, 2400) == {"cot": 5760}
    assert equal_compute({"hidden": 4.9, "mechanistic": 5.0}, 4) == {"hidden": 5}
    assert equal_compute({"minilm": 6.0, "mechanistic": 5.0}, 4) == {}


def test_costs_come_from_the_benchmark_and_nothing_else(tmp_path):
    path = tmp_path / "cost.json"
    path.write_text('{"device": "cpu", "arms": [{"arm": "cot", "seconds": 0.5, "ratio": 1}]}')
    assert read_costs(path) == {"cot": 0.5}
    for text, reason in (
        (
            '{"arms": [{"arm": "cot", "seconds": 0}]}',
            r"arms\[0\]\.seconds: input should be greater",
        ),
        ('{"layers": 3}', "is no benchmark of training steps, arms: key is missing"),
        ("steps", "is no benchmark of training steps"),
    ):
        path.write_text(text)
        with pytest.raises(InputError, match=reason):
            read_costs(path)
    with pytest.raises(InputError, match=r"none\.json: cannot be read, No such file"):
        read_costs(tmp_path / "none.json")


def test_a_student_is_trained_by_the_command_that_trains_one(tmp_path):
    command = Planned("random-3", "random", 3, 70).command(tmp_path, ["--batch-size", "8"])
    assert command[1:4] == ["-m", "workbench", "distill"]
    flags = dict(zip(command[4::2], command[5::2], strict=True))
    assert flags == {
        "--out": str(tmp_path / "random-3"),
        "--arm": "random",
        "--seed": "3",
        "--steps": "70",
        "--batch-size": "8",
    }


@pytest.fixture
def stand_in(monkeypatch):
    """In place of training: writes the record, or fails for seed 1; says which device it had."""
    program = (
        "import os, pathlib, sys; out, seed, record = pathlib.Path(sys.argv[1]), *sys.argv[2:];"
        "print('device', os.environ.get('DEVICE'), flush=True);"
        "seed == '1' and sys.exit('no room');"
        "out.mkdir(); (out / 'training.json').write_text(record)"
    )

    def command(self, out, options):
        record = json.dumps({"config": {"steps": self.steps}})
        return [sys.executable, "-c", program, str(out / self.name), str(self.seed), record]

    monkeypatch.setattr(study.Planned, "command", command)


def test_students_run_side_by_side_and_finished_ones_are_left_alone(stand_in, tmp_path):
    students = plan(["cot", "minilm"], steps=10, seeds=3, main_seeds=3)
    told = []
    failed = run_study(
        tmp_path,
        students,
        [],
        jobs=2,
        environments=[{"DEVICE": "0"}, {"DEVICE": "1"}],
        progress=lambda done, of: told.append((done, of)),
    )
    assert failed == ["cot-1", "minilm-1"]
    assert told[-1] == (6, 6) and len(told) <= 6
    logs = [path.read_text() for path in sorted(tmp_path.glob("*.log"))]
    assert len(logs) == 6 and {log.split()[1] for log in logs} == {"0", "1"}
    assert (tmp_path / "cot-1.log").read_text().endswith("no room\n")
    before = (tmp_path / "cot-0" / "training.json").stat().st_mtime_ns
    run_study(tmp_path, students, [], jobs=1, environments=[{"DEVICE": "2"}])
    assert (tmp_path / "cot-0" / "training.json").stat().st_mtime_ns == before
    assert (tmp_path / "cot-0.log").read_text().count("device") == 1
    assert (tmp_path / "cot-1.log").read_text().count("device") == 2


def test_a_folder_goes_on_with_the_flags_and_steps_it_began_with(stand_in, tmp_path):
    out, headset = tmp_path / "study", tmp_path / "heads.json"
    flags = ["--headset", str(headset), "--direct", "0.3"]
    assert run_study(out, plan(["cot"], steps=10, main_seeds=2)[1:], ["--direct", "3"]) == ["cot-1"]
    headset.write_text("{}")
    assert run_study(out, plan(["minilm"], steps=10, seeds=1), flags) == []
    same = ["--direct=0.3", "--workers", "4", f"--headset={headset}"]
    assert run_study(out, plan(["hidden"], steps=10, seeds=1), same) == []
    with pytest.raises(InputError, match=r"holds a study with other settings \(flags.--direct\)"):
        run_study(out, plan(["minilm"], steps=10, seeds=1), flags[:2])
    with pytest.raises(InputError, match=r"minilm-0/training\.json: is of 10 steps, not of 20"):
        run_study(out, plan(["minilm"], steps=20, seeds=1), flags)
    headset.write_text('{"heads": []}')
    with pytest.raises(InputError, match=r"other settings \(flags.--headset\)"):
        run_study(out, plan(["circuit"], steps=10, seeds=1), flags)
    headset.write_text("{}")
    (out / "minilm-0" / "training.json").write_text("[]")
    with pytest.raises(InputError, match="is not the record of a student"):
        run_study(out, plan(["minilm"], steps=10, seeds=1), flags)
