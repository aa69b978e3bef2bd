"""What a test starts in processes of their own: a command as one of those of a launch."""

import os
import sys
from functools import partial
from pathlib import Path
from typing import Any

import torch

import workbench.runs.session  # noqa: F401  (what commands load, once for all of them)
from workbench import presence
from workbench.cli import app
from workbench.runs import evidence, patch


def in_process(
    environment: dict[str, str], said: Path, command: list[str], stop_after: int | None
) -> None:
    """Run a command with its output in a file; it ends as if killed after so many patched events.

    The others notice it within seconds.
    """
    file = os.open(said, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for stream in (sys.stdout, sys.stderr):
        os.dup2(file, stream.fileno())
    os.environ |= environment
    torch.set_num_threads(1)
    presence.BEAT, presence.LOOK, presence.SECONDS_BETWEEN_LINES = 0.1, 0.02, 1.0
    presence.PATIENCE = presence.LINGER = 15.0
    fewer = {"selection_stability": {"n_resamples": 4}, "sample_size_curve": {"n_subsets": 2}}
    for name, few in fewer.items():
        setattr(evidence, name, partial(getattr(evidence, name), **few))
    if stop_after is not None:
        _stop_after(stop_after)
    app(command)


def _stop_after(count: int) -> None:
    real, done = patch.sweep_event, []

    def sweep(*given: Any, **named: Any) -> Any:
        if len(done) == count:
            os._exit(9)
        done.append(1)
        return real(*given, **named)

    patch.sweep_event = sweep
