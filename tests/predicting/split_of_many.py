"""Predictions of a small split, in this process or as one of several."""

import os
import sys
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from workbench.predicting import blocks
from workbench.predicting.config import PredictionConfig
from workbench.predicting.run import predict
from workbench.progress import Reporter

XMC = Path(__file__).parents[2] / "data" / "synthetic" / "xmc"
CONFIG = PredictionConfig(
    split="train", candidates=5, shortlisted=8, ways="bm25", patience=1.0, n_documents=30
)


def predict_some(out: Path, model: Any, reporter: Reporter | None = None, **given: Any) -> Any:
    """In blocks of seven, so that there are several."""
    blocks.BLOCK = 7
    quiet = reporter or Reporter(Console(quiet=True))
    given = {"config": CONFIG, "task": f"xmc:{XMC}", "device": "cpu", **given}
    return predict(out, given.pop("task"), model, given.pop("config"), reporter=quiet, **given)


def in_process(environment: dict[str, str], errors: Path, out: Path, model: Path) -> None:
    """What a process of a launcher does, with standard error in a file."""
    os.dup2(os.open(errors, os.O_WRONLY | os.O_CREAT), sys.stderr.fileno())
    os.environ |= environment
    torch.set_num_threads(1)
    predict_some(out, model, Reporter())
