"""Tables of a study of students: per student, per arm with intervals, over steps and over traces.

Only students with the settings of their arm are compared: those with which most of its seeds were
trained, of equals the best on the prompts to select on. Shares of students that leave the plateau
stand beside means, since arms may have two humps.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
from scipy.stats import binomtest

from workbench.distill.evaluation.statistics import Drawn, draw, over_seeds, per_student
from workbench.studies.students.asked import REPORT, SELECT, share_right
from workbench.studies.students.jobs import TEACHER, Job, best_settings

LEFT = 0.5
"""A student has left the plateau when it has this share of the teacher's accuracy."""
N_RESAMPLES = 2000
AGAINST = ("cot", "cot+logits", "phases", "phases-gold")
"""Arms that the others are compared with, seed by seed and prompt by prompt."""
Results = Sequence[Mapping[str, Any]]
WHERE = ["layers", "steps", "traces"]


def students(results: Results) -> pd.DataFrame:
    """A row for every student: settings, accuracy with intervals over prompts, times."""
    intervals = {
        one["student"]: one
        for one in per_student(_drawn(results)).to_dict("records")
        if one["measure"] == "exact"
    }
    rows, kept, threshold = [], compared(results), _threshold(results)
    for one in _finished(results):
        job, last = Job(**one["job"]), one["curve"][-1]
        found, seconds = intervals[job.name], one["seconds"]
        rows.append(
            {
                "series": job.series,
                **{name: getattr(job, name) for name in (*WHERE, "rate", "factor", "seed")},
                "exact": found["value"],
                "low": found["low"],
                "high": found["high"],
                "n": found["n"],
                "decisions": share_right(last[REPORT]["decisions"]),
                "exact_select": share_right(last[SELECT]["exact"]),
                "exact_seen": share_right(one["seen"]["exact"]),
                "left_plateau_at": _left_at(one, threshold),
                "seconds_training": seconds.get("training"),
                "step_ms": 1000 * seconds["training"] / job.steps if job.steps else None,
                "peak_gib": one.get("peak_gib"),
                "compared": job in kept or job.arm == TEACHER,
            }
        )
    return pd.DataFrame(rows).sort_values(by=[*WHERE, "series", "rate", "factor", "seed"])


def arms(results: Results) -> pd.DataFrame:
    """A row for every arm, place (layers, steps, traces) and arm that it is compared with.

    Columns series, layers, steps, traces, rate, factor, against ("" for the arm itself), measure
    (exact, decisions), value, low, high (over seeds and prompts), n_seeds; of the arm itself also
    n_left, share_left with ends (Wilson), and median_left_at: the first step asked at which it had
    left the plateau, of the students that were asked on the way; NaN where fewer than half did.
    """
    found = over_seeds(_drawn(_ends(results)), against=_against(results))
    plateau = _plateau(results)
    settings = {(job.series, *_place(job)): (job.rate, job.factor) for job in compared(results)}
    rows = []
    for one in found.to_dict("records"):
        layers, steps, traces = map(int, one["setting"].split())
        place = layers, steps, traces
        rate, factor = settings[one["arm"], layers, steps, traces]
        row = {"series": one["arm"], **dict(zip(WHERE, place, strict=True))}
        row |= {"rate": rate, "factor": factor}
        row |= {name: one[name] for name in ("against", "measure", "value", "low", "high")}
        row["n_seeds"] = one["n_seeds"]
        if not one["against"] and one["measure"] == "exact":
            row |= plateau[one["arm"], place]
        rows.append(row)
    order = ["measure", *WHERE, "against", "value"]
    table = pd.DataFrame(rows)
    return table.sort_values(by=order, ascending=[False, True, True, True, True, False])


def curves(results: Results) -> pd.DataFrame:
    """Columns series, layers, steps, traces, step, measure, value, low, high, n_seeds."""
    frames = []
    kept = compared(results)
    chosen = [one for one in _finished(results) if Job(**one["job"]) in kept]
    for at in sorted({len(one["curve"]) for one in chosen}):
        same = [one for one in chosen if len(one["curve"]) == at]
        frames += [_answers(one, place) for one in same for place in range(at)]
    if not frames:
        return pd.DataFrame(columns=["series", *WHERE, "step", "measure", "value", "low", "high"])
    found = over_seeds(draw(pd.concat(frames), n_resamples=N_RESAMPLES), against=())
    parts = found["setting"].str.split(expand=True).astype(int)
    parts.columns = [*WHERE, "step"]
    table = pd.concat([found.rename(columns={"arm": "series"}), parts], axis=1)
    columns = ["series", *WHERE, "step", "measure", "value", "low", "high", "n_seeds"]
    return table.loc[:, columns].sort_values(by=columns[:6])


def grid(results: Results) -> pd.DataFrame:
    """Every setting tried with seed 0, on both sets of prompts, and whether it was chosen."""
    best = best_settings(results)
    rows = [
        {
            "series": job.series,
            **{name: getattr(job, name) for name in (*WHERE, "rate", "factor")},
            "exact_select": share_right(one["curve"][-1][SELECT]["exact"]),
            "exact_report": share_right(one["curve"][-1][REPORT]["exact"]),
            "chosen": best.get((job.series, job.layers)) == (job.rate, job.factor),
        }
        for one in _finished(results)
        if (job := Job(**one["job"])).seed == 0 and job.arm != TEACHER
    ]
    return pd.DataFrame(rows).sort_values(by=[*WHERE, "series", "rate", "factor"])


def compared(results: Results) -> set[Job]:
    """Students with the settings of their arm at their place."""
    jobs = [Job(**one["job"]) for one in _finished(results)]
    best = best_settings(results)
    counts: Counter[tuple[Any, ...]] = Counter(
        (job.series, *_place(job), job.rate, job.factor) for job in jobs
    )
    chosen: dict[tuple[Any, ...], tuple[float, float]] = {}
    for key, n in counts.items():
        arm, setting = key[:4], key[4:]
        theirs = chosen.get(arm)
        n_theirs = counts[*arm, *theirs] if theirs else 0
        if n > n_theirs or (n == n_theirs and best.get((key[0], key[1])) == setting):
            chosen[arm] = setting
    return {
        job
        for job in jobs
        if job.arm != TEACHER and chosen[job.series, *_place(job)] == (job.rate, job.factor)
    }


def _finished(results: Results) -> list[Mapping[str, Any]]:
    return [one for one in results if one["finished"]]


def _ends(results: Results) -> list[Mapping[str, Any]]:
    kept = compared(results)
    return [one for one in _finished(results) if Job(**one["job"]) in kept]


def _place(job: Job) -> tuple[int, int, int]:
    return job.layers, job.steps, job.traces


def _drawn(results: Results) -> list[Drawn]:
    frames = [_answers(one) for one in _finished(results)]
    return draw(pd.concat(frames), n_resamples=N_RESAMPLES) if frames else []


def _answers(one: Mapping[str, Any], at: int | None = None) -> pd.DataFrame:
    """A row for every prompt, in the form of an evaluation's tables."""
    job, point = Job(**one["job"]), one["curve"][-1 if at is None else at]
    marks, step = point[REPORT], "" if at is None else f" {point['step']}"
    return pd.DataFrame(
        {
            "student": job.name,
            "arm": job.series,
            "seed": job.seed,
            "setting": f"{job.layers} {job.steps} {job.traces}{step}",
            "id": range(len(marks["exact"])),
            "event": 0,
            "exact": list(map(float, marks["exact"])),
            "decisions": list(map(float, marks["decisions"])),
        }
    )


def _against(results: Results) -> list[str]:
    """Of each arm of `AGAINST` the head set with most students."""
    counts = Counter(job.series for job in compared(results))
    found = []
    for arm in AGAINST:
        theirs = [series for series in sorted(counts) if series.partition("@")[0] == arm]
        found += [max(theirs, key=lambda series: counts[series])] if theirs else []
    return found


def _plateau(results: Results) -> dict[tuple[str, tuple[int, int, int]], dict[str, Any]]:
    threshold = _threshold(results)
    groups: dict[tuple[str, tuple[int, int, int]], list[tuple[float, bool]]] = {}
    for one in _ends(results):
        job, followed = Job(**one["job"]), len(one["curve"]) > 1
        at = _left_at(one, threshold)
        groups.setdefault((job.series, _place(job)), []).append((at, followed))
    found = {}
    for key, students in groups.items():
        n_left = sum(step == step for step, _ in students)
        ends = binomtest(n_left, len(students)).proportion_ci(method="wilson")
        ordered = sorted(
            step if step == step else float("inf") for step, followed in students if followed
        )
        median = ordered[(len(ordered) - 1) // 2] if ordered else float("nan")
        found[key] = {
            "n_left": n_left,
            "share_left": n_left / len(students),
            "share_left_low": float(ends.low),
            "share_left_high": float(ends.high),
            "median_left_at": median if median < float("inf") else float("nan"),
        }
    return found


def _threshold(results: Results) -> float:
    """Half of the teacher's accuracy; of a perfect one's where it was not asked."""
    for one in _finished(results):
        if one["job"]["arm"] == TEACHER:
            return LEFT * share_right(one["curve"][-1][REPORT]["exact"])
    return LEFT


def _left_at(one: Mapping[str, Any], threshold: float) -> float:
    """The first step asked at which a student was off the plateau; NaN for none."""
    for point in one["curve"]:
        if share_right(point[REPORT]["exact"]) >= threshold:
            return float(point["step"])
    return float("nan")
