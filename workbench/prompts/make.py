"""What a run starts from: the bundled model, a prompt file, and checks of what others give."""

import json
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from workbench.errors import InputError
from workbench.labels.corpus import LabelledCorpus
from workbench.labels.icd10cm import load_icd10cm
from workbench.labels.mimic4 import load_mimic4
from workbench.labels.space import LabelSpace
from workbench.labels.xmc import load_xmc
from workbench.models import loading
from workbench.models.loading import bundled_model_path
from workbench.progress import Reporter
from workbench.prompts.choices import ICD10CM
from workbench.prompts.events import make_events
from workbench.prompts.files import write_prompts
from workbench.prompts.prompt import PromptSet
from workbench.prompts.shorthand import ShorthandConfig
from workbench.prompts.shortlist import ShortlistConfig, make_shortlisted
from workbench.prompts.tasks import CodingTask, TaskConfig, split_categories
from workbench.prompts.templates import ChatTemplate, PlainTemplate, Template

TRAINING_RECORD = "training.json"
SIZES = ("n_mentions", "n_families", "family_size")
SPLIT_FILES = ("splits.csv", "splits.feather", "splits.parquet")


def make_prompts(
    out: str | Path | None = None,
    *,
    model: str | Path | None = None,
    task: str = ICD10CM,
    n_prompts: int = 40,
    template: str = "plain",
    split: str = "unseen",
    seed: int = 0,
    force: bool = False,
    reporter: Reporter | None = None,
) -> PromptSet:
    """Draw prompts of a task for a model's tokenizer, one decision event each; write them to `out`.

    For ICD-10-CM, sizes and held-out categories are those that the model was trained with when its
    folder says so (`training.json`), at the upper end of every range; otherwise the task's
    defaults. For a folder of documents, see `workbench.prompts.shortlist`; fewer prompts than asked
    for where it has no more documents. `reporter`, standard error by default, says how many.

    Raises:
        InputError: the model has no tokenizer, its training record or the documents cannot be read,
            fewer than two documents give a prompt, or `out` exists and `force` is not given.
    """
    if out is not None and Path(out).exists() and not force:
        raise InputError(f"{out}: exists already; give another --out, or --force to replace it")
    source = bundled_model_path() if model is None else model
    folder = loading.model_folder(source)
    tokenizer = loading.read_tokenizer(folder)
    if tokenizer is None:
        raise InputError(
            f"model {source} has no tokenizer to make prompts with; give prompts of token ids "
            "with --prompts"
        )
    form: Template = PlainTemplate() if template == "plain" else ChatTemplate(tokenizer)
    if task == ICD10CM:
        coding = coding_task(folder, split)
        prompts = make_events(coding, form, tokenizer, n_prompts=n_prompts, seed=seed)
    else:
        prompts = _shortlisted(
            task,
            "train" if split == "seen" else "test",
            form,
            tokenizer,
            n_prompts=n_prompts,
            seed=seed,
            config=_sizes_that_fit(folder),
            reporter=reporter or Reporter(),
        )
    if out is not None:
        Path(out).parent.mkdir(parents=True, exist_ok=True)
        write_prompts(prompts, out)
    return prompts


def _shortlisted(
    task: str,
    wanted: str,
    template: Template,
    tokenizer: Any,
    *,
    n_prompts: int,
    seed: int,
    config: ShortlistConfig,
    reporter: Reporter,
) -> PromptSet:
    corpus = open_corpus(task)
    split = wanted if wanted in corpus.splits else corpus.splits[-1]
    name = f"{task.partition(':')[0]}:{corpus.name}"
    with reporter.step("prompts"):
        prompts, made = make_shortlisted(
            corpus,
            split,
            template,
            tokenizer,
            n_prompts=n_prompts,
            seed=seed,
            task=name,
            config=config,
        )
    few = f" (asked for {n_prompts})" if made.n_used < n_prompts else ""
    reporter.say(f"{name}, split {split}{few}: {made}")
    if made.n_used < 2:
        raise InputError(f"{name}, split {split}: only one document gives a prompt, need two")
    return prompts


def _sizes_that_fit(folder: Path) -> ShortlistConfig:
    """Default sizes, with prompts that are not longer than the model's context."""
    from transformers import AutoConfig

    loading.read_config(folder)
    text_config: Any = AutoConfig.from_pretrained(folder, local_files_only=True).get_text_config()
    sizes = ShortlistConfig()
    context = getattr(text_config, "max_position_embeddings", None) or sizes.max_tokens
    return replace(sizes, max_tokens=min(context, sizes.max_tokens))


def open_corpus(task: str) -> LabelledCorpus:
    """The documents that a task names: `xmc:FOLDER`, or `mimic4:FOLDER`, of ICD-10.

    MIMIC-IV's splits are read from `splits.csv` (or .feather, .parquet) if the folder holds one.

    Raises:
        InputError: another task, or a folder that is not as its format has it.
    """
    form, _, folder = task.partition(":")
    if form == "xmc":
        return load_xmc(folder)
    if form == "mimic4":
        found = [path for name in SPLIT_FILES if (path := Path(folder) / name).is_file()]
        return load_mimic4(folder, splits=found[0] if found else None)
    raise InputError(f"task {task!r} names no folder of documents: xmc:FOLDER or mimic4:FOLDER")


def coding_task(folder: Path, split: str, *, full_size: bool = True) -> CodingTask:
    """The task a model was trained on, over its seen or unseen categories.

    Sizes are at the upper end of their ranges, as prompts for evaluation have them, unless
    `full_size` is False: then they are the ranges of training. A folder without a training record
    gets the task's defaults.

    Raises:
        InputError: the training record cannot be read.
    """
    path = folder / TRAINING_RECORD
    sizes, held_out, seed = TaskConfig(), 0.1, 0
    if path.is_file():
        try:
            trained = json.loads(path.read_text(encoding="utf-8"))["config"]
            sizes = _sizes(trained["task"])
            held_out, seed = trained["held_out"], trained["split_seed"]
        except (OSError, ValueError, KeyError, TypeError, IndexError) as error:
            raise InputError(
                f"{path}: is not the training record of a bundled model "
                f"({type(error).__name__}: {loading.first_line(error)})"
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
    shorthand = ShorthandConfig(**task["shorthand"])
    return TaskConfig(**{**task, **ranges, "shorthand": shorthand})
