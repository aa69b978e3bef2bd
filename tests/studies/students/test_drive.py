"""A whole study in one process: rows, teacher, grid, more seeds, and what is not run."""

import json
import math
import random
from pathlib import Path

import pytest

from workbench.errors import InputError
from workbench.prompts.choices import open_task
from workbench.prompts.templates import PlainTemplate
from workbench.studies.students import drive, train, worker
from workbench.studies.students.jobs import Job
from workbench.studies.students.place import SAMPLES, read_results

CHAINS = Job("cot", "", 2, 2, 1e-3, 1.0, 6, 0)
HEADS = {"coarse": [(0, 1), (1, 2)], "refine": [(2, 3)]}


def row(task, number):
    template, prompt = PlainTemplate(), task.draw(str(number), random.Random(number))
    rendered, letters = task.render(prompt, template), prompt.letters
    options = [
        {"span": list(span), "label": letter}
        for span, letter in zip(rendered.options, letters.values(), strict=True)
    ]
    return {
        "prompt": rendered.text.removesuffix(template.answer_cue),
        "chain": template.reason_cue + "".join(f"\n{step}" for step in task.chain(prompt)),
        "answer": f"answer: {' '.join(task.answer(prompt))}",
        "labels": [letters[label] for label in prompt.golds],
        "options": options,
        "evidence": [list(span) for span in rendered.mentions],
        "near_options": [[0 if gold else 1] for gold in map(prompt.candidates.index, prompt.golds)],
        "shortlist": [
            {"span": f"{number + 1} in", "decision": number} for number in range(len(prompt.golds))
        ],
    }


@pytest.fixture
def study(few_labels, make_model, tokenizer, tmp_path, monkeypatch):
    teacher, rows, heads = (tmp_path / name for name in ("teacher", "rows.jsonl", "heads.json"))
    make_model(n_layers=3, context=1024).save_pretrained(teacher)
    tokenizer.save_pretrained(teacher)
    task = open_task("icd10cm", model=teacher, split="seen")
    rows.write_text("".join(json.dumps(row(task, number)) + "\n" for number in range(8)))
    listed = [{"layer": a, "head": b, "pool": pool} for pool in HEADS for a, b in HEADS[pool]]
    heads.write_text(json.dumps({"heads": listed}))
    monkeypatch.setattr(drive, "_start", lambda out, *_: worker.main(out) or [])
    monkeypatch.setitem(train.ACCUMULATION, "cot", 2)
    settings = {
        "teacher": str(teacher),
        "task": "icd10cm",
        "heads": {"own": str(heads)},
        "batch_size": 2,
        "accumulation": 1,
        "evaluations": [1.0],
        "report": 3,
        "select": 2,
        "seen": 1,
        "workers": 0,
        "keep": 0,
    }
    said: list[str] = []

    def run(jobs, until=1e12, rows=rows, **changes):
        given = {"rows": rows, "n_rows": 8, "processes": 1, "devices": 0, "until": until}
        out = tmp_path / "study"
        return drive.run_students(out, jobs, settings | changes, **given, say=said.append)

    return run, tmp_path / "study", said


def test_students_are_trained_asked_and_gone_on_with(study):
    run, out, said = study
    arms = {"circuit": "own", "phases": "own"}
    jobs = [CHAINS, *(Job(arm, heads, 2, 2, 1e-3, 1.0, 6, 0) for arm, heads in arms.items())]
    assert run(jobs) == [], [path.read_text() for path in Path(out / "errors").iterdir()]
    found = {one["job"]["arm"]: one for one in read_results(out)}
    assert set(found) == {"teacher", "cot", *arms}
    one = found["phases"]
    assert [point["step"] for point in one["curve"]] == [2] and one["layers"] == [0, 2]
    last = one["curve"][-1]
    assert len(last["report"]["exact"]) == 3 and len(last["select"]["decisions"]) == 2
    assert ["coarse", 0, 1, 0, 1] in one["headmap"] and ["refine", 2, 3, 1, 3] in one["headmap"]
    assert len(found["circuit"]["circuit"]) == 3
    assert any("loss_p2_write" in step for step in one["loss"])
    assert len(found["teacher"]["seen"]["exact"]) == 1
    assert (out / "models" / CHAINS.name / "config.json").is_file()
    times = {path: path.stat().st_mtime_ns for path in (out / "results").iterdir()}
    assert run(jobs) == [], "and what is finished is left alone"
    assert times == {path: path.stat().st_mtime_ns for path in (out / "results").iterdir()}
    with pytest.raises(InputError, match=r"other settings \(batch_size\)"):
        run(jobs, batch_size=4)
    assert any("rows are samples" in line for line in said)
    (out / SAMPLES).write_bytes(b"\x80\x05]")
    with pytest.raises(InputError, match=f"{SAMPLES}: holds no samples"):
        run(jobs)


def test_what_there_is_no_time_for_is_left_and_failures_are_kept(study, monkeypatch):
    run, out, _ = study
    assert run([CHAINS], until=0.0)[1:] == [CHAINS]
    monkeypatch.setattr(worker, "guess", lambda job, results: -1e12)
    assert run([CHAINS], until=1.0) == [CHAINS], "its time is up when it has begun"
    monkeypatch.setattr(train, "ablation_effects", lambda *_: 1 / 0)
    circuit = Job("circuit", "own", 2, 1, 1e-3, 1.0, 6, 0)
    assert run([circuit]) == [circuit]
    assert "ZeroDivisionError" in (out / "errors" / f"{circuit.name}.txt").read_text()
    monkeypatch.setattr(
        train, "keep_widths", lambda model: model.lm_head.weight.data.fill_(math.nan)
    )
    assert run([CHAINS]) == [CHAINS]
    said = (out / "errors" / f"{CHAINS.name}.txt").read_text()
    assert "no finite numbers" in said and "at step 1" in said


def test_students_guess_how_long_they_take():
    done = {"job": CHAINS.to_json(), "finished": True}
    done |= {"seconds": {"training": 20.0, "asking": 3.0, "making": 1.0}}
    longer = Job("cot", "", 2, 4, 1e-3, 1.0, 6, 1)
    assert worker.guess(longer, [done]) == 44.0
    assert worker.guess(Job("cot", "", 3, 4, 1e-3, 1.0, 6, 1), [done]) == worker.FIRST_GUESS
