"""The chains that the paper's figures are made of: of a task, of a prompt file, or one's own."""

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import Any

import pandas as pd

from workbench.analysis.chains.case_readings import read_cases
from workbench.analysis.chains.generation import write_chains, write_on
from workbench.analysis.chains.matching import read_own
from workbench.analysis.chains.reading import ChainReading
from workbench.errors import InputError
from workbench.files import file_sha256
from workbench.labels.icd10cm import category
from workbench.models.hooked import HookedModel
from workbench.models.loading import model_folder
from workbench.progress import Reporter
from workbench.prompts.chain import ChainCase, find_cues, make_chain, question_cases
from workbench.prompts.choices import OWN_TASK, open_source, stage_reader
from workbench.prompts.drawn import DrawnPrompt
from workbench.prompts.events import make_events
from workbench.prompts.files import read_prompts
from workbench.prompts.given_chains import given_cases, holds_chains
from workbench.prompts.make import make_prompts, open_template, settled_template
from workbench.prompts.own_chains import OwnChain, OwnText, read_own_chains
from workbench.prompts.prompt import PromptSet
from workbench.prompts.task import Task
from workbench.prompts.trained import trained_task

ROOM = 512
"""Tokens of a chain that a model writes for a document of one's own."""
OF_CATEGORIES = ("icd10cm", "laterality", "laterality-chain")
"""Tasks whose families of candidates are categories of ICD-10-CM."""


@dataclass(frozen=True)
class Asked:
    """Which chains: of prompts of a task, of a prompt file, or of a file of one's own.

    Attributes:
        model: whose task it is, by default what it was trained on.
        n: prompts of a task.
        task: its name.
        given: whether chains are the task's own, the correct ones; otherwise the model writes them.
        split: labels that the model was trained on, or not.
        prompts: a prompt file, in place of a task.
        own: a file of documents, chains and labels, in place of both.
    """

    model: str
    n: int = 16
    task: str = OWN_TASK
    given: bool = False
    split: str = "unseen"
    prompts: Path | None = None
    own: Path | None = None

    def __post_init__(self) -> None:
        if self.prompts is not None and self.own is not None:
            raise InputError("give either --prompts or --chains, not both")
        if self.given and (self.prompts or self.own):
            raise InputError("--given is for prompts of a task; a file has its chains or not")
        if self.n < 1:
            raise InputError(f"n is {self.n}, must be at least 1")

    @property
    def name(self) -> str:
        """Of the task, or of the file."""
        file = self.own or self.prompts
        return self._task if file is None else file.name

    @property
    def _task(self) -> str:
        return f"{self.task}, {self.split}, {'given' if self.given else 'written'} chains"

    @cached_property
    def sha256(self) -> str:
        """Hash of the file, or of the settings of the task."""
        file = self.own or self.prompts
        if file is not None:
            return file_sha256(file)
        return sha256(f"{self._task} {self.n}".encode()).hexdigest()


@dataclass(frozen=True)
class Chains:
    """A model's chains.

    Attributes:
        readings: one a chain.
        cases: by prompt; empty for chains of one's own.
        written: tokens of every chain, to go on from; columns id, tokens, closed.
    """

    readings: Sequence[ChainReading]
    cases: dict[str, list[ChainCase]]
    written: pd.DataFrame

    def followed(self, number: int) -> ChainCase | None:
        """The decision of a chain that is asked for after every step: each in turn, by chain."""
        cases = self.cases.get(self.readings[number].id, [])
        return cases[number % len(cases)] if cases else None


def make_chains(
    model: HookedModel,
    asked: Asked,
    seed: int,
    written: pd.DataFrame | None,
    reporter: Reporter,
    batch_size: int = 32,
) -> Chains:
    """A model's chains, written by it unless they are given or were `written` before.

    `batch_size` chains of a task are written together.

    Raises:
        InputError: no tokenizer, or prompts without a place for a chain.
    """
    if model.tokenizer is None:
        raise InputError(f"model {model.info.name!r} has no tokenizer")
    if asked.own is not None:
        return _own(model, read_own_chains(asked.own), written, reporter)
    prompts, correct = _prompts(model, asked, seed)
    cues, stages = find_cues(prompts, model.tokenizer), stage_reader(prompts.task)
    if holds_chains(prompts, model.tokenizer, cues):
        cases = given_cases(prompts, model.tokenizer, cues, stages)
        written = _frame([(case.event.id, case.clean.tokens, True) for case in cases])
    else:
        cases = question_cases(prompts, model.tokenizer, cues)
        first = list({case.event.id: case for case in reversed(cases)}.values())[::-1]
        if correct:
            texts = {
                name: "".join(f"\n{step}" for step in steps) for name, steps in correct.items()
            }
            ids = model.tokenizer([*texts.values()], add_special_tokens=False)["input_ids"]
            written = _frame([(name, row, True) for name, row in zip(texts, ids, strict=True)])
        elif written is None:
            with reporter.step(f"{model.info.name}: writes {len(first)} chains"):
                made = write_chains(model, first, model.tokenizer, cues=cues, batch_size=batch_size)
            written = _frame(
                [(x.event.id, x.clean.tokens[x.clean.n_opening :], x.clean.closed) for x in made]
            )
        if n_open := int((~written["closed"]).to_numpy().sum()):
            reporter.say(
                f"{n_open} of {len(written)} chains are not closed: read as far as they go"
            )
        opening = model.tokenizer(cues.opening, add_special_tokens=False)["input_ids"]
        tokens = dict(zip(written["id"], written["tokens"], strict=True))
        cases = [
            replace(
                case,
                chains={
                    "clean": make_chain(
                        model.tokenizer, case.clean.question, [*map(int, tokens[case.event.id])],
                        opening=opening, stages=stages, event=case.event.event,
                    )
                },
            )
            for case in cases
        ]  # fmt: skip
    cluster: Callable[[str], str] | None = category if prompts.task in OF_CATEGORIES else None
    by_prompt: defaultdict[str, list[ChainCase]] = defaultdict(list)
    for case in cases:
        by_prompt[case.event.id].append(case)
    readings = read_cases(cases, model.tokenizer, cluster)
    return Chains([x for x in readings if x.n_chain > 0], dict(by_prompt), written)


def counterfactual_prompts(model: HookedModel, asked: Asked, seed: int) -> PromptSet | None:
    """Prompts of what was asked for, a decision each, to patch heads on; chains of one's own: None.

    Raises:
        InputError: what `make_prompts` or `read_prompts` refuse.
    """
    if asked.own is not None:
        return None
    if asked.prompts is not None:
        return read_prompts(asked.prompts, model=model)
    return make_prompts(
        model=asked.model, task=asked.task, n_prompts=asked.n, split=asked.split, seed=seed
    )


def _prompts(model: HookedModel, asked: Asked, seed: int) -> tuple[PromptSet, dict[str, list[str]]]:
    """Prompts, and the correct chain of each where it is wanted.

    Of a task all decisions of a prompt, where its chain is about all of them.
    """
    if asked.prompts is not None:
        return read_prompts(asked.prompts, model=model), {}
    folder = model_folder(asked.model)
    task = trained_task(folder) if asked.task == OWN_TASK else asked.task
    source = open_source(task, folder, asked.split)
    form = settled_template("auto", folder, model.tokenizer)
    template = open_template(form, model.tokenizer)
    if not isinstance(source, Task):
        raise InputError(f"task {task!r} gives prompts alone; make a file and give it as --prompts")
    chains: dict[str, list[str]] = {}

    def every(prompt: DrawnPrompt) -> Sequence[int]:
        chains[prompt.id] = source.chain(prompt)
        return range(len(prompt.mentions))

    shares_chain = form == "plain" and task != "laterality-chain"
    if asked.given and not shares_chain:
        raise InputError("--given needs a task whose chain follows the whole prompt")
    made = make_events(
        source, template, model.tokenizer, n_prompts=asked.n, seed=seed,
        event=every if shares_chain else "random",
    )  # fmt: skip
    return made, chains if asked.given else {}


def _own(
    model: HookedModel, chains: Sequence[OwnChain], written: pd.DataFrame | None, reporter: Reporter
) -> Chains:
    """Chains of one's own; the model writes those that are missing."""
    tokenizer: Any = model.tokenizer
    missing = [one for one in chains if one.chain is None]
    if written is None:
        made: list[list[int]] = []
        if missing:
            documents = [one.document.given for one in missing]
            ids = [tokenizer(x)["input_ids"] if isinstance(x, str) else x for x in documents]
            with reporter.step(f"{model.info.name}: writes {len(missing)} chains"):
                made = write_on(model, ids, tokenizer, max_new_tokens=ROOM)
        written = _frame([(x.id, tokens, True) for x, tokens in zip(missing, made, strict=True)])
    texts = {
        name: tokenizer.decode(tokens, skip_special_tokens=True)
        for name, tokens in zip(written["id"], written["tokens"], strict=True)
    }
    silent = [one.id for one in missing if not texts[one.id].strip()]
    if silent:
        raise InputError(
            f"chain {silent[0]!r} (and {len(silent) - 1} more): the model writes nothing behind "
            "its document; give a chain, or end the document with what opens one"
        )
    whole = [
        one
        if one.chain is not None
        else one.model_copy(update={"chain": _text(one, texts, tokenizer)})
        for one in chains
    ]
    return Chains([read_own(one, tokenizer) for one in whole], {}, written)


def _text(one: OwnChain, texts: dict[str, str], tokenizer: Any) -> OwnText:
    if isinstance(one.document.given, str):
        return OwnText(text=texts[one.id])
    return OwnText(input_ids=tokenizer(texts[one.id], add_special_tokens=False)["input_ids"])


def _frame(rows: Sequence[tuple[str, Sequence[int], bool]]) -> pd.DataFrame:
    found = pd.DataFrame(
        [(name, list(tokens), closed) for name, tokens, closed in rows],
        columns=["id", "tokens", "closed"],
    )
    return found.astype({"id": object, "closed": bool})
