"""What a study of students found: tables, figures and a page in Markdown."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from workbench.errors import InputError
from workbench.files import make_folder, write_table, write_text
from workbench.plots.page import write_figure
from workbench.plots.student_curves import student_arms, student_curves
from workbench.studies.students import tables
from workbench.studies.students.asked import REPORT, share_right
from workbench.studies.students.jobs import TEACHER, Job
from workbench.studies.students.place import JOBS, read_results

Results = Sequence[Mapping[str, Any]]
WITHIN = (0.3, 0.95)
"""Accuracies of chains alone at which arms can be told apart."""


def write_page(folder: Path, out: Path) -> str:
    """Tables (CSV), figures (HTML) and page (Markdown) of a study into `out`; the page.

    Raises:
        InputError: no student is finished.
    """
    results = read_results(folder)
    if not any(one["finished"] and one["job"]["arm"] != TEACHER for one in results):
        raise InputError(f"{folder}: no student is finished")
    made = {
        "students": tables.students(results),
        "arms": tables.arms(results),
        "curves": tables.curves(results),
        "grid": tables.grid(results),
    }
    make_folder(out)
    for name, table in made.items():
        write_table(out / f"{name}.csv", table.round(4))
    teacher = teacher_accuracy(results)
    exact = made["curves"].loc[made["curves"]["measure"] == "exact"]
    # A curve for every number of steps would be a bush: that with most students.
    steps, traces = most_done(results)
    over_steps = exact.loc[(exact["steps"] == steps) & (exact["traces"] == traces)]
    write_figure(out / "steps.html", student_curves(over_steps, over="step", teacher=teacher))
    ends = made["arms"]
    ends = ends.loc[
        (ends["against"] == "") & (ends["measure"] == "exact") & (ends["steps"] == steps)
    ]
    here = ends.loc[ends["traces"] == traces]
    write_figure(out / "arms.html", student_arms(here, teacher=teacher))
    several = ends.groupby(["series", "layers"])["traces"].transform("nunique") > 1
    if several.any():
        figure = student_curves(ends.loc[several], over="traces", teacher=teacher)
        write_figure(out / "traces.html", figure)
    text = markdown(results, made, not_run(folder, results))
    write_text(out / "page.md", text)
    return text


def most_done(results: Results) -> tuple[int, int]:
    """Steps and traces that most of the compared students have."""
    places = [(job.steps, job.traces) for job in tables.compared(results)]
    return max(sorted(set(places)), key=places.count)


def teacher_accuracy(results: Results) -> float | None:
    """Share of the prompts that the teacher gets right; None where it was not asked."""
    for one in results:
        if one["finished"] and one["job"]["arm"] == TEACHER:
            return share_right(one["curve"][-1][REPORT]["exact"])
    return None


def not_run(folder: Path, results: Results) -> list[Job]:
    """Students that were last asked for and are not finished."""
    path = folder / JOBS
    if not path.is_file():
        return []
    done = [one["job"] for one in results if one["finished"]]
    asked = json.loads(path.read_text())["jobs"]
    return [Job(**one) for one in asked if one not in done]


def markdown(results: Results, made: Mapping[str, pd.DataFrame], left: Sequence[Job]) -> str:
    """The page, of which only figures are written here."""
    teacher, whole = teacher_accuracy(results), made["students"]
    n = int(whole["n"].to_numpy().max())
    said = "was not asked" if teacher is None else f"has {teacher:.3f}"
    lines = [
        f"The teacher {said} with its own chain: {n} prompts of unseen labels.",
        f"{sum(whole['series'] != TEACHER)} students were trained.",
        "",
    ]
    arms = made["arms"]
    for place, part in arms.loc[arms["measure"] == "exact"].groupby(tables.WHERE, sort=True):
        assert isinstance(place, tuple)
        layers, steps, traces = place
        lines += [f"## {layers} layers, {steps:,} steps, {traces:,} traces", "", *_arms(part), ""]
    steps, traces = most_done(results)
    grid = made["grid"]
    grid = grid.loc[(grid["steps"] == steps) & (grid["traces"] == traces)]
    lines += ["## The grid", "", *_grid(grid), ""]
    if left:
        names = ", ".join(sorted({f"{job.series} (seed {job.seed})" for job in left}))
        lines += ["## Not run", "", f"{len(left)} students that were planned: {names}", ""]
    return "\n".join(lines)


def _arms(part: pd.DataFrame) -> list[str]:
    """A row an arm, the best first."""
    others = [name for name in dict.fromkeys(part["against"]) if name]
    heads = ["arm", "rate, factor", "seeds", "own chains", "left the plateau", "median step"]
    heads += [f"minus {name}" for name in others]
    lines = [_row(heads), _row(["---"] * len(heads))]
    own = part.loc[part["against"] == ""].sort_values("value", ascending=False)
    for one in own.to_dict("records"):
        left = f"{one['n_left']:.0f} of {one['n_seeds']:.0f}"
        left += f" [{one['share_left_low']:.2f}, {one['share_left_high']:.2f}]"
        at = one["median_left_at"]
        cells = [
            f"`{one['series']}`",
            f"{one['rate']:g}, {one['factor']:g}",
            f"{one['n_seeds']:.0f}",
            _value(one),
            left,
            "—" if at != at else f"{at:,.0f}",
        ]
        for name in others:
            rows = part.loc[(part["series"] == one["series"]) & (part["against"] == name)]
            cells.append("" if rows.empty else _value(rows.to_dict("records")[0], sign=True))
        lines.append(_row(cells))
    return lines


def _grid(table: pd.DataFrame) -> list[str]:
    heads = ["arm", "layers, steps", "rate, factor", "to select on", "reported", "chosen"]
    lines = [_row(heads), _row(["---"] * len(heads))]
    for one in table.to_dict("records"):
        cells = [
            f"`{one['series']}`",
            f"{one['layers']}, {one['steps']}",
            f"{one['rate']:g}, {one['factor']:g}",
            f"{one['exact_select']:.3f}",
            f"{one['exact_report']:.3f}",
            "yes" if one["chosen"] else "",
        ]
        lines.append(_row(cells))
    return lines


def _value(one: Mapping[Any, Any], *, sign: bool = False) -> str:
    shown = f"{one['value']:+.3f}" if sign else f"{one['value']:.3f}"
    text = f"{shown} [{one['low']:.3f}, {one['high']:.3f}]"
    return text.replace("-", "−")


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def brief(results: Results) -> list[str]:
    """Lines for a terminal: every student, and at which sizes chains alone can be compared with."""
    whole = tables.students(results)
    shown = ["series", *tables.WHERE, "rate", "factor", "seed", "exact", "decisions"]
    shown += ["exact_select", "exact_seen", "left_plateau_at", "step_ms", "peak_gib"]
    lines = whole[shown].round(4).to_string(index=False).split("\n")
    low, high = WITHIN
    within = whole["exact"].between(low, high)
    alone = whole.loc[(whole["series"] == "cot") & within]
    for one in alone.to_dict("records"):
        lines.append(
            f"chains alone can be compared with: {one['layers']} layers, {one['steps']} steps, "
            f"rate {one['rate']:g}: {one['exact']:.3f}"
        )
    return lines
