"""Steps of a run that several processes share: as one process does them, killed and gone on."""

import multiprocessing
import re
from multiprocessing import forkserver
from pathlib import Path
from shutil import copytree

import pandas as pd
import pytest
from fixtures.tiny_runs import save_model, save_prompts
from runs.several_processes import in_process

from workbench.presence import FOLDER
from workbench.runs.folder import RunFolder

TESTS = Path(__file__).parents[1]
FLAGS = [
    *("--n-resamples", "50", "--n-permutations", "50", "--draws", "2", "--heads", "all"),
    *("--n-paired", "2", "--positions", "span", "--device", "cpu"),
    *("--false-discovery-rate", "1", "--min-restore-low", "0"),
]
"""Every head passes, so that there are pools to test even in a random model."""


@pytest.fixture(scope="module")
def given(tmp_path_factory) -> Path:
    """A folder with a model and prompts for it."""
    folder = tmp_path_factory.mktemp("several")
    save_model("llama", folder / "model")
    save_prompts(folder / "model", folder / "prompts.jsonl", n_prompts=8)
    return folder


@pytest.fixture(scope="module")
def launch(given):
    """Runs a command in so many processes: their exit codes and what each said."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["runs.several_processes"])
    with pytest.MonkeyPatch.context() as patch:
        # Python 3.11 does not tell the server its own path; what it cannot import it passes over.
        patch.setenv("PYTHONPATH", f"{TESTS}:{TESTS.parent}")
        forkserver.ensure_running()

    def run(world: int, command: str, out: Path, *flags: str, stop=(), models=()):
        each, stop, models = [], dict(stop), dict(models)
        for rank in range(world):
            environment = {"RANK": str(rank), "WORLD_SIZE": str(world), "OMP_NUM_THREADS": "1"}
            said = given / f"{rank}.txt"
            model = str(models.get(rank, given / "model"))
            words = [command, "--model", model, "--out", str(out), *flags]
            arguments = (environment, said, words, stop.get(rank))
            each.append(context.Process(target=in_process, args=arguments))
        for one in each:
            one.start()
        for one in each:
            one.join(timeout=120)
            one.kill()  # nothing where it ended by itself
        said = [(given / f"{rank}.txt").read_text() for rank in range(world)]
        return [one.exitcode for one in each], said

    return run


@pytest.fixture(scope="module")
def alone(given, launch) -> Path:
    """The run of one process."""
    out, prompts = given / "alone", ("--prompts", str(given / "prompts.jsonl"))
    for command, flags in (("run", [*prompts, *FLAGS]), ("evidence", ())):
        codes, said = launch(1, command, out, *flags)
        assert codes == [0], said
    return out


def assert_alike(one: Path, other: Path) -> None:
    names = [path.relative_to(one) for path in sorted(one.rglob("*.parquet"))]
    assert names == [path.relative_to(other) for path in sorted(other.rglob("*.parquet"))]
    for name in names:
        tables = (pd.read_parquet(folder / name) for folder in (one, other))
        pd.testing.assert_frame_equal(*tables, atol=1e-6, rtol=0, obj=str(name))


def test_two_processes_killed_and_gone_on_make_the_tables_of_one(alone, given, launch, tmp_path):
    out, prompts = tmp_path / "run", ("--prompts", str(given / "prompts.jsonl"))
    codes, said = launch(2, "run", out, *prompts, *FLAGS, stop={1: 2})
    assert codes == [2, 9]
    assert re.search(r"^waiting for process 1 \(\d of 4 events\)$", said[0], re.MULTILINE)
    dead = "error: process 1 of 2 has not been heard of for 15 s"
    assert said[0].splitlines()[-1].startswith(dead)
    assert said[1] == ""
    parts = RunFolder.open(out).parts("patch")
    assert {1, 3} <= set(parts) and not {5, 7} & set(parts)
    kept = copytree(out, tmp_path / "kept")
    codes, said = launch(3, "run", kept, *FLAGS)
    assert codes == [0, 0, 0] and said[1:] == ["", ""]
    done = re.search(r"patch: (\d) of 9 events were done before", said[0])
    assert done and int(done[1]) >= len(parts)  # others may begin first
    for command in ("evidence", "patch"):
        codes, said = launch(2, command, kept)
        assert codes == [0, 0] and said[1] == "", said
    assert "patch: finished before, skipped" in said[0]
    assert not (kept / FOLDER).exists()
    assert_alike(alone, kept)


def test_what_all_processes_refuse_is_said_once(alone, launch, tmp_path):
    codes, said = launch(2, "patch", copytree(alone, tmp_path / "run"), "--heads", "9-0")
    assert codes == [2, 2]
    errors = [line for line in said[0].splitlines() if line.startswith("error: ")]
    assert len(errors) == 1 and "head (layer 9, head 0) is not in model" in errors[0]
    assert said[1] == ""


def test_what_one_process_refuses_is_said_by_the_main_one(alone, launch, tmp_path):
    other = save_model("gpt2", tmp_path / "other")
    out = copytree(alone, tmp_path / "run")
    codes, said = launch(2, "patch", out, models={1: other})
    assert codes == [2, 2] and said[1] == ""
    last = said[0].splitlines()[-1]
    assert last.startswith(f"error: process 1 of 2: {out}: holds another run: model.weights_sha256")
