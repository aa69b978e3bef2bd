"""The command that adapts a model: its flags arrive, and it says what came of it."""

from pathlib import Path

from typer.testing import CliRunner

from workbench.cli import app


def test_flags_arrive_and_figures_are_said(tmp_path, monkeypatch):
    asked = {}

    def adapt(out, task, model, shortlist, config, **more):
        asked.update(more, out=out, task=task, model=model, shortlist=shortlist, config=config)
        rows = [{"step": 0, "P@1": 0.1}, {"step": 7, "P@1": 0.6}]
        return {"held_out": {"retrieved": {"P@1": 0.3}, "by_step": rows}, "megabytes": 9.8}

    monkeypatch.setattr("workbench.predicting.adapting.adapt.adapt", adapt)
    words = ["--task", "xmc:set", "--model", "smollm2", "--shortlist", "some.parquet"]
    words += ["--out", str(tmp_path / "out"), "--steps", "7", "--golds", "any", "--add-gold"]
    made = CliRunner().invoke(app, ["adapt", *words, "--groups", "sources.tsv"])
    assert made.exit_code == 0, made.output
    assert made.stdout.splitlines()[:3] == [
        "as retrieved: P@1 0.300",
        "step 0: P@1 0.100",
        "step 7: P@1 0.600",
    ]
    config = asked["config"]
    assert (config.steps, config.golds, config.add_gold) == (7, "any", True)
    assert asked["groups"] == Path("sources.tsv") and asked["dtype"] is None
    refused = CliRunner().invoke(app, ["adapt", *words, "--candidates", "1"])
    assert refused.exit_code == 2 and "candidates" in refused.output
