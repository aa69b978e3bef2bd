import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from two_processes import STEPS, distil_small

SCRIPT = Path(__file__).with_name("two_processes.py")


def test_two_processes_train_as_one_that_accumulates(teacher, trace_file, tmp_path):
    distil_small(teacher, trace_file.parent, tmp_path / "one", 2)
    launch = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2"]
    launch += ["--rdzv_backend", "c10d", "--rdzv_endpoint", "localhost:0"]  # a free port
    arguments = [str(teacher), str(trace_file.parent), str(tmp_path / "two"), "1"]
    done = subprocess.run(
        [*launch, str(SCRIPT), *arguments],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    one, two = (
        json.loads((tmp_path / name / "training.json").read_text())["loss"]
        for name in ("one", "two")
    )
    assert len(one) == len(two) == STEPS
    for mine, theirs in zip(one, two, strict=True):
        assert theirs == pytest.approx(mine, abs=1e-4)
