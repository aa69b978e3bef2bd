"""Students beside their teacher as one HTML file, from the tables of an evaluation."""

import math
from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from workbench.errors import InputError
from workbench.plots import students
from workbench.plots.page import card, write_page
from workbench.plots.style import where

WITHOUT = "mechanistic-"
"""Begins the name of an arm that is the full objective without the term named after it."""

TABLES = ("metrics", "trajectories", "causal", "readouts", "speed", "seeds")

NOTES = {
    "accuracy": (
        "How often a student writes exactly the right labels, on prompts of labels that no student "
        "and no teacher was trained on. mechanistic-X is the full objective without X.",
        "One task, one teacher, one size of students.",
    ),
    "differences": (
        "What an arm gains over chains alone, and what it lacks to the full objective, seed by "
        "seed on the same prompts.",
        "Few seeds: the interval over three is wide by its nature.",
    ),
    "curves": (
        "When students leave the plateau on which they guess.",
        "Measured on 64 prompts, by the likeliest next token and not by free generation.",
    ),
    "distances": (
        "Whether a student gathers probability and settles near misses where the teacher does.",
        "A teacher that is sure from the start has a flat trajectory: then this says how sure a "
        "student is, and little about when.",
    ),
    "effects": (
        "Whether the heads that were supervised carry in the student what they carry in the "
        "teacher.",
        "Undefined for students that do not do the task: they have no valid pair.",
    ),
}


def read_tables(folder: str | Path) -> dict[str, pd.DataFrame]:
    """The tables of an evaluation: `TABLES`, as CSV files in a folder.

    Raises:
        InputError: one is missing or no table.
    """
    tables = {}
    for name in TABLES:
        path = Path(folder) / f"{name}.csv"
        try:
            tables[name] = pd.read_csv(path)
        except (OSError, ValueError) as error:
            raise InputError(f"{path}: is no table of an evaluation ({error})") from None
    return tables


def write_students_page(path: str | Path, tables: Mapping[str, pd.DataFrame]) -> Path:
    """Write the page and return its path.

    Raises:
        InputError: a table lacks a column that a figure needs.
    """
    seeds = tables["seeds"]
    figures = {
        "accuracy": students.student_accuracy(tables["metrics"], seeds),
        "differences": students.student_differences(seeds),
        "curves": students.training_curves(tables["readouts"], tables["speed"]),
        "distances": students.student_distances(tables["trajectories"], seeds),
        "effects": students.student_effects(tables["causal"], seeds),
    }
    return write_page(
        path,
        "students.html.jinja",
        {"share": _share},
        title="Students beside their teacher",
        cards=[card(name, figure, *NOTES[name]) for name, figure in figures.items()],
        rows=arm_rows(seeds).to_dict("records"),
        terms=term_rows(seeds).to_dict("records"),
    )


def arm_rows(seeds: pd.DataFrame) -> pd.DataFrame:
    """A row an arm: its seeds, accuracy directly and with chains, and how far it is from `cot`.

    Columns: arm, n_seeds, and for direct, chain and gain (direct, minus `cot`) value, low and high;
    gain_seeds, those that both arms have.
    """
    exact = _exact(seeds)
    rows = []
    for arm in exact["arm"].unique():
        direct = where(exact, arm=arm, setting="direct", against="")
        gain = where(exact, arm=arm, setting="direct", against="cot")
        rows.append(
            {
                "arm": arm,
                **_ends("direct", direct),
                **_ends("chain", where(exact, arm=arm, setting="chain", against="")),
                **_ends("gain", gain),
                "n_seeds": int(direct["n_seeds"].iloc[0]) if len(direct) else 0,
                "gain_seeds": int(gain["n_seeds"].iloc[0]) if len(gain) else 0,
            }
        )
    return pd.DataFrame(rows)


def term_rows(seeds: pd.DataFrame) -> pd.DataFrame:
    """What each term adds: the full objective minus the arm without it, on the same seeds.

    Columns: term, n_seeds, and for direct and chain value, low and high; no rows where no arm
    without a term was evaluated beside the full objective.
    """
    exact = _exact(seeds)
    rows = []
    for arm in exact["arm"].unique():
        term = arm.removeprefix(WITHOUT)
        lacks = where(exact, arm=arm, against="mechanistic")
        plain = not {"@", "("} & set(arm)  # neither more steps nor another head set
        if term == arm or lacks.empty or not plain:
            continue
        lacks[["value", "low", "high"]] = -lacks[["value", "high", "low"]].to_numpy()
        rows.append(
            {
                "term": term,
                **_ends("direct", where(lacks, setting="direct")),
                **_ends("chain", where(lacks, setting="chain")),
                "n_seeds": int(lacks["n_seeds"].iloc[0]),
            }
        )
    return pd.DataFrame(rows)


def _exact(seeds: pd.DataFrame) -> pd.DataFrame:
    exact = where(seeds, of="metrics", measure="exact")
    return exact.assign(against=exact["against"].fillna(""))


def _ends(name: str, found: pd.DataFrame) -> dict[str, float]:
    """Value, low and high of a table of one row, NaN of an empty one, under names of their own."""
    ends = ("value", "low", "high")
    return {f"{name}_{end}": found[end].iloc[0] if len(found) else float("nan") for end in ends}


def _share(value: float) -> str:
    """Three decimals for all, so that arms compare down a column; a dash for nothing."""
    return "–" if math.isnan(value) else f"{value:z.3f}".replace("-", "−")
