import json
import random
from dataclasses import replace

import pytest

from workbench.errors import InputError
from workbench.studies.students import tables
from workbench.studies.students.jobs import TEACHER, Job
from workbench.studies.students.page import brief, write_page

CHAINS = Job("cot", "", 10, 300, 1e-3, 1.0, 8000, 0)
PHASES = Job("phases", "paper", 10, 300, 1e-3, 1.0, 8000, 0)
N = 40


def marks(right):
    order = random.Random(0).sample(range(N), N)
    return {
        "exact": "".join(str(int(place < right)) for place in order),
        "decisions": "".join("6" if place < right else "3" for place in order),
    }


def result(job, *shares, finished=True, select=None):
    steps = [0] if job.arm == TEACHER else [150, 300]
    return {
        "job": job.to_json(),
        "finished": finished,
        "seconds": {"training": 30.0},
        "seen": marks(round(N * shares[-1])),
        "curve": [
            {
                "step": step,
                "report": marks(round(N * share)),
                "select": marks(round(N * (share if select is None else select))),
            }
            for step, share in zip(steps, shares, strict=True)
        ],
    }


@pytest.fixture
def results():
    found = [result(Job(TEACHER, "", 30, 0, 0.0, 1.0, 0, 0), 1.0)]
    for seed, (alone, full) in enumerate([(0.1, 0.9), (0.6, 0.8), (0.2, 0.85)]):
        found.append(result(replace(CHAINS, seed=seed), 0.0, alone))
        found.append(result(replace(PHASES, seed=seed), 0.55, full))
    found.append(result(replace(PHASES, factor=3.0), 0.0, 1.0, select=0.1))
    found.append(result(replace(PHASES, traces=500), 0.0, 0.3))
    return found


def test_arms_are_compared_with_intervals_and_by_who_left_the_plateau(results):
    table = tables.arms(results).set_index(["series", "traces", "against", "measure"])
    full = table.loc["phases@paper", 8000, "", "exact"]
    assert full["value"] == pytest.approx(0.85) and full["n_seeds"] == 3 and full["factor"] == 1
    assert full["low"] < full["value"] < full["high"]
    assert (full["n_left"], full["median_left_at"]) == (3, 150)
    alone = table.loc["cot", 8000, "", "exact"]
    assert alone["n_left"] == 1 and alone["share_left"] == pytest.approx(1 / 3)
    assert alone["median_left_at"] != alone["median_left_at"], "fewer than half left it"
    assert table.loc["phases@paper", 8000, "cot", "exact"]["value"] == pytest.approx(0.55)
    assert table.loc["phases@paper", 8000, "", "decisions"]["value"] == pytest.approx(5.55)


def test_who_was_asked_at_the_end_alone_says_nothing_about_when_it_left_the_plateau(results):
    for one in results:
        if one["job"]["arm"] == "phases":
            one["curve"] = one["curve"] if one["job"]["seed"] == 1 else one["curve"][-1:]
    full = tables.arms(results).set_index(["series", "traces", "against", "measure"])
    full = full.loc["phases@paper", 8000, "", "exact"]
    assert (full["n_seeds"], full["n_left"], full["median_left_at"]) == (3, 3, 150)


def test_arms_are_compared_with_chains_and_with_logits(results):
    logits = replace(CHAINS, arm="cot+logits")
    results += [result(replace(logits, seed=seed), 0.0, 0.7) for seed in range(3)]
    table = tables.arms(results).set_index(["series", "traces", "against", "measure"])
    for against, more in (("cot", 0.55), ("cot+logits", 0.15)):
        row = table.loc["phases@paper", 8000, against, "exact"]
        assert row["value"] == pytest.approx(more) and row["low"] <= more <= row["high"]


def test_only_students_with_the_setting_of_their_arm_are_compared(results):
    kept = tables.compared(results)
    assert replace(PHASES, factor=3.0) not in kept and replace(PHASES, traces=500) in kept
    lone = [result(PHASES, 0.0, 0.1), result(replace(PHASES, rate=3e-4), 0.0, 0.9)]
    assert tables.compared(lone) == {replace(PHASES, rate=3e-4)}, "the best to select on"
    grid = tables.grid(results)
    assert grid.loc[grid["chosen"], "factor"].tolist() == [1.0, 1.0, 1.0]
    steps = tables.curves(results)
    steps = steps[(steps["series"] == "cot") & (steps["measure"] == "exact")]
    assert steps["step"].tolist() == [150, 300] and steps["value"].tolist()[0] == 0


def test_the_page_says_what_was_not_run(results, tmp_path):
    (tmp_path / "results").mkdir()
    left = replace(CHAINS, seed=3)
    results.append(result(left, 0.0, 0.5, finished=False))
    for number, one in enumerate(results):
        (tmp_path / "results" / f"{number}.json").write_text(json.dumps(one))
    asked = {"until": 0, "jobs": [one["job"] for one in results]}
    (tmp_path / "jobs.json").write_text(json.dumps(asked))
    text = write_page(tmp_path, tmp_path / "page")
    assert "cot (seed 3)" in text and "| `phases@paper` | 0.001, 1 | 3 | 0.850 [" in text
    names = {path.name for path in (tmp_path / "page").iterdir()}
    assert names == {
        *("students.csv", "arms.csv", "curves.csv", "grid.csv"),
        *("arms.html", "steps.html", "traces.html", "page.md"),
    }
    said = brief(results)
    assert "chains alone can be compared with: 10 layers, 300 steps, rate 0.001: 0.600" in said
    with pytest.raises(InputError, match="no student is finished"):
        write_page(tmp_path / "other", tmp_path)
    (tmp_path / "results" / "bad.json").write_text("{}")
    with pytest.raises(InputError, match="holds no results of a student"):
        write_page(tmp_path, tmp_path)
