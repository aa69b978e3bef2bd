"""The task that a bundled model or its student was trained on, by the record in its folder."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

from workbench.errors import InputError, first_line
from workbench.files import read_text
from workbench.labels.icd10cm import load_icd10cm
from workbench.labels.space import LabelSpace
from workbench.prompts.choices import DEFAULT_TASK
from workbench.prompts.coding import SIZES, CodingTask, TaskConfig, split_categories
from workbench.prompts.laterality import NAME as LATERALITY
from workbench.prompts.laterality import (
    REASONED,
    LateralityConfig,
    LateralityTask,
    ReasonedLaterality,
)
from workbench.prompts.shorthand import ShorthandConfig

TRAINING_RECORD = "training.json"
UNTRAINED = TaskConfig(family_size=(3, 3))
"""For models that were not trained on the task: 12 options."""


def open_trained(*, model: Path, split: str, full_size: bool = True, task: str = "") -> CodingTask:
    """The task a model was trained on, over its seen or unseen categories.

    Sizes are at the upper end of their ranges, as prompts for evaluation have them, unless
    `full_size` is False: then they are the ranges of training. A folder without a training record,
    or with one of another task, gets `UNTRAINED`.

    Raises:
        InputError: the training record cannot be read.
    """
    sizes, held_out, seed = UNTRAINED, 0.1, 0
    with _record(model) as trained:
        if trained is not None and trained_task(model) == DEFAULT_TASK:
            sizes = _sizes(trained["task"])
            held_out, seed = trained["held_out"], trained["split_seed"]
    sizes = sizes.at_full_size() if full_size else sizes
    return _task_of(load_icd10cm(), split, held_out, seed, sizes)


def open_laterality(
    *, model: Path, split: str, full_size: bool = True, task: str = LATERALITY
) -> LateralityTask:
    """The laterality task over a model's seen or unseen categories; see `open_trained`.

    `task` says whether mentions are asked about directly or in the middle of a chain.

    Raises:
        InputError: the training record cannot be read.
    """
    config, held_out, seed = LateralityConfig(), 0.1, 0
    with _record(model) as trained:
        if trained is not None and trained_task(model) == LATERALITY:
            settings = {**trained["task"], "shorthand": _shorthand(trained["task"])}
            settings.pop("name", None)
            config = LateralityConfig(**settings)
            held_out, seed = trained["held_out"], trained["split_seed"]
    kind = ReasonedLaterality if task == REASONED else LateralityTask
    return _laterality_of(kind, load_icd10cm(), split, held_out, seed, config)


def trained_task(model: Path) -> str:
    """Name of the task that a model's folder says it was trained on; the default where it does not.

    Raises:
        InputError: the training record cannot be read.
    """
    with _record(model) as trained:
        return DEFAULT_TASK if trained is None else trained["task"].get("name", DEFAULT_TASK)


def has_record(model: Path) -> bool:
    """Whether a folder says what its model, or a student's teacher, was trained on.

    Raises:
        InputError: the training record cannot be read.
    """
    with _record(model) as trained:
        return trained is not None


def training_of(model: Path) -> dict[str, Any] | None:
    """What a model's folder says of its task and split, as a student's record passes it on.

    None where it says nothing.

    Raises:
        InputError: the training record cannot be read.
    """
    names = ("task", "held_out", "split_seed")
    with _record(model) as trained:
        if trained is None or not trained.keys() >= {*names}:
            return None
        return {name: trained[name] for name in names}


@contextmanager
def _record(model: Path) -> Iterator[dict[str, Any] | None]:
    """The configuration in the folder's training record, or its teacher's of a student.

    None where there is no record, or the teacher had none.
    """
    path = model / TRAINING_RECORD
    if not path.is_file():
        yield None
        return
    try:
        record = json.loads(read_text(path))
        yield record["trained_as"] if "trained_as" in record else record["config"]
    except InputError:
        raise
    except (ValueError, RecursionError, KeyError, TypeError, IndexError, AttributeError) as error:
        raise InputError(
            f"{path}: is not the training record of a bundled model "
            f"({type(error).__name__}: {first_line(error)})"
        ) from error


@lru_cache(maxsize=4)
def _task_of(
    space: LabelSpace, split: str, held_out: float, seed: int, sizes: TaskConfig
) -> CodingTask:
    """Made once, as the words of every label are: what draws from a task does not change it."""
    seen, unseen = split_categories(space, held_out=held_out, seed=seed)
    return CodingTask(space, seen if split == "seen" else unseen, sizes)


@lru_cache(maxsize=4)
def _laterality_of(
    kind: type[LateralityTask],
    space: LabelSpace,
    split: str,
    held_out: float,
    seed: int,
    config: LateralityConfig,
) -> LateralityTask:
    seen, unseen = split_categories(space, held_out=held_out, seed=seed)
    return kind(space, seen if split == "seen" else unseen, config)


def _shorthand(task: dict[str, Any]) -> ShorthandConfig:
    return ShorthandConfig(**task["shorthand"])


def _sizes(task: dict[str, Any]) -> TaskConfig:
    ranges = {name: (task[name][0], task[name][1]) for name in SIZES}
    return TaskConfig(**{**task, **ranges, "shorthand": _shorthand(task)})
