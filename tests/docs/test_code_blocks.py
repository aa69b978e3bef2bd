"""Code of the README and of docs/pages is run, or at least read by what it is meant for.

Blocks of Python are run, page by page. Lines of a shell that call `workbench` are parsed by the
command line; those that are quick are run on the bundled model with small numbers. JSON is read as
the prompt line or the head set that it claims to be.
"""

import importlib.util
import json
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from typer.main import get_command
from typer.testing import CliRunner

import workbench as wb
from workbench.analysis.scores import registry
from workbench.analysis.scores.registry import known_scores
from workbench.cli import app
from workbench.distill.matching.files import heads_for
from workbench.models.sources import KNOWN
from workbench.prompts import choices

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs" / "pages").rglob("*.md"))]
CARDS = sorted((ROOT / "data").glob("*/README.md"))
BLOCK = re.compile(r"(<!-- not run: .+? -->\n)?^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
PRINTED = re.compile(
    r"^```python\n((?:(?!```).)*)^```\n\nIt prints\n\n```text\n(.*?)^```$", re.MULTILINE | re.DOTALL
)
LINK = re.compile(r"\[[^\]]*\]\(([^)#\s]+)(?:#[^)\s]*)?\)")
COMMANDS = get_command(app)
QUICK = {
    "answers",
    "prompts",
    "validate",
    "run",
    "score",
    "patch",
    "pool",
    "paths",
    "report",
    "export",
}
SMALL = {
    "--n": "2",
    "--n-resamples": "5",
    "--n-permutations": "20",
    "--n-nominated": "1",
    "--n-screened": "1",
    "--n-controls": "0",
    "--draws": "1",
    "--positions": "span",
}
"""Numbers that keep a command quick, for those flags that a command has."""


class Block(NamedTuple):
    """A fenced block of a page."""

    page: Path
    language: str
    text: str
    runs: bool


def blocks(page: Path) -> list[Block]:
    found = BLOCK.finditer(page.read_text(encoding="utf-8"))
    return [Block(page, match[2], match[3], match[1] is None) for match in found]


BLOCKS = [block for page in PAGES for block in blocks(page)]


def pages_with(language: str) -> list[Any]:
    pages = dict.fromkeys(block.page for block in BLOCKS if block.language == language)
    return [pytest.param(page, id=page.relative_to(ROOT).as_posix()) for page in pages]


def shell_calls(page: Path) -> Iterator[tuple[list[str], bool]]:
    """Words of every call on a page, and whether it may be run; of a loop the first turn."""
    for block in blocks(page):
        if block.language != "sh":
            continue
        for line in block.text.splitlines():
            inner = re.search(r"\bdo (.+?); done", line)
            words = shlex.split((inner[1] if inner else line).replace("$k", "0"), comments=True)
            if words:
                yield words, block.runs


def arguments(words: list[str]) -> list[str] | None:
    """What a call gives to `workbench`, started by itself or as a module."""
    if words[0] == "workbench":
        return words[1:]
    for at in range(len(words) - 1):
        if words[at : at + 2] == ["-m", "workbench"]:
            return words[at + 2 :]
    return None


def command_of(words: list[str]) -> tuple[str, Any, list[str]]:
    """Name and record of the command that the words call, and its own flags."""
    command, name, rest = COMMANDS, [], list(words)
    while hasattr(command, "commands"):
        assert rest and rest[0] in command.commands, f"no command {' '.join(words)}"
        name.append(rest[0])
        command = command.commands[rest.pop(0)]
    return " ".join(name), command, rest


@pytest.mark.parametrize("page", [page for page in pages_with("python") if page.id != "README.md"])
def test_python(
    page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Blocks run; what one prints is what the page says after "It prints"."""
    monkeypatch.chdir(tmp_path)
    known_scores()  # what a page adds to the registries stays on it
    monkeypatch.setattr(registry, "SCORES", dict(registry.SCORES))
    monkeypatch.setattr(choices, "KINDS", dict(choices.KINDS))
    names: dict[str, Any] = {}
    said = dict(PRINTED.findall(page.read_text(encoding="utf-8")))
    for block in blocks(page):
        if block.language == "python" and block.runs:
            exec(compile(block.text, str(page), "exec"), names)
            out = capsys.readouterr().out
            assert out == said.get(block.text, out)


@pytest.mark.parametrize("page", pages_with("sh"))
def test_shell(page: Path) -> None:
    targets = re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    for words, _ in shell_calls(page):
        given = arguments(words)
        if given is not None:
            name, command, rest = command_of(given)
            command.make_context(name, rest)  # raises what is wrong with the flags
        elif words[:2] == ["python", "-m"]:
            assert importlib.util.find_spec(words[2]) is not None, words
        else:
            assert words[0] == "make" and words[1] in targets, words


@pytest.mark.parametrize("page", pages_with("sh"))
def test_quick_commands(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").symlink_to(ROOT / "data")
    went_whole = False
    # A command whose files come from one that is not quick is parsed only, above.
    for words, runs in shell_calls(page):
        given = arguments(words)
        if given is None or not runs:
            continue
        name, command, rest = command_of(given)
        made_elsewhere = any(word.startswith("runs/labels/") for word in rest)
        if name not in QUICK or made_elsewhere:
            continue
        makes = {
            flag for parameter in COMMANDS.commands["prompts"].params for flag in parameter.opts
        }
        if name == "run" and went_whole and makes.issuperset(rest[::2]):
            name, command = "prompts", COMMANDS.commands["prompts"]  # in which the runs differ
        went_whole |= name == "run"
        folder = {"FOLDER": str(wb.bundled_model_path()), "chat": "plain"}
        rest = [folder.get(word, word) for word in rest]
        flags = {flag for parameter in command.params for flag in parameter.opts}
        if "--prompts" in rest:  # which --n would make
            flags -= {"--n"}
        for flag in flags & SMALL.keys():
            rest = [*without(rest, flag), flag, SMALL[flag]]
        result = CliRunner().invoke(app, [*name.split(), *rest])
        assert result.exit_code == 0, (words, result.output, result.exception)


def without(words: list[str], flag: str) -> list[str]:
    at = words.index(flag) if flag in words else len(words)
    return words[:at] + words[at + 2 :]


@pytest.mark.parametrize("page", pages_with("json"))
def test_json(page: Path, tmp_path: Path) -> None:
    folder = wb.bundled_model_path()
    for number, block in enumerate(block for block in blocks(page) if block.language == "json"):
        given = json.loads(block.text)
        path = tmp_path / f"{number}.jsonl"
        path.write_text(json.dumps(given) + "\n", encoding="utf-8")
        if "heads" in given:
            assert len(heads_for(path, folder)) == len(given["heads"])
        else:
            model = folder if "text" in given["clean"] else None
            assert wb.validate(path, model=model)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links(page: Path) -> None:
    text = BLOCK.sub("", page.read_text(encoding="utf-8"))
    generated = ("commands/index.md", "api/index.md")  # made by docs/hooks.py
    for link in LINK.findall(text):
        if not link.startswith(("http", *generated)):
            assert (page.parent / link).exists(), link


@pytest.mark.parametrize("page", [*PAGES, *CARDS], ids=lambda page: str(page.relative_to(ROOT)))
def test_models_by_name_are_known(page: Path) -> None:
    """Folders of a user's own have capitals or a slash; those in `data` are there."""
    for name in re.findall(r"--model ([a-z][^\s`]*)", page.read_text(encoding="utf-8")):
        if name.startswith("data/"):
            assert (ROOT / name).is_dir(), name
        assert "/" in name or name in KNOWN, name


def test_readme_is_short() -> None:
    lines = PAGES[0].read_text(encoding="utf-8").splitlines()
    assert len(lines) <= 150
    assert [line for line in lines if len(line) > 100] == []


def test_readme_prints_what_it_says(capsys: pytest.CaptureFixture[str]) -> None:
    page = blocks(PAGES[0])
    at = next(number for number, block in enumerate(page) if block.language == "python")
    exec(compile(page[at].text, "README.md", "exec"), {})
    assert capsys.readouterr().out == page[at + 1].text
