"""Labelled documents of a folder as a source of prompts."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from workbench.errors import InputError
from workbench.labels.corpus import LabelledCorpus
from workbench.labels.folders import open_corpus
from workbench.models import loading
from workbench.progress import Reporter
from workbench.prompts.prompt import PromptSet
from workbench.prompts.shortlists.maker import Writer, make_shortlisted
from workbench.prompts.shortlists.sizes import (
    FEWEST_OPTIONS,
    MOST_OPTIONS,
    ShortlistConfig,
    sizes_within,
)


@dataclass(frozen=True)
class Documents:
    """One split of a corpus, and how large its prompts may be."""

    name: str
    corpus: LabelledCorpus
    split: str
    sizes: ShortlistConfig
    context: int | None = field(default=None, repr=False)

    def sized(self, n_options: int | None, limits: Mapping[str, int] | None = None) -> "Documents":
        """The same documents with so many options in a prompt, and other limits.

        A third of the options is near at most, unless `n_near` is given.

        Args:
            n_options: of a prompt; as it is where None.
            limits: values of `choices.LIMITS`.

        Raises:
            InputError: too few or too many options, no far one left, or a prompt longer than the
                model's context.
        """
        given = dict(limits or {})
        if n_options is not None:
            if not FEWEST_OPTIONS <= n_options <= MOST_OPTIONS:
                raise InputError(
                    f"n_options: prompts of documents have {FEWEST_OPTIONS} to {MOST_OPTIONS}, "
                    f"not {n_options}"
                )
            near = min(self.sizes.n_near, n_options // 3)
            mentions = min(self.sizes.n_mentions, n_options - near - 1)
            given = {"n_candidates": n_options, "n_near": near, "n_mentions": mentions} | given
        asked = given.get("max_tokens", 0)
        if self.context is not None and asked > self.context:
            raise InputError(
                f"max_tokens is {asked}, more than the {self.context} tokens that this model reads"
            )
        return replace(self, sizes=replace(self.sizes, **given))

    def prompts(
        self, writer: Writer, tokenizer: Any, *, n_prompts: int, seed: int, reporter: Reporter
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
                    writer,
                    tokenizer,
                    n_prompts=n_prompts,
                    seed=seed,
                    task=self.name,
                    config=self.sizes,
                )
        finally:  # it may be why there are no prompts
            for line in self.corpus.left_out:
                reporter.say(f"{self.name}: {line}")
        few = [f"{n_prompts} prompts were asked for"] if made.n_used < n_prompts else []
        for line in (f"limits: {self._limits()}", *few, *made.lines):
            reporter.say(f"{self.name}, split {self.split}: {line}")
        if made.n_used < 2:
            raise InputError(
                f"{self.name}, split {self.split}: only one document gives a prompt, need two"
            )
        return prompts

    def _limits(self) -> str:
        """Sizes, for people."""
        sizes = self.sizes
        return (
            f"the first {sizes.n_read} documents of each split are read, {sizes.n_retrieved} "
            f"labels retrieved for each, {sizes.n_candidates} options offered ({sizes.n_near} "
            f"near, {sizes.n_mentions} gold at most), prompts of {sizes.max_tokens} tokens at most"
        )


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
    return Documents(name, corpus, chosen, sizes_within(context), context)
