"""The commands that test what was found: what they refuse, and one whole way through each."""

from pathlib import Path

import pandas as pd
import pytest
from typer.testing import CliRunner

from workbench.cli import app
from workbench.models.loading import bundled_model_path


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["evidence", "--out", "{empty}"], "no run there"),
        (["selftest", "--kinds", "chain", "--out", "{empty}/o"], "kind 'chain' is not one of"),
        (["trajectory", "model", "--out", "{empty}"], "exists already"),
        (
            ["study", "cumulative", "--out", "{empty}/o", "--sizes", "3,x"],
            "--sizes 3,x: give numbers",
        ),
        (["study", "cumulative", "--out", "{empty}/o", "--places", "end"], "places"),
        (
            ["study", "checkpoints", "{empty}", "--headset", "h.json", "--out", "o"],
            "no checkpoints",
        ),
    ],
)
def test_bad_input_is_one_line(arguments: list[str], reason: str, tmp_path: Path) -> None:
    result = CliRunner().invoke(app, [word.format(empty=tmp_path) for word in arguments])
    assert result.exit_code == 2
    assert reason in result.stderr and len(result.stderr.splitlines()) == 1
    assert not any(tmp_path.iterdir())


def test_trajectory_writes_tables_and_figure(tmp_path: Path) -> None:
    model, out = str(bundled_model_path()), tmp_path / "out"
    arguments = ["trajectory", model, "--n", "2", "--n-resamples", "20", "--out", str(out)]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.stderr
    table = pd.read_csv(out / "trajectories.csv")
    assert set(table["align"]) == {"step", "offset"} and (table["n"] <= 2).all()
    assert table["focus"].between(0, 1).all()
    assert {"focus", "confusion"} <= set(pd.read_csv(out / "turning_points.csv")["what"])
    assert "plotly" in (out / "trajectories.html").read_text()
    assert "note:" not in result.stdout  # no text of a prompt
