"""Students beside their teacher as one HTML file, from the tables of `workbench evaluate`."""

from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from workbench.errors import InputError
from workbench.plots import students
from workbench.plots.page import card, write_page
from workbench.plots.style import number, where

TABLES = ("metrics", "trajectories", "causal", "readouts", "speed", "seeds")

NOTES = {
    "accuracy": (
        "How often a student writes exactly the right labels, on prompts of labels that no student "
        "and no teacher was trained on.",
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
        "Undefined for students that do not do the task: no event counts.",
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
        {"number": number},
        title="Students beside their teacher",
        cards=[card(name, figure, *NOTES[name]) for name, figure in figures.items()],
        rows=arm_rows(seeds).to_dict("records"),
    )


def arm_rows(seeds: pd.DataFrame) -> pd.DataFrame:
    """A row an arm: its seeds, accuracy directly and with chains, and how far it is from `cot`.

    Columns: arm, n_seeds, and for direct, chain and gain (direct, minus `cot`) value, low and high.
    """
    rows = []
    exact = where(seeds, of="metrics", measure="exact")
    exact["against"] = exact["against"].fillna("")
    for arm in exact["arm"].unique():
        row: dict[str, object] = {"arm": arm}
        for name, setting, against in (
            ("direct", "direct", ""),
            ("chain", "chain", ""),
            ("gain", "direct", "cot"),
        ):
            found = where(exact, arm=arm, setting=setting, against=against)
            for end in ("value", "low", "high"):
                row[f"{name}_{end}"] = found[end].iloc[0] if len(found) else float("nan")
            if name == "direct":
                row["n_seeds"] = int(found["n_seeds"].iloc[0]) if len(found) else 0
        rows.append(row)
    return pd.DataFrame(rows)
