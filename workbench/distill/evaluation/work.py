"""What every model of an evaluation is asked, kept in a folder per model and not asked again."""

import json
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from transformer_lens.utilities.devices import get_device

from workbench.analysis.chains.generation import write_chains
from workbench.analysis.chains.trajectories import chain_values
from workbench.distill.evaluation.answers import answers
from workbench.distill.evaluation.effects import pool_terms
from workbench.distill.evaluation.students import PoolHeads
from workbench.distill.evaluation.trajectories import OWN, TEACHERS, distances
from workbench.distill.training.monitor import direct_readout
from workbench.distill.training.student import check_tokenizers, word_encoder
from workbench.errors import InputError
from workbench.files import claim, read_json, write_table, write_text
from workbench.models import loading
from workbench.models.hooked import HookedModel
from workbench.progress import Reporter
from workbench.prompts.chain import ChainCase, question_cases
from workbench.prompts.events import make_events
from workbench.prompts.prompt import PromptSet
from workbench.prompts.task import Task
from workbench.prompts.templates import PlainTemplate

SETTINGS = "settings.json"


@dataclass(frozen=True)
class Work:
    """What all models are asked; prompts are made once and only if they are needed."""

    out: Path
    teacher: Path
    digest: str
    """Hash of the teacher's weights."""
    task: Task
    n_prompts: int
    n_events: int
    seed: int
    max_new_tokens: int
    batch_size: int
    device: str | None
    reporter: Reporter

    @cached_property
    def tokenizer(self) -> Any:
        """The teacher's; refused where a task cannot be written in it."""
        tokenizer = loading.read_tokenizer(self.teacher)
        word_encoder(tokenizer, self.teacher)
        return tokenizer

    @cached_property
    def events(self) -> PromptSet:
        """Prompts of the trajectories and of patching."""
        return make_events(
            self.task, PlainTemplate(), self.tokenizer, n_prompts=self.n_events, seed=self.seed
        )


class Examined:
    """One model of an evaluation and its tables; it is loaded when a table is missing.

    Raises:
        InputError: its folder holds results of other settings.
    """

    def __init__(self, work: Work, name: str, source: Path, digest: str) -> None:
        self.work, self.name, self.source, self.digest = work, name, source, digest
        self.folder = work.out / name
        settings = work.task.settings()
        settings.pop("task")  # the sizes of prompts show in their hash
        asked = {
            "teacher": work.digest,
            "weights": digest,
            "prompts": work.events.sha256,
            "n_prompts": work.n_prompts,
            "seed": work.seed,
            "max_new_tokens": work.max_new_tokens,
            **settings,
        }
        _forget_heads(self.folder / SETTINGS)
        claim(self.folder, self.folder / SETTINGS, asked, "results")

    @cached_property
    def plain(self) -> Any:
        """The model as Hugging Face has it, which writes faster than one with hooks."""
        device = loading.parse_device(self.work.device or get_device())
        check_tokenizers(self.work.tokenizer, loading.read_tokenizer(self.source))
        model: Any = loading.read_model(self.source, dtype=torch.float32)
        model.to(device)
        model.set_attn_implementation("sdpa")
        return model

    @cached_property
    def hooked(self) -> HookedModel:
        """The model with its activations within reach."""
        return HookedModel.from_pretrained_model(
            self.plain, self.work.tokenizer, self.name, self.digest
        )

    @cached_property
    def cases(self) -> list[ChainCase]:
        """The decisions, with chains of thought that this model writes."""
        work = self.work
        with work.reporter.step(f"{self.name}: chains of thought"):
            return write_chains(
                self.hooked,
                question_cases(work.events, work.tokenizer),
                work.tokenizer,
                variants=("clean",),
                stages=work.task.stages,
                max_new_tokens=work.max_new_tokens,
                batch_size=work.batch_size,
            )

    def tables(self, heads: PoolHeads, teacher: "Examined") -> dict[str, pd.DataFrame]:
        """Answers, values along chains, effects of `heads`, and a student's distances."""
        # Which heads are patched may change as students are added.
        effects = f"effects-{sha256(str(heads).encode()).hexdigest()[:12]}"
        made = {
            "answers": self._table("answers", self._answers),
            "chain_values": self._table("chain_values", lambda: self._follow(teacher)),
            "effects": self._table(effects, lambda: self._effects(heads)),
        }
        if self is teacher:
            return made
        teachers = _read(teacher.folder / "chain_values.parquet")
        return made | {"distances": distances(made["chain_values"], teachers)}

    def accuracy(self, prompts: PromptSet) -> float:
        """Share of the decisions that the model makes rightly at once."""
        name = f"readout-{prompts.sha256[:12]}"
        made = self._table(name, lambda: pd.DataFrame([direct_readout(self.plain, prompts)]))
        return float(made["accuracy"].iloc[0])

    def _table(self, name: str, make: Callable[[], pd.DataFrame]) -> pd.DataFrame:
        path = self.folder / f"{name}.parquet"
        if not path.is_file():
            write_table(path, make())
        return _read(path)

    def _answers(self) -> pd.DataFrame:
        work, frames = self.work, []
        for chain in (False, True):
            how = "with chains" if chain else "without chains"
            with work.reporter.step(f"{self.name}: answers {how}", work.n_prompts) as advance:
                frames.append(
                    answers(
                        self.plain,
                        work.tokenizer.backend_tokenizer,
                        work.task,
                        n_prompts=work.n_prompts,
                        seed=work.seed,
                        chain=chain,
                        batch_size=work.batch_size,
                        max_new_tokens=work.max_new_tokens,
                        progress=advance,
                    )
                )
        return pd.concat(frames, ignore_index=True)

    def _follow(self, teacher: "Examined") -> pd.DataFrame:
        along = {TEACHERS: teacher.cases, OWN: self.cases}
        with self.work.reporter.step(f"{self.name}: along chains of thought"):
            frames = [chain_values(self.hooked, along[of], source=of) for of in along]
        return pd.concat(frames, ignore_index=True)

    def _effects(self, heads: PoolHeads) -> pd.DataFrame:
        work = self.work
        with work.reporter.step(f"{self.name}: patching", work.n_events) as advance:
            found = pool_terms(self.hooked, work.events, heads, progress=advance)
        for pool in heads:
            if not found.loc[found["setting"] == pool, "counts"].any():
                work.reporter.say(f"{self.name}: no valid pair for the {pool} heads, so no effects")
        return found


def _forget_heads(path: Path) -> None:
    """Earlier releases claimed the heads, too, of which only the effects depend."""
    if path.is_file():
        with suppress(InputError, AttributeError):  # a damaged file is for `claim` to refuse
            settings = read_json(path)
            if settings.pop("heads", None) is not None:
                write_text(path, json.dumps(settings, indent=1))


def _read(path: Path) -> pd.DataFrame:
    try:
        return pd.read_parquet(path)
    except (OSError, ValueError) as error:
        raise InputError(
            f"{path}: is not a readable table ({type(error).__name__}); delete it, and it is made "
            "again"
        ) from None
