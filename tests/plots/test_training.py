"""What the figure of a study of checkpoints shows."""

import numpy as np
import pandas as pd
import pytest

from workbench.errors import InputError
from workbench.plots.training import training_phases


def make_study() -> pd.DataFrame:
    """Three steps; the value is the step in thousands, plus a half for what is no pool's."""
    cells = [("focus_clean", None, "model"), ("confusion_clean", None, "model")]
    cells += [("focus_moved", None, "coarse"), ("focus_moved", (3, 0), "coarse")]
    cells += [("focus_moved", None, "moment_coarse"), ("coarse_score", None, "coarse")]
    cells += [("confusion_moved", None, "refine"), ("confusion_moved", (4, 3), "extra")]
    rows = [
        {"step": step, "quantity": quantity, "pool": pool, "value": step / 1e3, "n": 7}
        | {"layer": at[0] if at else np.nan, "head": at[1] if at else np.nan}
        | {"low": step / 1e3 - 0.1, "high": step / 1e3 + 0.1}
        for step in (300, 100, 200)
        for quantity, at, pool in cells
    ]
    best = {100: (5, 6), 200: (5, 1), 300: (5, 6)}
    rows += [
        {"step": step, "quantity": "coarse_score", "pool": "other", "value": 0.5, "n": 7}
        | {"layer": at[0], "head": at[1], "low": 0.4, "high": 0.6}
        for step, at in best.items()
    ]
    return pd.DataFrame(rows)


def test_each_side_has_its_row_and_a_head_of_a_pool_no_line_of_its_own() -> None:
    figure = training_phases(make_study())
    bands = [trace for trace in figure.data if trace.fill == "toself" and trace.x.size]
    assert len(bands) == 5
    coarse = [t for t in figure.data if (t.name or "").startswith("Focus,") and len(t.x)]
    assert [trace.xaxis for trace in coarse] == ["x", "x2", "x3"]
    assert all(list(trace.x) == [100, 200, 300] for trace in coarse)
    assert list(coarse[0].y) == [0.1, 0.2, 0.3]
    [extra] = [trace for trace in figure.data if trace.name == "head 4-3"]
    assert extra.xaxis == "x5"
    names = [trace.name for trace in figure.data if trace.showlegend]
    assert len(names) == len(set(names))


def test_best_other_head_is_named_at_every_step() -> None:
    figure = training_phases(make_study())
    other = next(t for t in figure.data if t.name == "best other head" and len(t.x))
    assert list(other.text) == ["head 5-6", "head 5-1", "head 5-6"]


def test_a_table_read_from_csv_draws_the_same(tmp_path) -> None:
    study = make_study().astype({"layer": "Int64", "head": "Int64"})
    study.to_csv(tmp_path / "training.csv", index=False)
    read = training_phases(pd.read_csv(tmp_path / "training.csv"))
    assert [list(t.text or []) for t in read.data] == [
        list(t.text or []) for t in training_phases(study).data
    ]


def test_empty_and_other_tables_are_said() -> None:
    figure = training_phases(make_study().iloc[:0])
    assert "no checkpoint" in figure.layout.annotations[0].text
    with pytest.raises(InputError, match="'value' is missing"):
        training_phases(make_study().drop(columns="value"))
