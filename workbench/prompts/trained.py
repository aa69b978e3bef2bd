"""The coding task that a bundled model was trained on, by the training record in its folder."""

import json
from functools import lru_cache
from pathlib import Path
from typing import Any

from workbench.errors import InputError, first_line
from workbench.files import read_text
from workbench.labels.icd10cm import load_icd10cm
from workbench.labels.space import LabelSpace
from workbench.prompts.coding import SIZES, CodingTask, TaskConfig, split_categories
from workbench.prompts.shorthand import ShorthandConfig

TRAINING_RECORD = "training.json"


def open_trained(*, model: Path, split: str, full_size: bool = True, task: str = "") -> CodingTask:
    """The task a model was trained on, over its seen or unseen categories.

    Sizes are at the upper end of their ranges, as prompts for evaluation have them, unless
    `full_size` is False: then they are the ranges of training. A folder without a training record
    gets the task's defaults.

    Raises:
        InputError: the training record cannot be read.
    """
    path = model / TRAINING_RECORD
    sizes, held_out, seed = TaskConfig(), 0.1, 0
    if path.is_file():
        try:
            trained = json.loads(read_text(path))["config"]
            sizes = _sizes(trained["task"])
            held_out, seed = trained["held_out"], trained["split_seed"]
        except (ValueError, RecursionError, KeyError, TypeError, IndexError) as error:
            raise InputError(
                f"{path}: is not the training record of a bundled model "
                f"({type(error).__name__}: {first_line(error)})"
            ) from error
    sizes = sizes.at_full_size() if full_size else sizes
    return _task_of(load_icd10cm(), split, held_out, seed, sizes)


@lru_cache(maxsize=4)
def _task_of(
    space: LabelSpace, split: str, held_out: float, seed: int, sizes: TaskConfig
) -> CodingTask:
    """Made once, as the words of every label are: what draws from a task does not change it."""
    seen, unseen = split_categories(space, held_out=held_out, seed=seed)
    return CodingTask(space, seen if split == "seen" else unseen, sizes)


def _sizes(task: dict[str, Any]) -> TaskConfig:
    ranges = {name: (task[name][0], task[name][1]) for name in SIZES}
    return TaskConfig(**{**task, **ranges, "shorthand": ShorthandConfig(**task["shorthand"])})
