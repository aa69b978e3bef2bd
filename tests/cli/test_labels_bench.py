"""The command `bench-labels` writes what was measured, and only that."""

import json

from typer.testing import CliRunner

from workbench.bench.labels import PARTS
from workbench.cli import app
from workbench.cli.labels_bench import Part


def test_parts_asked_for_are_measured_and_written(tmp_path):
    out = tmp_path / "labels.json"
    command = ["bench-labels", "--out", str(out), "--n", "300", "--part", "neighbours"]
    done = CliRunner().invoke(app, [*command, "--sample", "50", "--n-threads", "1"])
    assert done.exit_code == 0, done.output
    result = json.loads(out.read_text())
    assert result["n"] == 300 and not {"index", "decoding", "clusters"} & set(result)
    assert result["neighbours"]["recall"] > 0.99
    assert "neighbours: " in done.output and "index" not in done.output
    again = CliRunner().invoke(app, command)
    assert again.exit_code != 0


def test_every_part_has_its_flag():
    assert tuple(Part) == PARTS
