import json

import pandas as pd
from fixtures.tiny_runs import save_reader
from typer.testing import CliRunner

from workbench.cli import app
from workbench.prompts.files import read_prompts


def test_labels_writes_a_prompt_file_tables_and_a_figure(tokenizer, tmp_path):
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
    again = CliRunner().invoke(app, ["labels", *flags])
    assert again.exit_code == 2 and "exists already" in again.output
