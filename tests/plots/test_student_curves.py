"""Figures of students: which arms are drawn, in which order, with which intervals."""

import pandas as pd
import pytest

from workbench.plots.student_curves import WIDEST, student_arms, student_curves


def ends(n):
    """Arms a00, a01, …: each better than the one before, with more seeds."""
    return pd.DataFrame(
        {
            "series": [f"a{at:02d}" for at in range(n)],
            "value": [(at + 1) / (n + 2) for at in range(n)],
            "n_seeds": [float(at + 1) for at in range(n)],
        }
    ).assign(low=lambda rows: rows["value"] - 0.03, high=lambda rows: rows["value"] + 0.05)


def over_steps(n):
    places = {"layers": 15, "steps": 300, "traces": 8000}
    two = [ends(n).assign(step=step, **places) for step in (150, 300)]
    alone = ends(n + 1).tail(1).assign(step=300, **places)  # most seeds, and makes no line
    return pd.concat([*two, alone])


def test_of_many_arms_lines_are_of_those_with_most_seeds():
    figure = student_curves(over_steps(WIDEST + 3), over="step")
    assert {trace.name for trace in figure.data if trace.name} == {
        f"a{at:02d}" for at in range(3, WIDEST + 3)
    }
    few = student_curves(over_steps(WIDEST - 1), over="step")
    assert len({trace.name for trace in few.data if trace.name}) == WIDEST
    ends_alone = ends(WIDEST + 1).assign(layers=15, steps=300, traces=8000, step=300)
    assert not student_curves(ends_alone, over="step").data, "many arms asked only at the end"


def test_arms_are_rows_with_their_intervals_and_seeds():
    figure = student_arms(ends(4).sample(frac=1, random_state=0), teacher=0.9)
    (marks,) = figure.data
    assert list(marks.y) == ["a00 (1)", "a01 (2)", "a02 (3)", "a03 (4)"], "the best above"
    assert list(marks.error_x["array"]) == pytest.approx([0.05] * 4)
    assert list(marks.error_x["arrayminus"]) == pytest.approx([0.03] * 4)
    assert figure.layout.shapes[0].x0 == 0.9
    assert not student_arms(ends(0)).data
