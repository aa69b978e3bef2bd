import json
import os
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from safetensors.torch import load_file
from two_processes import STEPS, distil_small

from workbench.distill.student_folder import last_checkpoint

SCRIPT = Path(__file__).with_name("two_processes.py")
FSDP = Path(__file__).parents[2] / "data" / "accelerate" / "fsdp.yaml"


@pytest.fixture
def launch(teacher, trace_file, tmp_path):
    """Two processes that train into a folder of this name: exit code and standard error."""

    def run(name: str, *flags: str, **environment: str) -> tuple[int, str]:
        start = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2"]
        start += ["--rdzv_backend", "c10d", "--rdzv_endpoint", "localhost:0"]  # a free port
        arguments = [str(teacher), str(trace_file.parent), str(tmp_path / name), "1", *flags]
        done = subprocess.run(
            [*start, str(SCRIPT), *arguments],
            env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
            capture_output=True,
            text=True,
            timeout=300,
        )
        return done.returncode, done.stderr

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


def test_two_processes_train_as_one_that_accumulates(teacher, trace_file, launch, tmp_path):
    distil_small(teacher, trace_file.parent, tmp_path / "one", 2)
    code, errors = launch("two")
    assert code == 0, errors[-2000:]
    assert_alike(tmp_path / "one", tmp_path / "two")


def test_sharded_weights_are_trained_stopped_and_saved(teacher, trace_file, launch, fsdp, tmp_path):
    distil_small(teacher, trace_file.parent, tmp_path / "one", 2, interaction=0.0)
    two, flags = tmp_path / "two", ["--sharded", "--interaction", "0"]
    code, _ = launch("two", *flags, "--stop-at", "15", **fsdp)
    assert code != 0 and not (two / "model.safetensors").exists()
    assert last_checkpoint(two) == str(two / "checkpoints" / "checkpoint-10")
    code, errors = launch("two", *flags, "--begin-at", "10", **fsdp)
    assert code == 0, errors[-2000:]
    assert_alike(tmp_path / "one", two)
    whole, saved = (load_file(folder / "model.safetensors") for folder in (tmp_path / "one", two))
    for name, weight in whole.items():
        assert saved[name].allclose(weight, atol=1e-5), name
    readouts = [pd.read_parquet(folder / "readout.parquet") for folder in (tmp_path / "one", two)]
    pd.testing.assert_frame_equal(*readouts, atol=1e-4)
    assert not (two / "checkpoints").exists()
