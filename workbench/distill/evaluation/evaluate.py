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

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from transformer_lens.utilities.devices import get_device

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
from workbench.distill.evaluation.work import Examined, Work
from workbench.distill.matching.files import check_weights, folder_shape
from workbench.distill.matching.head_map import Pools, check_pools
from workbench.distill.training.student import check_tokenizers
from workbench.errors import InputError
from workbench.files import make_folder, write_table
from workbench.heads import head_name
from workbench.headsets.headset import HeadSet
from workbench.models import loading
from workbench.models.folders import check_files
from workbench.models.sources import is_adapter
from workbench.progress import Reporter
from workbench.prompts.choices import open_task
from workbench.prompts.prompt import PromptSet
from workbench.prompts.task import Task

PER_PROMPT = ("answers", "chain_values", "distances", "effects")
SUMMARIES = ("metrics", "trajectories", "causal", "readouts", "speed", "seeds")


@dataclass(frozen=True)
class Evaluation:
    """Tables of teacher and students; all have columns student, arm and seed, `seeds` only arm.

    Attributes:
        answers: a row per prompt and setting (direct, chain), see `answers.answers`.
        chain_values: `chain_values` along the teacher's chains and its own, told apart by source
            ("teacher_chain", "own_chain").
        distances: a row per decision and setting, see `distances`; none of the teacher.
        effects: a row per event, pool and measure, see `pool_terms`.
        metrics: setting, measure (exact, p1, p3, ndcg3, micro_f1, macro_f1), value, low, high, n.
        trajectories: the same; measures focus and confusion, mean absolute distances.
        causal: the same; setting is the pool, measures are those of patching; and heads (names),
            heads_from ("own"; "borrowed": of a student of this shape that was taught with the
            pools; for the teacher "given" or "taught"). n is the number of valid pairs.
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
        make_folder(folder)
        for name in (*PER_PROMPT, *SUMMARIES):
            write_table(folder / f"{name}.csv", getattr(self, name), float_format="%.6g")


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
        students: folders that `distill` wrote, by the names they have in tables.
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
    folder = loading.model_folder(teacher)
    digest = loading.weights_sha256(folder)
    _check_teacher(folder, digest, found, pools)
    work = Work(
        out=Path(out),
        teacher=folder,
        digest=digest,
        task=task or open_task(model=folder, split="unseen"),
        n_prompts=n_prompts,
        n_events=n_trajectory_prompts,
        seed=seed,
        max_new_tokens=max_new_tokens,
        batch_size=batch_size,
        device=device,
        reporter=reporter or Reporter(),
    )
    _check_files(work, found)
    heads = {TEACHER: teacher_heads(pools, found)}
    heads |= {one.name: heads_of(one, found) for one in found}
    chief = Examined(work, TEACHER, work.teacher, work.digest)
    tables = {TEACHER: chief.tables(heads[TEACHER][0], chief)}
    for one in found:
        examined = Examined(work, one.name, one.folder, one.weights_sha256)
        tables[one.name] = examined.tables(heads[one.name][0], chief)
    level = chief.accuracy(readout_prompts or work.events)
    who = {TEACHER: (TEACHER, 0)} | {one.name: (one.arm, one.seed) for one in found}
    merged = {name: _together(tables, name, who) for name in PER_PROMPT}
    return _summarise(merged, found, heads, level, n_resamples, seed)


def _check_teacher(folder: Path, digest: str, students: list[Student], pools: Pools | None) -> None:
    """Refuse students and heads of another teacher before anything is run."""
    if pools is not None:
        check_pools(pools, folder_shape(folder))
        if isinstance(pools, HeadSet):
            check_weights("head set", pools.model.weights_sha256, digest)
    for one in students:
        if one.teacher != digest:
            raise InputError(
                f"student {one.name!r} was taught by weights {one.teacher[:12]}, "
                f"{folder} has {digest[:12]}; give its own --teacher"
            )


def _check_files(work: Work, students: list[Student]) -> None:
    """Refuse what would end the evaluation at a student, after the teacher and others are done."""
    loading.parse_device(work.device or get_device())
    for one in students:
        check_tokenizers(work.tokenizer, loading.read_tokenizer(one.folder))
        if not is_adapter(one.folder):
            check_files(one.folder)
        one.readout()


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
    tables: Mapping[str, Mapping[str, pd.DataFrame]], name: str, who: Mapping[str, tuple[str, int]]
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
