"""Tasks by name: what prompts can be made of.

A task is loaded when it is opened, so this module is light enough for the configuration.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workbench.errors import InputError

if TYPE_CHECKING:
    from workbench.prompts.task import Task

DEFAULT_TASK = "icd10cm"
LIMITS = ("n_read", "n_near", "n_mentions", "n_retrieved", "max_tokens")
"""Settings of prompts of documents, beside the number of options."""
TEMPLATES = ("auto", "plain", "chat", "chat-single", "chat-list", "think")
"""Templates by name; of documents they tell numbered mentions."""
OWN_TASK = "auto"
"""Stands for the task that a model's folder says it was trained on, or the default one."""


@dataclass(frozen=True)
class TaskKind:
    """A name that a task can be asked for by.

    Attributes:
        name: of the task; `NAME:FOLDER` where it is of a folder.
        opener: makes it: given `model` (the folder of the model it is for), `split` ("seen",
            "unseen"), `full_size` (largest prompts alone, as for evaluation) and `folder`. Or
            where it is: "module:function".
        takes_folder: whether it is of a folder.
        stages: reads the steps of a chain, as `Task.stages` does; or where it is.
        plain: whether its prompts are of the plain template alone.
    """

    name: str
    opener: str | Callable[..., Any]
    takes_folder: bool = False
    stages: str | Callable[[int, Sequence[str]], Sequence[str]] = "chain:numbered_stages"
    plain: bool = False

    @property
    def form(self) -> str:
        """How the task is named."""
        return f"{self.name}:FOLDER" if self.takes_folder else self.name


_SIDED = "laterality_chain:laterality_stages"
KINDS = {
    kind.name: kind
    for kind in (
        TaskKind(DEFAULT_TASK, "trained:open_trained"),
        TaskKind("laterality", "trained:open_laterality", stages=_SIDED),
        TaskKind("laterality-chain", "trained:open_laterality", stages=_SIDED, plain=True),
        TaskKind("xmc", "documents:open_documents", takes_folder=True),
        TaskKind("mimic4", "documents:open_documents", takes_folder=True),
    )
}
"""Every task by name; add to it to have one of your own."""


def check_task(task: str) -> TaskKind:
    """The kind of a task by its name; refuse one that has no such form.

    Raises:
        InputError: no known task, one of a folder without its folder, or the other way round.
    """
    name, _, folder = task.partition(":")
    kind = KINDS.get(DEFAULT_TASK if task == OWN_TASK else name)
    if kind is None or bool(folder) != kind.takes_folder or task.endswith(":"):
        known = ", ".join((OWN_TASK, *(kind.form for kind in KINDS.values())))
        raise InputError(f"task {task!r} is not one of {known}")
    return kind


def check_template(template: str, kind: TaskKind) -> None:
    """Refuse a template that prompts of a task do not have; of folders they may be forms.

    Raises:
        InputError: naming those that they have.
    """
    if template not in TEMPLATES and not kind.takes_folder:
        raise InputError(
            f"template {template!r} is not one of {', '.join(TEMPLATES)}; forms are of documents"
        )


def settled_task(task: str, model: Path) -> str:
    """The name of a task, or of the one that a model was trained on.

    A model that was trained to reason is asked in the middle of its chain, where it decides.

    Raises:
        InputError: the model's training record cannot be read.
    """
    if task != OWN_TASK:
        return task
    own = _found("trained:trained_task")(model)
    return "laterality-chain" if own == "laterality" else own


def open_source(task: str, model: Path, split: str, *, full_size: bool = True) -> Any:
    """A `Task`, or the `Documents` of a folder, by name.

    Raises:
        InputError: what `check_task` or its opener refuses.
    """
    task = settled_task(task, model)
    return _found(check_task(task).opener)(task=task, model=model, split=split, full_size=full_size)


def open_task(task: str = OWN_TASK, *, model: Path, split: str, full_size: bool = True) -> "Task":
    """The task of a name, for a model.

    Args:
        task: its name.
        model: the model's folder, which may say what it was trained on.
        split: labels that the model was trained on ("seen") or not ("unseen").
        full_size: whether all prompts have the largest size, as for evaluation.

    Raises:
        InputError: no such task, what its opener refuses, or documents that give prompts alone.
    """
    from workbench.prompts.task import Task

    found = open_source(task, model, split, full_size=full_size)
    if not isinstance(found, Task):
        raise InputError(f"task {task!r} has no chains of thought and answers, only prompts")
    return found


def stage_reader(task: str) -> Callable[[int, Sequence[str]], Sequence[str]]:
    """How the steps of chains of a task are read, by the name of its prompts."""
    kind = KINDS.get(task.partition(":")[0], KINDS[DEFAULT_TASK])
    return _found(kind.stages)


def _found(place: Any) -> Any:
    if not isinstance(place, str):
        return place
    module, _, name = place.partition(":")
    return getattr(import_module(f"workbench.prompts.{module}"), name)
