import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from shutil import copytree
from typing import Any, get_type_hints

import pandas as pd
import pytest
from fixtures.headsets import head_record
from fixtures.tiny_runs import ARCHITECTURES, FAST, save_model, save_prompts, save_reader
from typer.main import get_command
from typer.testing import CliRunner, Result

import workbench as wb
from workbench.cli import app
from workbench.cli.app import ROOMS
from workbench.runs.steps import steps_of

Invoke = Callable[..., Result]
Given = list[str | Path]


@pytest.fixture(scope="session")
def invoke() -> Invoke:
    runner = CliRunner()
    return lambda *arguments: runner.invoke(app, [str(one) for one in arguments])


@pytest.fixture(scope="session")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model("llama", tmp_path_factory.mktemp("llama") / "model")


@pytest.fixture(scope="session")
def prompt_file(llama: Path) -> Path:
    path = llama.parent / "prompts.jsonl"
    save_prompts(llama, path)
    return path


@pytest.fixture(scope="session")
def given(llama: Path, prompt_file: Path) -> Given:
    return ["--model", llama, "--prompts", prompt_file]


@pytest.fixture(scope="session")
def finished(llama: Path, given: Given, invoke: Invoke) -> Path:
    """A finished run; no test changes it."""
    out = llama.parent / "finished"
    result = invoke("run", *given, "--out", out, "--heads", "all", *FAST)
    assert result.exit_code == 0, result.output
    return out


def content(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def refusal(result: Result, skips: bool = False) -> str:
    """The one line of a refusal, or the last if the run has skipped some steps before it."""
    assert result.exit_code == 2, result.output
    *said, last = result.stderr.splitlines()
    skipped = [line for line in said if not line.startswith("memory: ")]  # said before any step
    assert skips or not skipped, result.stderr
    assert all(line.endswith("finished before, skipped") for line in skipped)
    assert last.startswith("error: ")
    return last


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_step_by_step_from_prompts_to_report(
    architecture: str, tmp_path: Path, invoke: Invoke
) -> None:
    model = save_model(architecture, tmp_path / "model")
    prompts = save_prompts(model, tmp_path / "prompts.jsonl")
    out, fast = tmp_path / "run", ["--n-resamples", "50"]
    common = ["--model", model, "--out", out]
    for arguments in (
        ["score", *common, "--prompts", tmp_path / "prompts.jsonl", *fast],
        ["patch", *common, "--n-nominated", "2", *fast],
        ["pool", *common, *fast],
        ["paths", *common, *fast, "--sources", "0-1", "--destinations", "1-2"],
    ):
        result = invoke(*arguments)
        assert result.exit_code == 0, result.output
    patching = pd.read_parquet(out / "patching.parquet")
    assert set(patching["positions"]) == {"decision", "span"}
    assert set(patching["half"]) == {"choose", "verify", "all"}
    # Pooling reads these two from both halves; the others are only measured where they are shown.
    chief = patching[patching["measure"].isin(["coarse_restore", "refine_reduce"])]
    whole = chief[chief["half"] == "all"]
    assert (whole["n"] == len(prompts)).all() and (whole["n_excluded"] == 0).all()
    verified = patching[patching["half"] == "verify"]
    assert (verified["n"] == verified["n"].max()).all() and verified["n"].max() > 0
    if architecture == "gpt2":  # reports look the same for all
        result = invoke("report", "--out", out)
        assert result.exit_code == 0 and "<html" in (out / "report.html").read_text()
    headset = json.loads((out / "headset.json").read_text())
    assert headset["model"]["n_kv_heads"] == (4 if architecture == "gpt2" else 2)
    assert headset["prompts"]["sha256"] == prompts.sha256
    for path in (out / "headset.json", out / "manifest.json"):
        assert str(tmp_path) not in path.read_text()
    assert invoke("validate", out / "headset.json", "--model", model).exit_code == 0


def test_a_second_run_skips_every_step_and_changes_nothing(
    finished: Path, given: Given, invoke: Invoke
) -> None:
    before = content(finished)
    result = invoke("run", *given, "--out", finished, "--heads", "all", *FAST)
    assert result.exit_code == 0, result.output
    for step in ("baseline", "score", "trajectory", "patch", "pool", "paths", "report"):
        assert f"{step}: finished before, skipped" in result.stderr
    assert content(finished) == before
    assert "joint effects" in result.stdout and "headset.json" in result.stdout


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        (["--seed", "1"], "seed is 0 there and 1 now"),
        (["--dtype", "float64"], "model.dtype is float32 there and float64 now"),
        (["--intervention", "pattern"], "'patch' was run with intervention z there and pattern"),
    ],
)
def test_another_run_in_the_folder_is_refused(
    changed: list[str], named: str, finished: Path, given: Given, invoke: Invoke
) -> None:
    before = content(finished)
    arguments = [*given, "--out", finished, "--heads", "all", *FAST, *changed]
    message = refusal(invoke("run", *arguments), skips=True)
    assert str(finished) in message and named in message
    assert content(finished) == before


def test_another_model_and_other_prompts_are_refused(
    finished: Path, llama: Path, prompt_file: Path, tmp_path: Path, invoke: Invoke
) -> None:
    other = save_model("gpt2", tmp_path / "other")
    few = tmp_path / "few.jsonl"
    lines = prompt_file.read_text().splitlines(keepends=True)
    few.write_text("".join(lines[4:]))
    before = content(finished)
    arguments = ["score", "--out", finished, "--n-resamples", "50", "--n-permutations", "50"]
    assert "model.weights_sha256" in refusal(invoke(*arguments, "--model", other))
    message = refusal(invoke(*arguments, "--model", llama, "--prompts", few))
    assert "prompts.sha256" in message
    few.write_text("".join(lines[:4]))
    message = refusal(invoke(*arguments, "--model", llama, "--prompts", few))
    assert f"holds these 4 events and {len(lines) - 4} more" in message
    assert content(finished) == before


def test_flags_that_are_not_given_are_those_of_the_run(
    finished: Path, llama: Path, given: Given, tmp_path: Path, invoke: Invoke
) -> None:
    out = copytree(finished, tmp_path / "run")
    before = content(out)
    result = invoke("run", "--model", llama, "--out", out)
    assert result.exit_code == 0 and "patch: finished before, skipped" in result.stderr
    assert content(out) == before
    assert "--n makes prompts, and those" in refusal(
        invoke("run", "--model", llama, "--out", out, "--n", "90")
    )
    result = invoke("patch", "--model", llama, "--out", out, "--n-resamples", "60")
    assert "patch: n_resamples was 50, is 60 now, what is there is kept" in result.stderr
    assert "none is added" in result.stderr and "of before" not in result.stdout
    manifest = json.loads((out / "manifest.json").read_text())
    manifest["steps"]["pool"]["status"] = "outdated"
    (out / "manifest.json").write_text(json.dumps(manifest))
    result = invoke("patch", "--model", llama, "--out", out)
    assert "made before this: pool, report; `workbench pool`, then `workbench re" in result.stdout
    assert "`workbench pool` makes it again" in refusal(invoke("report", "--out", out))


def test_a_folder_with_other_files_is_refused(given: Given, tmp_path: Path, invoke: Invoke) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    assert "no manifest.json" in refusal(invoke("score", *given, "--out", tmp_path))
    assert content(tmp_path) == {"mine.txt": b"mine"}


@pytest.mark.parametrize("command", ["patch", "pool", "paths", "report"])
def test_a_missing_run_is_named_and_not_made(
    command: str, llama: Path, tmp_path: Path, invoke: Invoke
) -> None:
    message = refusal(invoke(command, "--model", llama, "--out", tmp_path / "none"))
    assert "run `workbench score` first" in message
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ('"event"', '"note":"x","event"', "unknown key"),
        ('"token":', '"token":999', "token 999"),
        ('{"id"', "{id", "not JSON"),
        ("", None, "cannot be read"),
    ],
)
def test_a_bad_prompt_file_starts_no_run(
    old: str, new: str | None, reason: str, llama: Path, prompt_file: Path, tmp_path, invoke: Invoke
) -> None:
    bad = tmp_path / "[red]bad.jsonl"
    if new is not None:
        bad.write_text(prompt_file.read_text().replace(old, new, 1))
    before = content(tmp_path)
    message = refusal(invoke("run", "--model", llama, "--prompts", bad, "--out", tmp_path / "run"))
    assert str(bad) in message and reason in message
    assert content(tmp_path) == before
    assert refusal(invoke("validate", bad, "--model", llama)) == message


def test_models_that_cannot_be_read(
    llama: Path, prompt_file: Path, tmp_path: Path, invoke: Invoke
) -> None:
    empty, pickled = tmp_path / "empty", tmp_path / "pickled"
    for folder in (empty, pickled):
        folder.mkdir()
        (folder / "config.json").write_bytes((llama / "config.json").read_bytes())
    (pickled / "pytorch_model.bin").write_bytes(b"x")
    for folder, reason in (
        (empty, "has no weights"),
        (pickled, "pickle weights are refused"),
        (tmp_path / "none", "does not exist"),
    ):
        message = refusal(
            invoke("score", "--model", folder, "--prompts", prompt_file, "--out", tmp_path / "run")
        )
        assert str(folder) in message and reason in message
    assert not (tmp_path / "run").exists()


def test_heads_the_model_lacks(given: Given, tmp_path: Path, invoke: Invoke) -> None:
    out = tmp_path / "run"
    invoke("score", *given, "--out", out, *FAST[:4])
    before = content(out)
    for heads, reason in (
        ("9-1", "head (layer 9, head 1) is not in model"),
        ("1-1,1-1", "1-1 is listed twice"),
        ("best", "is not LAYER-HEAD"),
    ):
        message = refusal(invoke("patch", *given, "--out", out, "--heads", heads))
        assert reason in message
        assert content(out) == before
    # A refused list of heads leaves the step open for a right one.
    right = invoke("patch", *given, "--out", out, "--heads", "1-3,0-2")
    assert right.exit_code == 0, right.output
    table = pd.read_parquet(out / "patching.parquet")
    assert {*zip(table["layer"], table["head"], strict=True)} == {(1, 3), (0, 2)}


def test_pooling_needs_the_span(given: Given, tmp_path: Path, invoke: Invoke) -> None:
    common = [*given, "--out", tmp_path / "run"]
    whole = refusal(invoke("run", *common, "--positions", "decision", *FAST))
    assert "positions must be span or both" in whole and not (tmp_path / "run").exists()
    invoke("score", *common, *FAST[:4])
    invoke("patch", *common, "--positions", "decision", *FAST[:2])
    before = content(tmp_path)
    assert "positions must be span or both" in refusal(invoke("pool", *common))
    assert content(tmp_path) == before


def test_validate_a_headset_against_another_model(
    finished: Path, llama: Path, prompt_file: Path, tmp_path: Path, invoke: Invoke
) -> None:
    other = save_model("gpt2", tmp_path / "gpt2")
    result = invoke("validate", prompt_file, finished / "headset.json", "--model", other)
    assert "architecture is LlamaForCausalLM in the head set" in refusal(result)
    assert "9 events of 8 prompts" in result.stdout  # good files are still reported
    headset = json.loads((finished / "headset.json").read_text())
    headset["heads"] = [head_record(9, 0, "coarse", 1.0)]
    bad = tmp_path / "bad.json"
    bad.write_text(json.dumps(headset))
    message = refusal(invoke("validate", bad, "--model", llama))
    assert str(bad) in message and "9 is not below n_layers 2" in message


def test_prompts_and_exports_are_not_overwritten(
    finished: Path, tmp_path: Path, invoke: Invoke
) -> None:
    target = tmp_path / "mine"
    target.write_text("mine")
    for arguments in (
        ["prompts", "--out", target],
        ["export", finished / "headset.json", "--form", "list", "--out", target],
    ):
        assert "exists already" in refusal(invoke(*arguments))
    assert target.read_text() == "mine"
    forced = invoke(
        "export", finished / "headset.json", "--form", "eap-ig", "--out", target, "--force"
    )
    assert forced.exit_code == 0, forced.output
    assert json.loads(target.read_text())["cfg"]["n_layers"] == 2


def test_text_is_shown_only_on_request(finished: Path, llama: Path, invoke: Invoke) -> None:
    result = invoke("report", "--out", finished, "--show-text", "--model", llama)
    assert "no tokenizer" in refusal(result)
    assert not (finished / "report_with_text.html").exists()


def test_prompts_are_shown_in_the_terminal(
    tokenizer: Any, llama: Path, prompt_file: Path, tmp_path: Path, invoke: Invoke
) -> None:
    model = save_reader(tokenizer, tmp_path / "model")
    shown = invoke("show", prompt_file, "--model", model, "--n", "2")
    assert shown.exit_code == 0, shown.output
    assert "2 of 9 events" in shown.stdout and shown.stdout.count("┏") == 2
    asked = invoke("show", prompt_file, "--model", model, "--n", "1", "--answers")
    assert "logit" in asked.stdout and "1 of 9 events" in asked.stdout
    assert "token ids alone" in refusal(invoke("show", prompt_file, "--model", llama))
    strange = tmp_path / "strange.jsonl"
    strange.write_text(prompt_file.read_text().replace('"input_ids":[9', '"input_ids":[9999', 1))
    assert "token 9999 in variant" in refusal(invoke("show", strange, "--model", model))


@pytest.mark.parametrize(
    ("code", "barred"),
    [
        ("import workbench; dir(workbench)", "torch transformers pandas pydantic typer"),
        ("run('--help')", "torch transformers pandas pydantic workbench.runs"),
        ("run('run', '--help')", "torch transformers pandas"),
        ("run('validate', '{prompts}')", "torch transformers pandas"),
    ],
)
def test_what_is_not_needed_is_not_loaded(code: str, barred: str, prompt_file: Path) -> None:
    script = f"""
import sys
def run(*words):
    from workbench.cli import app
    app(words, standalone_mode=False)
{code.format(prompts=prompt_file)}
print([name for name in {barred.split()} if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True)
    assert done.stdout.decode().splitlines()[-1] == "[]"


def test_flags_are_the_fields_of_the_settings() -> None:
    commands: Any = get_command(app)
    flags = {flag.name: flag for flag in commands.commands["run"].params}
    hints = get_type_hints(wb.RunConfig, include_extras=True)
    for field in fields(wb.RunConfig):
        flag, [info] = flags[field.name], hints[field.name].__metadata__
        assert flag.help == info.description
        if field.name != "positions":
            assert flag.default == field.default
    for step in ("score", "patch", "pool", "paths", "evidence"):
        names = {flag.name for flag in commands.commands[step].params}
        wanted = {name for one in steps_of(step) for name in one.settings} | {"seed"}
        assert names & set(hints) == wanted
    off = [flag for flag in commands.commands["distill"].params if flag.name == "bf16"]
    assert off[0].secondary_opts == ["--no-bf16"]


def test_help_shows_the_commands_of_every_day_first(invoke: Invoke) -> None:
    lines = [line.split() for line in invoke("--help").stdout.splitlines() if line]
    words = [line[0] for line in lines if line[0] in {"run", "report", "prompts", "validate"}]
    assert words == ["run", "report", "prompts", "validate"]
    rooms = [line for line in invoke("--help").stdout.splitlines() if line.endswith(":")]
    assert rooms == ["Options:", *(f"{room}:" for room in ROOMS)]
