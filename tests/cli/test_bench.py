"""Benchmarks write what was measured, and only that."""

import json

from typer.testing import CliRunner

from workbench.cli import app


def test_parts_asked_for_are_measured_and_written(tmp_path):
    out = tmp_path / "labels.json"
    command = ["bench", "labels", "--out", str(out), "--n", "300", "--part", "neighbours"]
    done = CliRunner().invoke(app, [*command, "--sample", "50", "--n-threads", "1"])
    assert done.exit_code == 0, done.output
    result = json.loads(out.read_text())
    assert result["n"] == 300 and not {"index", "decoding", "clusters"} & set(result)
    assert result["neighbours"]["recall"] > 0.99
    assert "neighbours: " in done.output and "index" not in done.output
    again = CliRunner().invoke(app, command)
    assert again.exit_code != 0


def test_bench_writes_json_and_says_the_ratios(tmp_path):
    def bench(*words):
        return CliRunner().invoke(app, ["bench", "patching", *map(str, words), "--device", "cpu"])

    small = ["--length", "16", "--suffix", "6", "--sample", "2", "--repeats", "1"]
    out = tmp_path / "bench.json"
    result = bench("--shape", "tiny", "--out", out, *small)
    assert result.exit_code == 0, result.output
    assert "times faster than the loop" in result.stdout
    assert json.loads(out.read_text())["model"]["shape"] == "tiny"
    other = tmp_path / "other.json"
    for words, reason in (
        (["--shape", "tiny", "--out", out], "exists already"),
        (["--shape", "tiny", "--sweep", "4", "--out", other], "no tokenizer"),
        (["--shape", "huge", "--out", other], "llama3-8b"),
    ):
        refused = bench(*words)
        assert refused.exit_code == 2 and reason in refused.stderr
    assert not other.exists()
