import json
from functools import partial

import pandas as pd
from fixtures.tiny_runs import save_reader
from typer.testing import CliRunner

from workbench.analysis.label_space import free_labels
from workbench.cli import app
from workbench.prompts.files import read_prompts
from workbench.runs import growing


def test_labels_writes_a_prompt_file_tables_and_a_figure(few_labels, tokenizer, tmp_path):
    model, out = save_reader(tokenizer, tmp_path / "model", n_layers=1), tmp_path / "labels"
    flags = ["--out", str(out), "--model", str(model), "--n", "2", "--n-decoded", "2"]
    result = CliRunner().invoke(app, ["labels", *flags, "--n-resamples", "20"])
    assert result.exit_code == 0, result.output
    assert len(read_prompts(out / "free.jsonl", None)) == 2
    assert set(pd.read_csv(out / "free.csv")["variant"]) == {"clean", "far", "near"}
    decoded = pd.read_csv(out / "free_decoded.csv")
    assert decoded.groupby("decoding").size().to_dict() == {"constrained": 2, "free": 2}
    assert (out / "free.html").stat().st_size
    command = result.stdout.splitlines()[-1]
    assert command.startswith("next: workbench run") and str(out / "free.jsonl") in command
    assert json.loads((out / "free.jsonl").read_text().splitlines()[0])["options"]
    other = CliRunner().invoke(app, ["labels", *flags, "--seed", "1"])
    assert other.exit_code == 2 and "holds labels with other settings (seed)" in other.output
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").touch()
    flags[1] = str(tmp_path / "full")
    full = CliRunner().invoke(app, ["labels", *flags])
    assert full.exit_code == 2 and "exists already, and holds no labels" in full.output
    assert [path.name for path in (tmp_path / "full").glob("*.*")] == ["mine.txt"]


def test_labels_goes_on_where_it_was_stopped(few_labels, tokenizer, tmp_path, monkeypatch):
    """Stopped in each of its two long steps, and run again: the same tables, nothing made twice."""
    model = save_reader(tokenizer, tmp_path / "model", n_layers=1)
    flags = ["--model", str(model), "--n", "2", "--n-decoded", "2", "--n-resamples", "20"]
    monkeypatch.setattr(growing, "grown", partial(growing.grown, at_once=1))
    whole, out = tmp_path / "whole", tmp_path / "stopped"
    assert CliRunner().invoke(app, ["labels", "--out", str(whole), *flags]).exit_code == 0
    made = []

    def stopping(function):
        def call(model, cases, *rest, **more):
            made.append((function.__name__, len(cases)))
            if len(made) in (2, 5):
                raise KeyboardInterrupt
            return function(model, cases, *rest, **more)

        return call

    for name in ("free_trajectory", "decode_labels"):
        monkeypatch.setattr(free_labels, name, stopping(getattr(free_labels, name)))
    found = []
    for _ in range(3):
        result = CliRunner().invoke(app, ["labels", "--out", str(out), *flags])
        found.append((result.exit_code, sorted(path.name for path in out.glob("*.csv"))))
        assert result.exit_code == 0 or "same command again to go on" in result.output
    assert found == [
        (130, ["free.partial.csv"]),
        (130, ["free.csv", "free_decoded.partial.csv", "free_summary.csv"]),
        (0, ["free.csv", "free_decoded.csv", "free_summary.csv"]),
    ]
    first, second = ("free_trajectory", "decode_labels")
    assert made == [(first, 1)] * 3 + [(second, 1)] * 3
    for path in whole.iterdir():
        if path.suffix in (".csv", ".jsonl", ".json"):
            assert (out / path.name).read_bytes() == path.read_bytes()
