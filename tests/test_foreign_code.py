"""No code that comes with a model is run, and nobody is asked whether it may be."""

import ast
import json
import shutil
from pathlib import Path

import pytest
from fixtures.tiny_runs import save_model
from typer.testing import CliRunner

import workbench
from workbench.cli import app

PACKAGE = Path(workbench.__file__).parent
STUDENT = Path(__file__).parents[1] / "data" / "students" / "cot"


def test_every_call_that_could_run_it_says_no():
    """transformers asks on standard input where the argument is missing."""
    calls = [
        (path.name, call.lineno, {word.arg: ast.unparse(word.value) for word in call.keywords})
        for path in PACKAGE.rglob("*.py")
        for call in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(call, ast.Call)
        and getattr(call.func, "attr", "") in ("from_pretrained", "from_config")
    ]
    assert len(calls) > 3
    assert [call for call in calls if call[2].get("trust_remote_code") != "False"] == []


COMMANDS = [
    "run --model MODEL --out OUT",
    "prompts --model MODEL --n 2 --out OUT",
    "prompts --model MODEL --task xmc:DOCUMENTS --n 2 --out OUT",
    "distill --arm cot --teacher MODEL --out OUT",
    "traces --teacher MODEL --out OUT",
    "evaluate-students STUDENT --teacher MODEL --out OUT",
    "evaluate-students CODED --out OUT",
    "labels --model MODEL --out OUT",
    "trajectory MODEL --out OUT",
    "bench patching --model MODEL --out OUT",
]


@pytest.fixture(scope="module")
def with_code(tmp_path_factory) -> Path:
    """A model of an unknown type that brings the code for it; running that leaves a file."""
    folder = save_model("llama", tmp_path_factory.mktemp("foreign") / "model")
    config = json.loads((folder / "config.json").read_text())
    classes = {"AutoConfig": "code.Config", "AutoModelForCausalLM": "code.Model"}
    config |= {"model_type": "theirs", "auto_map": classes}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "code.py").write_text(f"open({str(folder / 'was-run')!r}, 'w')")
    return folder


@pytest.mark.parametrize("command", COMMANDS)
def test_no_command_runs_it_or_asks(with_code, tmp_path, command):
    coded = shutil.copytree(with_code, tmp_path / "coded")
    shutil.copy(STUDENT / "training.json", coded)
    places = {"MODEL": with_code, "OUT": tmp_path / "out", "DOCUMENTS": tmp_path}
    places |= {"STUDENT": STUDENT, "CODED": coded}
    for name, place in places.items():
        command = command.replace(name, str(place))
    result = CliRunner().invoke(app, command.split(), input="y\n" * 9)
    assert result.exit_code == 2, result.output
    assert "model_type 'theirs' is none that" in " ".join(result.output.split())
    assert "[y/N]" not in result.output
    assert not (with_code / "was-run").exists()
