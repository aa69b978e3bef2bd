"""Labelled documents of a folder as a source of prompts."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from workbench.errors import InputError
from workbench.labels.corpus import LabelledCorpus
from workbench.labels.folders import open_corpus
from workbench.models import loading
from workbench.progress import Reporter
from workbench.prompts.prompt import PromptSet
from workbench.prompts.shortlist import (
    DEFAULT_SIZES,
    FEWEST_OPTIONS,
    MOST_OPTIONS,
    ShortlistConfig,
    make_shortlisted,
)
from workbench.prompts.templates import Template


@dataclass(frozen=True)
class Documents:
    """One split of a corpus, and how large its prompts may be."""

    name: str
    corpus: LabelledCorpus
    split: str
    sizes: ShortlistConfig

    def sized(self, n_options: int) -> "Documents":
        """The same documents, with so many options in a prompt; a third of them near at most.

        Raises:
            InputError: too few or too many options.
        """
        if not FEWEST_OPTIONS <= n_options <= MOST_OPTIONS:
            raise InputError(
                f"n_options: prompts of documents have {FEWEST_OPTIONS} to {MOST_OPTIONS}, "
                f"not {n_options}"
            )
        near = min(self.sizes.n_near, n_options // 3)
        mentions = min(self.sizes.n_mentions, n_options - near - 1)
        sizes = {"n_candidates": n_options, "n_near": near, "n_mentions": mentions}
        return replace(self, sizes=replace(self.sizes, **sizes))

    def prompts(
        self, template: Template, tokenizer: Any, *, n_prompts: int, seed: int, reporter: Reporter
    ) -> PromptSet:
        """Prompts of the documents, fewer where there are no more; `reporter` says how many.

        Raises:
            InputError: fewer than two documents give a prompt, or what `make_shortlisted` refuses.
        """
        try:
            with reporter.step("prompts"):
                prompts, made = make_shortlisted(
                    self.corpus,
                    self.split,
                    template,
                    tokenizer,
                    n_prompts=n_prompts,
                    seed=seed,
                    task=self.name,
                    config=self.sizes,
                )
        finally:  # it may be why there are no prompts
            for line in self.corpus.left_out:
                reporter.say(f"{self.name}: {line}")
        few = f" (asked for {n_prompts})" if made.n_used < n_prompts else ""
        reporter.say(f"{self.name}, split {self.split}{few}: {made}")
        if made.n_used < 2:
            raise InputError(
                f"{self.name}, split {self.split}: only one document gives a prompt, need two"
            )
        return prompts


def open_documents(*, task: str, model: Path, split: str, full_size: bool = True) -> Documents:
    """The documents that `labels.folders` opens by this name.

    "seen" are those for training, "unseen" those for the test; undivided ones are both.

    Raises:
        InputError: a folder that is not as its format has it, or without documents of this split.
    """
    corpus = open_corpus(task)
    wanted = "train" if split == "seen" else "test"
    name = f"{task.partition(':')[0]}:{corpus.name}"
    apart = {"train", "val", "test"}.intersection(corpus.splits)
    if apart and wanted not in corpus.splits:
        raise InputError(
            f"{task}: no {wanted} documents here for split {split!r}, only "
            f"{', '.join(corpus.splits)}; take split {'seen' if wanted == 'test' else 'unseen'!r}, "
            "or add the file"
        )
    chosen = wanted if apart else corpus.splits[-1]
    text_config: Any = loading.hf_config(model).get_text_config()
    context = getattr(text_config, "max_position_embeddings", None)
    return Documents(name, corpus, chosen, sizes_within(context))


def sizes_within(context: int | None) -> ShortlistConfig:
    """Default sizes, with prompts that are not longer than a model's context, where it has one."""
    most = DEFAULT_SIZES.max_tokens
    return replace(DEFAULT_SIZES, max_tokens=min(context or most, most))
