"""What commands about students are given, looked at before anything heavy is imported.

Libraries that read models take half a minute to import where processors are slow, and a teacher's
weights minutes to load: what a look at paths and options tells is said before both. What files hold
is read later, and then refused by who reads it.
"""

import json
from pathlib import Path
from typing import Any

from workbench.distill.config import CopiedLayers, DistillationConfig
from workbench.errors import InputError
from workbench.files import check_writable, read_text, reading
from workbench.headsets.foreign import ForeignHeads, read_foreign
from workbench.models.sources import check_source
from workbench.phases import Pool

RECORD = "training.json"
MANIFEST = "targets.json"
KEPT_TEACHER = "teacher"
"""In a folder of targets: the teacher's configuration and tokenizer, without weights."""


def check_distillation(
    config: DistillationConfig,
    *,
    teacher: str | None,
    headset: Path | None,
    pool: Pool | None,
    prompts: Path | None,
    traces: Path | None,
    targets: Path | None = None,
    sharded: bool = False,
) -> None:
    """Refuse what cannot be: paths that are not there, options that exclude each other.

    Raises:
        InputError: the first of them.
    """
    loss = config.loss
    if prompts is not None and traces is not None:
        raise InputError("--traces are chains of a task, --prompts your own; give one of both")
    if sharded and prompts is None and traces is None:
        raise InputError(
            "a teacher spread over processes writes no traces; make them before (workbench traces)"
        )
    if headset is None and targets is None and (loss.taught_pools or loss.by_ablation):
        raise InputError(no_heads(config))
    if pool is not None and headset is None:
        raise InputError("--pool is of the heads of another tool's list; give it as --headset")
    for path, what in ((prompts, "examples"), (traces, "traces")):
        if path is not None:
            check_lines(path, what)
    if headset is not None:
        foreign_heads(headset, pool)
    if targets is not None and not (targets / MANIFEST).is_file():
        raise InputError(f"{targets}: holds no targets, there is no {MANIFEST}")
    if teacher is not None:
        check_source(teacher)
    student = config.student.from_ if isinstance(config.student, CopiedLayers) else config.student
    if isinstance(student, str):
        check_source(student)


def no_heads(config: DistillationConfig) -> str:
    """What is said where terms need heads of the teacher, and there are none."""
    return (
        f"{config.loss.about_heads} need the teacher's pooled heads: give a head set (--headset), "
        "or an arm without (--arm cot)"
    )


def check_lines(path: Path, what: str) -> None:
    """Refuse a file that cannot be opened, or a folder without a part of such a file.

    Raises:
        InputError: naming it.
    """
    with reading(path):
        if path.is_dir():
            if not any(path.glob("*.jsonl")):
                raise InputError(f"{path}: holds no file of {what} (*.jsonl)")
        else:
            path.open("rb").close()


def foreign_heads(path: str | Path, pool: Pool | None) -> ForeignHeads | None:
    """Heads that another tool listed, which need a pool; None for a file that says its pools.

    Raises:
        InputError: the file cannot be read, or a pool is missing, or given where there are some.
    """
    listed = read_foreign(path)
    if listed is None and pool is not None:
        raise InputError(f"{path}: says the pools of its heads itself; leave --pool out")
    if listed is not None and pool is None:
        raise InputError(
            f"{path}: {listed.form} does not say pools; give --pool coarse or --pool refine"
        )
    return listed


def check_new(out: Path) -> None:
    """Refuse before the work a folder that cannot be made, or whose student is finished.

    Raises:
        InputError: naming the folder.
    """
    check_writable(out)
    if (out / RECORD).is_file():
        raise InputError(f"{out}: holds a trained student already; give another --out")


def read_record(folder: Path) -> dict[str, Any]:
    """The record of a finished student.

    Raises:
        InputError: there is none, it cannot be read, or is no record.
    """
    path = folder / RECORD
    with reading(path):
        if not path.is_file():
            missing = f"there is no {RECORD}" if folder.exists() else "there is no such folder"
            raise InputError(f"{folder}: holds no finished student, {missing}")
    text = read_text(path)
    try:
        record = json.loads(text)  # of a training that diverged it holds NaN
    except (ValueError, RecursionError):
        record = None
    if not isinstance(record, dict) or not isinstance(record.get("config"), dict):
        raise damaged(path)
    return record


def damaged(path: Path) -> InputError:
    """What is said of a student's record that is none."""
    return InputError(
        f"{path}: is not the record of a student; delete it, and `distill` trains the student again"
    )
