"""A prompt file of a task, made for a model."""

from collections.abc import Collection
from pathlib import Path
from typing import Any

from workbench.errors import InputError
from workbench.files import check_number, check_writable
from workbench.models import loading
from workbench.progress import Reporter
from workbench.prompts.chat import ChatTemplate
from workbench.prompts.choices import LIMITS, OWN_TASK, check_task, check_template, open_source
from workbench.prompts.events import make_events
from workbench.prompts.files import write_prompts
from workbench.prompts.forms.asking import Way
from workbench.prompts.forms.form import open_form
from workbench.prompts.prompt import PromptSet
from workbench.prompts.task import Task
from workbench.prompts.templates import PlainTemplate, Template
from workbench.prompts.trained import has_record


def make_prompts(
    out: str | Path | None = None,
    *,
    model: str | Path | None = None,
    task: str = OWN_TASK,
    n_prompts: int = 40,
    template: str = "auto",
    split: str = "unseen",
    n_options: int | None = None,
    way: Way | None = None,
    n_read: int | None = None,
    n_near: int | None = None,
    n_mentions: int | None = None,
    n_retrieved: int | None = None,
    max_tokens: int | None = None,
    seed: int = 0,
    force: bool = False,
    reporter: Reporter | None = None,
) -> PromptSet:
    """Draw prompts of a task for a model's tokenizer, one decision event each; write them to `out`.

    The task is that which the model was trained on, unless another one is named. For tasks on
    ICD-10-CM, sizes and held-out categories are those that the model was trained with when its
    folder says so (`training.json`), at the upper end of every range; otherwise the task's
    defaults. For a folder of documents, see `workbench.prompts.shortlists.maker`; fewer prompts
    than asked for where it has no more documents. `reporter`, standard error by default, says how
    many, and why.
    `template` is one of `RunConfig`; `n_options` is how many options a prompt has, the task's own
    number unless given. What follows it is of prompts of documents, with the defaults of
    `ShortlistConfig`; `way` is how a form asks.

    Raises:
        InputError: the model has no tokenizer, no such task, limits of documents for another
            task, what opening it refuses, fewer than two documents give a prompt, or `out` exists
            and `force` is not given.
    """
    check_number("seed", seed)
    if out is not None and Path(out).exists() and not force:
        raise InputError(f"{out}: exists already; give another --out, or --force to replace it")
    if out is not None:
        check_writable(Path(out), file=True)
    source = loading.bundled_model_path() if model is None else model
    folder = loading.model_folder(source)
    tokenizer = needed_tokenizer(source)
    asked = (n_read, n_near, n_mentions, n_retrieved, max_tokens)
    pairs = zip(LIMITS, asked, strict=True)
    limits = {name: value for name, value in pairs if value is not None}
    drawn_from = open_source(task, folder, split)
    if isinstance(drawn_from, Task):
        check_template(template, check_task(task))
        check_limits(limits, way, task)
        form = open_template(settled_template(template, folder, tokenizer, task), tokenizer)
        if n_options is not None:
            drawn_from = drawn_from.sized(n_options)
        prompts = make_events(drawn_from, form, tokenizer, n_prompts=n_prompts, seed=seed)
    else:
        from workbench.prompts.shortlists.writers import open_writer

        drawn_from = drawn_from.sized(n_options, limits)
        writing = settled_template(template, folder, tokenizer, task)
        writer = open_writer(
            writing, tokenizer, task=task, max_tokens=drawn_from.sizes.max_tokens, way=way or "auto"
        )
        prompts = drawn_from.prompts(
            writer, tokenizer, n_prompts=n_prompts, seed=seed, reporter=reporter or Reporter()
        )
    if out is not None:
        write_prompts(prompts, out)
    return prompts


def check_limits(limits: Collection[str], way: str | None, task: str) -> None:
    """Refuse settings that only prompts of documents have.

    Raises:
        InputError: naming the first.
    """
    given = [*limits, *(["way"] if way else [])]
    if given:
        raise InputError(f"{given[0]} is of prompts of documents, and task {task} has none")


def needed_tokenizer(source: str | Path) -> Any:
    """The tokenizer of a model's folder or hub id.

    Raises:
        InputError: it has none.
    """
    tokenizer = loading.read_tokenizer(loading.model_folder(source))
    if tokenizer is None:
        raise InputError(
            f"model {source} has no tokenizer to make prompts with; give prompts of token ids "
            "with --prompts"
        )
    return tokenizer


def settled_template(name: str, folder: Path | None, tokenizer: Any, task: str = OWN_TASK) -> str:
    """The template of a name; of "auto" plain for models trained here and tasks of no other.

    For others it is the form of a task's documents, else chat where they have a chat form. What is
    known by its tokenizer alone, without a folder, was not trained here.
    """
    if name != "auto":
        return name
    kind = check_task(task)
    if kind.plain or trained_here(folder):
        return "plain"
    if kind.takes_folder:
        return open_form(None, task).name
    return "chat" if getattr(tokenizer, "chat_template", None) else "plain"


def trained_here(folder: Path | None) -> bool:
    """Whether a model's folder says so, of itself or, of a student, of its teacher."""
    return folder is not None and has_record(folder)


def open_template(name: Any, tokenizer: Any) -> Template:
    """A template by name, for a model's tokenizer.

    Raises:
        InputError: the tokenizer has no chat template, or one that cannot be used.
    """
    return PlainTemplate() if name == "plain" else ChatTemplate(tokenizer, name)
