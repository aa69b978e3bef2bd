"""Students beside their teacher, on labels that neither was trained on.

For the teacher and each student:
1. *answers*: free answers to unseen prompts, direct and with a chain of thought (`answers`);
2. *trajectories*: Focus and Confusion after each step of a chain, and how far they are from the
   teacher's (`chain_values`, `distances`);
3. *effects*: patching the heads that it was taught with (`effects`).

These are kept in a folder per model as they are done, and not done again. From them come values
with intervals per student, and over seeds; and how many steps of training each student took to 90 %
of the teacher's accuracy.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from transformer_lens.utilities.devices import get_device

from workbench.distill.evaluation.answers import answers
from workbench.distill.evaluation.effects import pool_terms
from workbench.distill.evaluation.statistics import (
    OVER_COLUMNS,
    TEACHER,
    WHO,
    Drawn,
    draw,
    over_seeds,
    per_student,
)
from workbench.distill.evaluation.students import (
    PoolHeads,
    Student,
    heads_of,
    read_students,
    readouts,
    speed,
    teacher_heads,
)
from workbench.distill.evaluation.trajectories import (
    distances,
    followed,
    write_own_chains,
)
from workbench.distill.matching.files import check_weights, folder_shape
from workbench.distill.matching.head_map import Pools, check_pools
from workbench.distill.training.monitor import direct_readout
from workbench.distill.training.settings import claim
from workbench.distill.training.student import check_tokenizers, word_encoder
from workbench.errors import InputError
from workbench.files import replacing, write_text
from workbench.heads import head_name
from workbench.headsets.headset import HeadSet
from workbench.models import loading
from workbench.models.hooked import HookedModel
from workbench.progress import Reporter
from workbench.prompts.chain import ChainCase
from workbench.prompts.choices import open_task
from workbench.prompts.events import make_events
from workbench.prompts.prompt import PromptSet
from workbench.prompts.task import Task
from workbench.prompts.templates import PlainTemplate

SETTINGS = "settings.json"
PER_PROMPT = ("answers", "chain_values", "distances", "effects")
SUMMARIES = ("metrics", "trajectories", "causal", "readouts", "speed", "seeds")


@dataclass(frozen=True)
class Evaluation:
    """Tables of teacher and students; all have columns student, arm and seed, `seeds` only arm.

    Attributes:
        answers: a row per prompt and setting (direct, chain), see `evaluate_answers.answers`.
        chain_values: Focus and Confusion after each step of each chain, see `followed`.
        distances: a row per decision and setting, see `distances`; none of the teacher.
        effects: a row per event, pool and measure, see `pool_terms`.
        metrics: setting, measure (exact, p1, p3, ndcg3, micro_f1, macro_f1), value, low, high, n.
        trajectories: the same; measures focus and confusion, mean absolute distances.
        causal: the same; setting is the pool, measures are those of patching; and heads (names),
            heads_from ("own"; "borrowed": of a student of this shape that was taught with the
            pools; for the teacher "given" or "taught"). n is the number of events that count.
        readouts: step, n, focus, confusion and direct accuracy while the student trained.
        speed: teacher_accuracy, level (90 % of it), steps (first readout that reaches it, NaN for
            none), last_step, last_accuracy.
        seeds: of (metrics, trajectories, causal), and the columns of `over_seeds`.
    """

    answers: pd.DataFrame
    chain_values: pd.DataFrame
    distances: pd.DataFrame
    effects: pd.DataFrame
    metrics: pd.DataFrame
    trajectories: pd.DataFrame
    causal: pd.DataFrame
    readouts: pd.DataFrame
    speed: pd.DataFrame
    seeds: pd.DataFrame

    def save(self, folder: Path) -> None:
        """Write every table as CSV."""
        folder.mkdir(parents=True, exist_ok=True)
        for name in (*PER_PROMPT, *SUMMARIES):
            with replacing(folder / f"{name}.csv") as beside:
                getattr(self, name).to_csv(beside, index=False, float_format="%.6g")


def evaluate_students(
    out: str | Path,
    teacher: str | Path,
    students: Mapping[str, str | Path],
    *,
    pools: Pools | None = None,
    task: Task | None = None,
    n_prompts: int = 1000,
    n_trajectory_prompts: int = 64,
    seed: int = 1,
    readout_prompts: PromptSet | None = None,
    n_resamples: int = 2000,
    max_new_tokens: int = 256,
    batch_size: int = 500,
    device: str | None = None,
    reporter: Reporter | None = None,
) -> Evaluation:
    """Evaluate students and their teacher; what is in `out` already is not done again.

    Args:
        out: a folder; every model's tables go into one of its name below it.
        teacher: model folder or hub id.
        students: folders that `distil` wrote, by the names they have in tables.
        pools: the teacher's heads to patch; those that a student was taught with unless given.
        task: what prompts are drawn from; the teacher's, of unseen labels, unless given.
        n_prompts: prompts to answer.
        n_trajectory_prompts: other prompts, for trajectories and patching.
        seed: of all prompts and resamples; runs use 0, whose prompts chose the heads.
        readout_prompts: those of the students' readouts, on which the teacher's accuracy is
            measured; the trajectories' unless given.
        n_resamples: of prompts.
        max_new_tokens: of a chain and its answer.
        batch_size: prompts answered together.
        device: where models run, in float32; an accelerator if there is one.
        reporter: where progress is told.

    Raises:
        InputError: a model or record that cannot be read, another tokenizer than the teacher's,
            students or heads of another teacher, what `read_students` refuses, a bad number of
            prompts or resamples, or results of other settings in `out`.
    """
    numbers = {"n_prompts": n_prompts, "n_trajectory_prompts": n_trajectory_prompts}
    for name, number in {**numbers, "n_resamples": n_resamples}.items():
        if number < 1:
            raise InputError(f"{name} is {number}, must be at least 1")
    found = read_students(students, pools)
    work = _Work(
        out=Path(out),
        teacher=loading.model_folder(teacher),
        task=task or open_task(model=loading.model_folder(teacher), split="unseen"),
        n_prompts=n_prompts,
        n_events=n_trajectory_prompts,
        seed=seed,
        max_new_tokens=max_new_tokens,
        batch_size=batch_size,
        device=device,
        reporter=reporter or Reporter(),
    )
    _check_teacher(work, found, pools)
    heads = {TEACHER: teacher_heads(pools, found)}
    heads |= {one.name: heads_of(one, found) for one in found}
    tables = {TEACHER: _of_teacher(work, heads[TEACHER][0])}
    for one in found:
        tables[one.name] = _of_student(work, one, heads[one.name][0])
    level = _teacher_accuracy(work, readout_prompts)
    who = {TEACHER: (TEACHER, 0)} | {one.name: (one.arm, one.seed) for one in found}
    merged = {name: _together(tables, name, who) for name in PER_PROMPT}
    return _summarise(merged, found, heads, level, n_resamples, seed)


def _check_teacher(work: "_Work", students: list[Student], pools: Pools | None) -> None:
    """Refuse students and heads of another teacher before anything is run."""
    if pools is not None:
        check_pools(pools, folder_shape(work.teacher))
        if isinstance(pools, HeadSet):
            check_weights("head set", pools.model.weights_sha256, work.digest)
    for one in students:
        if one.teacher != work.digest:
            raise InputError(
                f"student {one.name!r} was taught by weights {one.teacher[:12]}, "
                f"{work.teacher} has {work.digest[:12]}; give its own --teacher"
            )


def _summarise(
    merged: Mapping[str, pd.DataFrame],
    students: list[Student],
    heads: Mapping[str, tuple[PoolHeads, str]],
    accuracy: float,
    n_resamples: int,
    seed: int,
) -> Evaluation:
    drawn: dict[str, list[Drawn]] = {
        name: draw(merged[of], n_resamples=n_resamples, seed=seed)
        for name, of in zip(SUMMARIES[:3], ("answers", "distances", "effects"), strict=True)
    }
    progress = readouts(students)
    seeds = [over_seeds(found, seed=seed).assign(of=name) for name, found in drawn.items()]
    summaries = {name: per_student(found) for name, found in drawn.items()}
    causal = summaries.pop("causal")
    causal["heads"] = [
        " ".join(head_name(*at) for at in heads[name][0][pool])
        for name, pool in zip(causal["student"], causal["setting"], strict=True)
    ]
    causal["heads_from"] = [heads[name][1] for name in causal["student"]]
    return Evaluation(
        **merged,
        **summaries,
        causal=causal,
        readouts=progress,
        speed=speed(progress, accuracy),
        seeds=pd.concat(seeds, ignore_index=True).reindex(columns=["of", *OVER_COLUMNS]),
    )


def _together(
    tables: Mapping[str, Mapping[str, pd.DataFrame]],
    name: str,
    who: Mapping[str, tuple[str, int]],
) -> pd.DataFrame:
    """One table of all models, with columns student, arm and seed in front."""
    frames = []
    for student, own in tables.items():
        if name in own:
            arm, seed = who[student]
            frames.append(own[name].assign(student=student, arm=arm, seed=seed))
    if not frames:
        return pd.DataFrame(columns=WHO)
    filled = [frame for frame in frames if len(frame)] or frames[:1]
    table = pd.concat(filled, ignore_index=True)
    return table.reindex(columns=[*WHO, *(x for x in table.columns if x not in WHO)])


@dataclass(frozen=True)
class _Work:
    """What all models are asked, and what is made once and only if it is needed."""

    out: Path
    teacher: Path
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
        tokenizer = loading.read_tokenizer(self.teacher)
        word_encoder(tokenizer, self.teacher)  # refuses those that the task cannot be written in
        return tokenizer

    @cached_property
    def events(self) -> PromptSet:
        return make_events(
            self.task, PlainTemplate(), self.tokenizer, n_prompts=self.n_events, seed=self.seed
        )

    @cached_property
    def digest(self) -> str:
        return loading.files_sha256(loading.weight_files(self.teacher))

    @cached_property
    def teacher_model(self) -> "_Loaded":
        return _Loaded(self, TEACHER, self.teacher, self.digest)

    @cached_property
    def teacher_cases(self) -> list[ChainCase]:
        with self.reporter.step("teacher: chains of thought"):
            return self.own_cases(self.teacher_model.hooked)

    def own_cases(self, model: HookedModel) -> list[ChainCase]:
        limits = {"max_new_tokens": self.max_new_tokens, "batch_size": self.batch_size}
        return write_own_chains(model, self.task, self.events, **limits)


class _Loaded:
    """A model, as Hugging Face has it until its activations are asked for: that writes faster."""

    def __init__(self, work: _Work, name: str, folder: Path, digest: str) -> None:
        device = loading.parse_device(work.device or get_device())
        loading.read_config(folder)
        self._name, self._digest, self._tokenizer = name, digest, work.tokenizer
        check_tokenizers(work.tokenizer, loading.read_tokenizer(folder))
        self.plain: Any = loading.read_model(folder, dtype=torch.float32)
        self.plain.to(device)
        self.plain.set_attn_implementation("sdpa")

    @cached_property
    def hooked(self) -> HookedModel:
        return HookedModel.from_pretrained_model(
            self.plain, self._tokenizer, self._name, self._digest
        )


def _of_teacher(work: _Work, heads: PoolHeads) -> dict[str, pd.DataFrame]:
    folder = _Folder(work, TEACHER, work.digest)
    loaded = lambda: work.teacher_model  # noqa: E731  (only read where something is missing)
    return {
        "answers": folder.table("answers", lambda: _answers(work, TEACHER, loaded())),
        "chain_values": folder.table(
            "chain_values",
            lambda: followed(loaded().hooked, work.teacher_cases, work.teacher_cases),
        ),
        "effects": folder.table(
            _effects_of(heads), lambda: _effects(work, TEACHER, loaded(), heads)
        ),
    }


def _of_student(work: _Work, student: Student, heads: PoolHeads) -> dict[str, pd.DataFrame]:
    folder, name = _Folder(work, student.name, student.weights_sha256), student.name
    models: list[_Loaded] = []

    def loaded() -> _Loaded:
        if not models:
            models.append(_Loaded(work, name, student.folder, student.weights_sha256))
        return models[0]

    def follow() -> pd.DataFrame:
        with work.reporter.step(f"{name}: along chains of thought"):
            model = loaded().hooked
            return followed(model, work.teacher_cases, work.own_cases(model))

    made = {
        "answers": folder.table("answers", lambda: _answers(work, name, loaded())),
        "chain_values": folder.table("chain_values", follow),
        "effects": folder.table(_effects_of(heads), lambda: _effects(work, name, loaded(), heads)),
    }
    teachers = pd.read_parquet(work.out / TEACHER / "chain_values.parquet")
    return made | {"distances": distances(made["chain_values"], teachers)}


def _answers(work: _Work, name: str, model: _Loaded) -> pd.DataFrame:
    frames = []
    for chain in (False, True):
        with work.reporter.step(
            f"{name}: answers {'with chains' if chain else 'without chains'}", work.n_prompts
        ) as advance:
            frames.append(
                answers(
                    model.plain,
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


def _effects_of(heads: PoolHeads) -> str:
    """Name of the table: which heads are patched may change as students are added."""
    return f"effects-{sha256(str(heads).encode()).hexdigest()[:12]}"


def _effects(work: _Work, name: str, model: _Loaded, heads: PoolHeads) -> pd.DataFrame:
    with work.reporter.step(f"{name}: patching", work.n_events) as advance:
        found = pool_terms(model.hooked, work.events, heads, progress=advance)
    for pool in heads:
        if not found.loc[found["setting"] == pool, "counts"].any():
            work.reporter.say(f"{name}: no event counts for the {pool} heads, so no effects")
    return found


def _teacher_accuracy(work: _Work, prompts: PromptSet | None) -> float:
    """Share of the readouts' decisions that the teacher makes rightly at once."""
    prompts = prompts or work.events
    path = work.out / TEACHER / f"readout-{prompts.sha256[:12]}.parquet"
    if not path.is_file():
        row = direct_readout(work.teacher_model.plain, prompts)
        with replacing(path) as beside:
            pd.DataFrame([row]).to_parquet(beside, index=False)
    return float(pd.read_parquet(path)["accuracy"].iloc[0])


class _Folder:
    """Where a model's tables are kept; refuses those of other settings."""

    def __init__(self, work: _Work, name: str, digest: str) -> None:
        self._path = work.out / name
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
        _forget_heads(self._path / SETTINGS)
        claim(self._path, self._path / SETTINGS, asked, "results")

    def table(self, name: str, make: Callable[[], pd.DataFrame]) -> pd.DataFrame:
        """A table of this model, made unless it is there."""
        path = self._path / f"{name}.parquet"
        if not path.is_file():
            table = make()
            with replacing(path) as beside:
                table.to_parquet(beside, index=False)
        return pd.read_parquet(path)


def _forget_heads(path: Path) -> None:
    """Earlier releases claimed the heads, too, of which only the effects depend."""
    if path.is_file():
        settings = json.loads(path.read_text(encoding="utf-8"))
        if settings.pop("heads", None) is not None:
            write_text(path, json.dumps(settings, indent=1))
