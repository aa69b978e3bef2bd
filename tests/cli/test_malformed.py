"""Two hundred command lines that are wrong: each ends in one line and exit code 2."""

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command
from typer.testing import CliRunner

from workbench.cli import app

N_LINES = 200
NUMBERS = ["x", "", "nan", "inf", "-1", "1.5", "9" * 30, "-" + "9" * 30, "9" * 5000, "1e999", "0x1"]
TEXTS = ["", "best", "\udcff", "x" * 100_000, "a\nb", "--", "0-0,0-0", "9999999-1", "é\u0301💥"]


def leaves(command: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """All commands with their words."""
    if not hasattr(command, "commands"):
        yield path, command
        return
    for name in command.commands:
        yield from leaves(command.commands[name], (*path, name))


@pytest.fixture
def places(tmp_path: Path) -> list[str]:
    """Paths at which there is nothing of use."""
    (tmp_path / "file").write_text("mine")
    (tmp_path / "folder").mkdir()
    (tmp_path / "empty.json").write_text("")
    (tmp_path / "deep.json").write_text("[" * 100_000)
    (tmp_path / "binary.jsonl").write_bytes(bytes(range(256)))
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("mine")
    names = ["file", "folder", "full", "empty.json", "deep.json", "binary.jsonl", "none/none.json"]
    names += ["x" * 300, "file/below", "none\udcff.json", "with\nend.jsonl"]
    return [*(str(tmp_path / name) for name in names), "/dev/full/x", "/proc/1/none", "", "."]


def base(words: tuple[str, ...], command: Any, tmp_path: Path) -> dict[str, list[str]]:
    """Arguments with which the command would start, and stop at a folder that holds no model."""
    nothing = str(tmp_path / "folder")
    given: dict[str, list[str]] = {}
    for parameter in command.params:
        flag = max(parameter.opts, key=len)
        if parameter.name in ("model", "teacher", "student"):
            given[flag] = [flag, nothing]
        elif parameter.param_type_name == "argument":
            given[flag] = [nothing]
        elif parameter.name == "out":
            given[flag] = [flag, str(tmp_path / "new")]
        elif parameter.required:
            given[flag] = [flag, "list" if parameter.name == "form" else nothing]
    if words in WITHOUT_MODEL:  # they would run: stopped by their place, with --force too
        given["--out"] = ["--out", str(tmp_path / "file" / "below")]
    return given


WITHOUT_MODEL = {
    ("selftest",),
    ("notes",),
    ("organism",),
    ("study", "distillation"),
    ("bench", "labels"),
    ("bench", "patching"),
}


def spoil(
    given: dict[str, list[str]], command: Any, places: list[str], draw: random.Random
) -> list[str]:
    """The arguments with something wrong."""
    options = [one for one in command.params if one.param_type_name == "option"]
    for _ in range(draw.choice([1, 1, 2])):
        one = draw.choice(options)
        flag = max(one.opts, key=len)
        values = NUMBERS if isinstance(one.default, int | float) else TEXTS
        values = places if one.name in PLACES else values
        if one.name == "out" and "file" in given.get("--out", [""])[-1]:
            continue
        given[flag] = [flag] if one.is_flag else [flag, draw.choice(values)]
    words = [word for pair in given.values() for word in pair]
    match draw.randrange(8):
        case 0:
            words.insert(draw.randrange(len(words) + 1), "--nonsense")
        case 1:
            words += ["extra", "words"]
        case 2 if "file" not in given.get("--out", [""])[-1]:  # else nothing would stop it
            del words[draw.randrange(len(words))]
    return words


PLACES = {"out", "prompts", "headset", "traces", "scores", "costs", "model", "teacher", "student"}


def test_malformed_command_lines(tmp_path: Path, places: list[str], monkeypatch) -> None:
    monkeypatch.chdir(tmp_path / "folder")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    whole: Any = get_command(app)
    monkeypatch.setattr("typer.testing._get_command", lambda app: whole)  # made once
    draw, commands = random.Random(0), list(leaves(whole))
    wrong, codes = [], {}
    for number in range(N_LINES):
        words, command = commands[number % len(commands)]
        line = [*words, *spoil(base(words, command, tmp_path), command, places, draw)]
        result = CliRunner().invoke(app, line)
        codes[result.exit_code] = codes.get(result.exit_code, 0) + 1
        said = result.stderr.splitlines()
        usage = bool(said) and said[0].startswith(("Usage: ", "Error: "))  # of typer
        told = [text for text in said if text.startswith("error: ")]
        most = len(line) - 1 if line[0] == "validate" else 1  # which says a line of every file
        clear = usage or (1 <= len(told) <= most and told[-1] == said[-1])
        strange = "Traceback" in result.output or (told and len(told[0]) > 2000)
        if result.exit_code != 2 or not clear or strange:
            wrong.append(([word[:60] for word in line], result.exit_code, result.output[-700:]))
    assert not wrong, "\n".join(map(str, wrong))
    assert codes == {2: N_LINES}
