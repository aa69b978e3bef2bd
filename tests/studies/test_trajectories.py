"""The study on tiny models whose chains are written for them."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from fixtures.tiny_runs import save_reader
from typer.testing import CliRunner

from workbench.analysis.chains import generation
from workbench.cli import app
from workbench.studies import paper_chains
from workbench.studies.trajectories import QUANTITIES, differences


@pytest.fixture(scope="module")
def folder(tokenizer, tmp_path_factory):
    return str(save_reader(tokenizer, tmp_path_factory.mktemp("reader") / "model", n_layers=2))


@pytest.fixture
def chains(few_labels, monkeypatch):
    """What a model writes is what the task would: a random one writes nothing that is read."""
    written = []

    def write(model, cases, tokenizer, cues, batch_size):
        written.append((len(cases), batch_size))
        opening = tokenizer(cues.opening, add_special_tokens=False)["input_ids"]
        made = []
        for case in cases:
            letters = {x.role: tokenizer.decode([x.token]) for x in case.event.options}
            number = case.event.event + 1
            text = f"\n {number} in{letters['gold']}{letters['near']}"
            text += f"\n {number} is fever of some kind{letters['gold']}"
            chain = generation.make_chain(tokenizer, case.clean.question, text, opening=opening)
            made.append(replace(case, chains={"clean": chain}))
        return made

    monkeypatch.setattr(paper_chains, "write_chains", write)
    return written


def test_models_are_followed_once_and_stand_beside_the_paper(chains, folder, tmp_path):
    out = tmp_path / "out"
    flags = ["study", "trajectories", "--teacher", folder, "--student", f"phases-p2-0={folder}"]
    flags += ["--n", "2", "--n-resamples", "5", "--device", "cpu", "--out", str(out)]
    done = CliRunner().invoke(app, [*flags, "--part", "1/2"])
    assert done.exit_code == 0, done.output
    assert chains == [(2, 2)] and not (out / "table.csv").exists()
    done = CliRunner().invoke(app, flags)
    assert done.exit_code == 0, done.output
    assert chains == [(2, 2), (2, 2)]  # the teacher's, and the student's no more
    table = pd.read_csv(out / "table.csv")
    own = table.query("model == 'phases-p2-0' and quantity == 'confusion_text'").set_index("t")
    assert own["paper"].to_dict() == {0.0: 0.62, 0.5: 0.65, 0.75: 0.59, 1.0: 0.57}
    focus = table.query("model == 'teacher' and quantity == 'focus'")
    assert focus["t"].tolist() == [0.0, 0.25, 1.0] and focus["paper"].isna().all()
    assert set(table["quantity"]) == set(QUANTITIES) and (table["n"] == 2).all()
    # The same weights write and say the same.
    apart = pd.read_csv(out / "differences.csv")
    assert set(apart["against"]) == {"teacher"} and np.allclose(apart["value"], 0, atol=1e-5)
    assert (out / "trajectories.html").is_file()
    values = pd.read_csv(out / "values.csv")
    assert values.groupby("model")["id"].nunique().tolist() == [2, 2]
    assert (values.groupby(["model", "id"])["event"].nunique() == 1).all()
    refused = CliRunner().invoke(app, [*flags, "--seed", "2"])
    assert refused.exit_code != 0 and "other settings" in refused.output


def test_differences_are_of_the_same_decisions():
    rows = [
        {"model": model, "id": name, "event": 0, "step": step, "share": step / 2}
        | dict.fromkeys(QUANTITIES, base + step)
        for model, base, names in (
            ("teacher", 0.0, "ab"),
            ("phases", 0.25, "bc"),
            ("cot", 1.0, "b"),
        )
        for name in names
        for step in range(3)
    ]
    found = differences(pd.DataFrame(rows), n_resamples=5)
    pairs = {(row["model"], row["against"]): row["value"] for row in found.to_dict("records")}
    assert pairs == {("phases", "teacher"): 0.25, ("cot", "teacher"): 1.0, ("cot", "phases"): 0.75}
    assert (found["n"] == 1).all()
    assert found.query("quantity == 'focus_text'")["t"].unique().tolist() == [0.0, 0.25, 1.0]
