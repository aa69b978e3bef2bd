"""Figures of students beside their teacher, from the tables of `workbench evaluate-students`."""

from collections.abc import Sequence
from itertools import product

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from workbench.measures import BOUNDED
from workbench.phases import PHASES
from workbench.plots.panels import error_bars, finish, line, points
from workbench.plots.style import CONTROL, INK, drawn, nothing, require, titles, where

TEACHER = "teacher"
MAIN_COLOURS = {"mechanistic": "#0b7a75", "cot": CONTROL, "random": "#c98a00"}
OTHER_COLOURS = (
    *("#252a31", "#b23a48", "#3465a4", "#7a8b2e", "#d55e00"),
    *("#7b3fa0", "#8c5a3c", "#4fa3c7", "#e377a2", "#5b6470"),
    *("#1b5e20", "#f4a261", "#2a1a5e", "#9c1f6b", "#a3b18a"),
    *("#00a896", "#6d2e46", "#f28482", "#577590", "#c0ca33"),
)

WHO = ["student", "arm", "seed"]
MEASURED = [*WHO, "setting", "measure", "value", "low", "high"]
OVER_SEEDS = ["of", "arm", "against", "setting", "measure", "value", "low", "high", "n_seeds"]
READOUTS = [*WHO, "step", "accuracy"]

ACCURACY = (("direct", "exact", "answered at once"), ("chain", "exact", "with its own chain"))
DISTANCES = tuple(
    (f"{chain}_chain", phase.readout, f"{phase.readout_title}, {words} chain")
    for chain, words in (("teacher", "teacher's"), ("own", "own"))
    for phase in PHASES.values()
)
EFFECTS = tuple(
    (measure.pool, name, f"{measure.pool} heads, {measure.title}")
    for name, measure in BOUNDED.items()
    if measure.scale
)
"""Setting, measure and title of each panel."""


def arm_colours(arms: Sequence[str]) -> dict[str, str]:
    """A colour for each arm, the same for the main arms whatever stands beside them.

    An arm that was also trained for other steps ("arm@steps") keeps its colour there; it is told
    apart by open marks and dotted lines.
    """
    bases = dict.fromkeys(arm.partition("@")[0] for arm in arms)
    others = [base for base in bases if base not in MAIN_COLOURS]
    given = {base: OTHER_COLOURS[i % len(OTHER_COLOURS)] for i, base in enumerate(others)}
    colours = given | MAIN_COLOURS
    return {arm: colours[arm.partition("@")[0]] for arm in arms}


def arm_order(seeds: pd.DataFrame) -> list[str]:
    """Arms that were evaluated, in the order of the table."""
    return list(where(seeds, of="metrics")["arm"].unique())


@drawn
def training_curves(readouts: pd.DataFrame, speed: pd.DataFrame | None = None) -> go.Figure:
    """Direct accuracy on unseen labels while students train: a thin line each, a thick one an arm.

    Columns: `READOUTS`. Where seeds of an arm have the same steps their mean is the thick line.
    With `speed`, a dashed line at the accuracy that counts as the teacher's (its `level`).

    Raises:
        InputError: a column is missing.
    """
    title = "Direct accuracy while students train"
    if readouts.empty:
        return nothing(title, "no student was read out while it trained")
    require(readouts, READOUTS)
    figure = go.Figure()
    for arm, colour in arm_colours(list(readouts["arm"].unique())).items():
        rows = where(readouts, arm=arm)
        dash = "dot" if "@" in arm else "solid"
        thin = {"color": colour, "width": 1, "dash": dash}
        for name, one in rows.sort_values("step").groupby("student"):
            hover = f"{name}<br>step %{{x:,}}: %{{y:.2f}}"
            trace = line(one, "step", "accuracy", "", colour, hover, mode="lines", line=thin)
            figure.add_trace(trace.update(opacity=0.4, showlegend=False, name=None))
        mean = rows.groupby("step", as_index=False).agg(accuracy=("accuracy", "mean"))
        name, hover = f"{arm} ({rows['student'].nunique()})", f"{arm}, mean<br>step %{{x:,}}: "
        trace = line(mean, "step", "accuracy", name, colour, hover + "%{y:.2f}", mode="lines")
        figure.add_trace(trace.update(line={"width": 3, "dash": dash}))
    if speed is not None and len(speed):
        level = float(speed["level"].iloc[0])
        figure.add_hline(
            y=level,
            line={"color": INK, "dash": "dash", "width": 1},
            annotation_text="90 % of the teacher",
            annotation_position="top left",
        )
    subtitle = "fixed prompts of unseen labels; thin: one student, thick: mean of an arm (students)"
    figure.update_layout(**titles(title, subtitle), height=_height(440, readouts))
    figure.update_xaxes(title_text="training step", rangemode="tozero")
    return figure.update_yaxes(title_text="decisions right", range=[-0.02, 1.02])


@drawn
def student_accuracy(metrics: pd.DataFrame, seeds: pd.DataFrame) -> go.Figure:
    """Share of prompts whose whole set of labels is right, by arm: students, and their mean.

    Columns: `MEASURED` and `OVER_SEEDS`. Small points are students with 95 % over prompts, diamonds
    the mean over seeds with 95 % over seeds and prompts; the dotted line is the teacher.

    Raises:
        InputError: a column is missing.
    """
    figure = _panels("Labels all right, free answers", metrics, seeds, "metrics", ACCURACY)
    return figure.update_yaxes(range=[-0.03, 1.03])


@drawn
def student_distances(trajectories: pd.DataFrame, seeds: pd.DataFrame) -> go.Figure:
    """How far students' Focus and Confusion along chains of thought are from the teacher's.

    Mean absolute distance; see `student_accuracy` for columns and marks.
    """
    title = "Distance of the trajectories to the teacher's"
    return _panels(title, trajectories, seeds, "trajectories", DISTANCES)


@drawn
def student_effects(causal: pd.DataFrame, seeds: pd.DataFrame) -> go.Figure:
    """What patching the students' supervised heads does, beside the teacher's own heads.

    Arms that were taught with no heads are patched where `mechanistic` students have theirs. See
    `student_accuracy` for columns and marks.
    """
    return _panels("Patching the supervised heads", causal, seeds, "causal", EFFECTS)


@drawn
def student_differences(seeds: pd.DataFrame, measure: str = "exact") -> go.Figure:
    """Each arm minus chains alone, and minus the full objective, on the same seeds and prompts.

    Columns: `OVER_SEEDS`. 95 % over seeds and prompts; the dotted line is no difference.

    Raises:
        InputError: a column is missing.
    """
    title = "Differences between arms"
    require(seeds, OVER_SEEDS)
    rows = pd.DataFrame(where(seeds, of="metrics", measure=measure))
    rows = pd.DataFrame(rows[rows["against"].fillna("") != ""])
    if rows.empty:
        return nothing(title, "no two arms have a seed in common")
    arms = list(dict.fromkeys(rows["arm"]))
    bases = [arm for arm in arm_order(seeds) if arm in set(rows["against"])]
    figure = make_subplots(
        rows=len(bases),
        cols=len(ACCURACY),
        shared_yaxes=True,
        horizontal_spacing=0.04,
        vertical_spacing=0.17,
        subplot_titles=[f"minus {base},<br>{words}" for base in bases for *_, words in ACCURACY],
    )
    colours = arm_colours(arm_order(seeds))
    for panel, (base, (setting, *_)) in enumerate(product(bases, ACCURACY)):
        row, column = divmod(panel, len(ACCURACY))
        shown = where(rows, against=base, setting=setting)
        marker = {
            "color": [colours[arm] for arm in shown["arm"]],
            "symbol": [_open("circle", arm) for arm in shown["arm"]],
            "size": 9,
        }
        hover = "%{y}: %{x:.3f}<br>%{customdata} seeds"
        trace = points(shown["value"], shown["arm"], hover, marker, customdata=shown["n_seeds"])
        trace.update(error_x=error_bars(*_ends(shown), width=0), showlegend=False)
        figure.add_trace(trace, row=row + 1, col=column + 1)
        _dotted(figure, panel, across="y", x0=0, x1=0, y0=0, y1=1)
    height = 170 + len(bases) * (50 + 24 * len(arms))
    subtitle = "labels all right; 95 % over seeds and prompts"
    finish(figure, title, subtitle, height=height, margin_b=64)
    figure.update_xaxes(nticks=6, tickangle=0)
    return figure.update_yaxes(autorange="reversed", col=1)


def _panels(
    title: str,
    table: pd.DataFrame,
    seeds: pd.DataFrame,
    of: str,
    panels: Sequence[tuple[str, str, str]],
) -> go.Figure:
    if table.empty:
        return nothing(title, "nothing was measured")
    require(table, MEASURED)
    require(seeds, OVER_SEEDS)
    means = where(seeds, of=of)
    means = pd.DataFrame(means[means["against"].fillna("") == ""])
    students = pd.DataFrame(table[table["arm"] != TEACHER])
    colours = arm_colours(list(students["arm"].unique()))
    figure = make_subplots(
        rows=1,
        cols=len(panels),
        subplot_titles=[words.replace(", ", ",<br>") for *_, words in panels],
        horizontal_spacing=0.05,
    )
    for column, (setting, measure, _) in enumerate(panels, start=1):
        for place, (arm, colour) in enumerate(colours.items()):
            own = where(students, arm=arm, setting=setting, measure=measure).sort_values("seed")
            mean = where(means, arm=arm, setting=setting, measure=measure)
            spread = np.linspace(-0.22, 0.22, len(own)) if len(own) > 1 else np.zeros(len(own))
            small = {"color": colour, "size": 5, "symbol": _open("circle", arm)}
            single = points(place + spread, own["value"], "%{text}: %{y:.3f}", small)
            single.update(error_y=error_bars(*_ends(own), width=0, thickness=1))
            single.update(text=own["student"], opacity=0.6, showlegend=False)
            large = {"color": colour, "size": 12, "symbol": _open("diamond", arm)}
            hover = f"{arm}, mean over seeds: %{{y:.3f}}"
            over = points([place] * len(mean), mean["value"], hover, large, name=arm)
            over.update(error_y=error_bars(*_ends(mean), width=0), marker_line_color="white")
            figure.add_traces([single, over], rows=1, cols=column)
        # After the points: lines go to panels that hold something.
        for teacher in where(table, arm=TEACHER, setting=setting, measure=measure)["value"]:
            _dotted(figure, column - 1, across="x", y0=teacher, y1=teacher, x0=0, x1=1)
    subtitle = (
        "points: students, 95 % over prompts; diamonds: means, 95 % over seeds; dotted: teacher"
    )
    # No ticks below the panels.
    finish(figure, title, subtitle, height=_height(420, students), margin_b=64)
    figure.update_xaxes(showticklabels=False, ticks="", range=[-0.6, len(colours) - 0.4])
    return figure.update_yaxes(rangemode="tozero")


def _height(plain: int, table: pd.DataFrame) -> int:
    """Pixels of a figure whose legend names the arms below it: more than six take room."""
    return plain + 12 * max(0, len(table["arm"].unique()) - 6)


def _open(symbol: str, arm: str) -> str:
    """The mark of an arm: open where it was trained for other steps than its fellows."""
    return f"{symbol}-open" if "@" in arm else symbol


def _dotted(figure: go.Figure, panel: int, across: str, **ends: float | int) -> None:
    """A dotted line over the whole of a panel, counted from 0, along one axis."""
    axes = {f"{axis}ref": f"{axis}{panel + 1 if panel else ''}" for axis in "xy"}
    axes[f"{across}ref"] += " domain"
    look = {"color": INK, "dash": "dot", "width": 1.5}
    figure.add_shape(type="line", line=look, **axes, **ends)


def _ends(rows: pd.DataFrame) -> list[pd.Series]:
    """Values with the ends of their intervals."""
    return [pd.Series(rows[name]) for name in ("value", "low", "high")]
