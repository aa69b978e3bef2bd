"""How a command ends that cannot go on: one line, an exit code, and no value of a prompt."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

import workbench as wb
from workbench.cli import app

SECRET = "Smithson has a fever"


def report(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> Result:
    """The report command, in which something raises this."""

    def fail(*given: object, **named: object) -> None:
        secret = SECRET  # a variable of the frame
        raise error from KeyError(secret)

    monkeypatch.setattr(wb, "report", fail)
    return CliRunner().invoke(app, ["report", "--out", "run"])


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (MemoryError(), 2, "out of memory; try --dtype bfloat16"),
        (RuntimeError("CUDA out of memory. Tried to allocate 2 GiB"), 2, "out of memory"),
        (OSError(28, "No space left on device", "run/x"), 2, "run/x: no space left on the disk"),
        (PermissionError(13, "Permission denied", "/x"), 2, "/x: Permission denied"),
        (OSError(36, "File name too long"), 2, "File name too long"),
        (RuntimeError(SECRET), 1, "a bug, RuntimeError in workbench/cli/daily.py, line "),
        (OSError(SECRET), 1, "a bug, OSError"),
        (ExceptionGroup(SECRET, [ValueError(SECRET)]), 1, "a bug, ExceptionGroup"),
    ],
)
def test_every_failure_is_one_line(
    error: Exception, code: int, said: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    result = report(monkeypatch, error)
    assert result.exit_code == code
    (line,) = result.stderr.splitlines()
    assert line.startswith(f"error: {said}")
    traces = list(tmp_path.iterdir())
    assert len(traces) == (code == 1)
    for trace in traces:
        assert str(trace) in line and trace.stat().st_mode & 0o777 == 0o600
        assert "raise error" in trace.read_text() and type(error).__name__ in trace.read_text()
    assert SECRET not in result.output + "".join(trace.read_text() for trace in traces)


def test_the_trace_keeps_what_compiled_code_says(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr(wb, "report", lambda out, **named: {}[SECRET] or [0][int(SECRET)])
    CliRunner().invoke(app, ["report", "--out", "run"])
    monkeypatch.setattr(wb, "report", lambda out, **named: [0][1])
    CliRunner().invoke(app, ["report", "--out", "run"])
    traces = "".join(path.read_text() for path in tmp_path.iterdir())
    assert "IndexError: list index out of range" in traces
    assert "KeyError: …" in traces and SECRET not in traces


def test_without_a_temporary_folder_the_line_is_still_said(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "none"))
    result = report(monkeypatch, RuntimeError(SECRET))
    assert result.exit_code == 1 and len(result.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("command", "function", "said"),
    [
        (["run", "--out", "run"], "run", "run the same command again to go on"),
        (["report", "--out", "run"], "report", "nothing was kept"),
        (["prompts", "--out", "p.jsonl"], "make_prompts", "nothing was kept"),
    ],
)
def test_interrupts_promise_what_the_command_does(
    command: list[str], function: str, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*given: object, **named: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(wb, function, stop)
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 130
    (line,) = result.stderr.splitlines()
    assert line.startswith("stopped; ") and said in line


def test_what_a_terminal_cannot_show_becomes_a_question_mark(tmp_path: Path) -> None:
    cyrillic = tmp_path / "файл.jsonl"
    cyrillic.write_text("")
    for encoding, arguments, code in (
        ("ascii", ["distill", "--help"], 0),
        ("cp932", ["validate", str(cyrillic)], 2),
    ):
        done = subprocess.run(
            [sys.executable, "-m", "workbench", *arguments],
            env={**os.environ, "PYTHONIOENCODING": encoding, "LANG": "C"},
            capture_output=True,
            check=False,
        )
        assert done.returncode == code, done.stderr
        assert b"Traceback" not in done.stderr and len(done.stderr.splitlines()) == (code == 2)


def test_a_pipe_that_closes_ends_quietly() -> None:
    command = f"{sys.executable} -m workbench run --help | head -1"
    done = subprocess.run(["bash", "-c", command], capture_output=True, check=True)
    assert done.stdout.count(b"\n") == 1 and not done.stderr
