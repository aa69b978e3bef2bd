import json
import multiprocessing
import socket
from multiprocessing import forkserver
from multiprocessing.context import BaseContext
from pathlib import Path

import pandas as pd
import pytest
from distill.training.two_processes import RECOMPUTED, STEPS, distil_small, in_process
from safetensors.torch import load_file

from workbench.distill.targets.make import Making
from workbench.distill.targets.packing import Packing
from workbench.distill.training.folder import last_checkpoint

TESTS = Path(__file__).parents[2]
FSDP = TESTS.parent / "data" / "accelerate" / "fsdp.yaml"


@pytest.fixture(scope="module")
def processes() -> BaseContext:
    """Where processes start that have torch and transformers loaded: once for all of them."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["distill.training.two_processes"])
    with pytest.MonkeyPatch.context() as patch:
        # Python 3.11 does not tell the server its own path; what it cannot import it passes over.
        patch.setenv("PYTHONPATH", str(TESTS))
        forkserver.ensure_running()
    return context


@pytest.fixture
def launch(processes, teacher, trace_file, tmp_path):
    """Two processes that train into a folder of this name: exit codes and standard error."""

    def run(name: str, environment=(), **options) -> tuple[list[int | None], str]:
        given = {"teacher": teacher, "traces": trace_file.parent, "accumulation": 1, **options}
        given["out"] = tmp_path / name
        with socket.socket() as free:
            free.bind(("localhost", 0))
            port = free.getsockname()[1]
        errors = [tmp_path / f"{port}-{rank}.txt" for rank in range(2)]
        both = []
        for rank, log in enumerate(errors):
            of_rank = dict(environment) | {
                "RANK": str(rank),
                "LOCAL_RANK": str(rank),
                "WORLD_SIZE": "2",
                "LOCAL_WORLD_SIZE": "2",
                "MASTER_ADDR": "localhost",
                "MASTER_PORT": str(port),
                "OMP_NUM_THREADS": "1",
            }
            both.append(processes.Process(target=in_process, args=(of_rank, log), kwargs=given))
        for each in both:
            each.start()
        for each in both:
            each.join(timeout=600)
            each.kill()  # nothing where it ended by itself
        return [each.exitcode for each in both], "".join(log.read_text() for log in errors)

    return run


@pytest.fixture
def fsdp() -> dict[str, str]:
    """What `accelerate launch` makes of the configuration file that users are given."""
    import yaml

    given = yaml.safe_load(FSDP.read_text())["fsdp_config"]
    return {"ACCELERATE_USE_FSDP": "true"} | {
        name.upper(): str(value).lower() if isinstance(value, bool) else str(value)
        for name, value in given.items()
    }


def losses(folder: Path) -> list[dict[str, float]]:
    return json.loads((folder / "training.json").read_text())["loss"]


def assert_alike(one: Path, two: Path) -> None:
    assert len(losses(one)) == len(losses(two)) == STEPS
    for mine, theirs in zip(losses(one), losses(two), strict=True):
        assert theirs == pytest.approx(mine, abs=1e-4)

    whole, other = (load_file(folder / "model.safetensors") for folder in (one, two))
    for name, weight in whole.items():
        assert other[name].allclose(weight, atol=1e-5), name


def test_a_step_is_the_same_of_one_forward_several_or_two_processes(
    teacher, trace_file, launch, tmp_path
):
    distil_small(teacher, trace_file.parent, tmp_path / "one", 1, size=8, own=True)
    distil_small(teacher, trace_file.parent, tmp_path / "halves", 2, own=True)
    assert_alike(tmp_path / "one", tmp_path / "halves")
    codes, errors = launch("two", own=True)
    assert codes == [0, 0], errors[-2000:]
    assert_alike(tmp_path / "one", tmp_path / "two")


def test_sharded_weights_are_trained_stopped_and_saved(teacher, trace_file, launch, fsdp, tmp_path):
    # Beside the teacher's targets on disk and no teacher; the processes share the teacher itself.
    given, targets = (teacher, trace_file.parent), tmp_path / "targets"
    making = Making(targets, Packing(exact=True))
    distil_small(*given, tmp_path / "work", 2, hidden=0.1, making=making)
    distil_small(*given, tmp_path / "one", 2, hidden=0.1, targets=targets)
    two, flags = tmp_path / "two", {"sharded": True, "hidden": 0.1, "teacher_sharded": True}
    codes, _ = launch("two", fsdp, **flags, stop_at=5)
    assert 0 not in codes and not (two / "model.safetensors").exists()
    assert last_checkpoint(two) == str(two / "checkpoints" / "checkpoint-3")
    # Goes on with activations that FSDP lets go of: that changes nothing either.
    codes, errors = launch("two", fsdp | {RECOMPUTED: "true"}, **flags, begin_at=3)
    assert codes == [0, 0], errors[-2000:]
    assert_alike(tmp_path / "one", two)
    readouts = [pd.read_parquet(folder / "readout.parquet") for folder in (tmp_path / "one", two)]
    pd.testing.assert_frame_equal(*readouts, atol=1e-4)
    assert not (two / "checkpoints").exists()
