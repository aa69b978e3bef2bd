"""A process of a study: takes the next student that nobody has, until there are none or no time.

Started by `drive.run_students` with the study's folder; it sees one device.
"""

import json
import os
import sys
import time
import traceback
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from workbench.files import write_text
from workbench.studies.students.jobs import TEACHER, Job
from workbench.studies.students.place import (
    CLAIMS,
    ERRORS,
    JOBS,
    MODELS,
    SAMPLES,
    STUDY,
    read_results,
    result_path,
)

FAILURES = 3
"""Students in a row that fail, after which a process gives up."""
PAUSE = 15.0
"""Seconds after which a student is tried again for which there was no memory."""
FIRST_GUESS = 60.0
"""Seconds that a student takes, where none of its size is finished."""


def main(out: Path, compiled: str = "none") -> None:
    """Train students of the study in a folder; losses are compiled only where `compiled` is all."""
    study, asked = (json.loads((out / name).read_text()) for name in (STUDY, JOBS))
    jobs = [Job(**one) for one in asked["jobs"]]
    setup: Any = None
    failed = 0
    for job in jobs:
        if failed >= FAILURES or not _is_open(out, job, asked["until"]) or not _claim(out, job):
            continue
        setup = setup or _setup(out, study, asked["until"])
        said = _try(out, setup, job, compiled)
        if said is not None and "OutOfMemoryError" in said:  # others share the device
            time.sleep(PAUSE)
            said = _try(out, setup, job, compiled)
        failed = 0 if said is None else failed + 1
        path = out / ERRORS / f"{job.name}.txt"
        if said is None:
            path.unlink(missing_ok=True)
        else:
            write_text(path, said)


def _try(out: Path, setup: Any, job: Job, compiled: str) -> str | None:
    """Do a job; what it failed with, if it did. None also where there was no time to end it."""
    from workbench.distill.losses.compiling import eager

    try:
        with nullcontext() if compiled == "all" else eager():
            _do(out, setup, job)
    except Exception as error:
        return None if type(error).__name__ == "TimeUp" else traceback.format_exc()
    finally:
        _tidy()
    return None


def _setup(out: Path, study: Mapping[str, Any], until: float) -> Any:
    import torch

    from workbench.models import loading
    from workbench.prompts.choices import open_task
    from workbench.studies.students.asked import REPORT, SEEDS, SEEN, SELECT, Asked
    from workbench.studies.students.samples import read_samples
    from workbench.studies.students.train import Setup

    if torch.cuda.is_available():
        torch.backends.cuda.matmul.allow_tf32 = True
        torch._dynamo.config.recompile_limit = 64  # blocks are read at other places in every arm
    folder = loading.model_folder(study["teacher"])
    tokenizer = loading.read_tokenizer(folder)
    tasks = {
        split: open_task(study["task"], model=folder, split=split) for split in ("seen", "unseen")
    }
    return Setup(
        teacher=study["teacher"],
        heads=study["heads"],
        samples=read_samples(out / SAMPLES),
        asked={
            name: Asked(
                tokenizer, tasks["seen" if name == SEEN else "unseen"], study[name], SEEDS[name]
            )
            for name in (REPORT, SELECT, SEEN)
        },
        batch_size=study["batch_size"],
        accumulation=study["accumulation"],
        evaluations=tuple(study["evaluations"]),
        workers=study["workers"],
        scratch=out,
        keep=None if study["keep"] is None else out / MODELS,
        kept_seed=study["keep"] or 0,
        until=until,
    )


def _do(out: Path, setup: Any, job: Job) -> None:
    from workbench.studies.students.train import ask_teacher, train_student

    def write(result: Mapping[str, Any]) -> None:
        write_text(result_path(out, job), json.dumps(result))

    if job.arm == TEACHER:
        write(ask_teacher(setup))
    else:
        train_student(setup, job, write)


def _tidy() -> None:
    import gc

    import torch

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def _is_open(out: Path, job: Job, until: float) -> bool:
    """Whether a student is neither finished nor too long for the time that is left."""
    results = read_results(out)
    if any(one["finished"] and one["job"] == job.to_json() for one in results):
        return False
    return time.time() + guess(job, results) < until


def guess(job: Job, results: Sequence[Mapping[str, Any]]) -> float:
    """Seconds that a student will take, by those that are finished: of its arm, or of any."""
    if job.arm == TEACHER:
        return FIRST_GUESS / 2
    done = [
        one
        for one in results
        if one["finished"] and one["job"]["layers"] == job.layers and one["job"]["steps"]
    ]
    own = [one for one in done if one["job"]["arm"] == job.arm] or done
    if not own:
        return FIRST_GUESS
    times = [
        one["seconds"]["training"] / one["job"]["steps"] * job.steps
        + one["seconds"]["asking"]
        + one["seconds"]["making"]
        for one in own
    ]
    return max(times)


def _claim(out: Path, job: Job) -> bool:
    """Whether nobody else has this student; it is this process's then."""
    try:
        os.close(os.open(out / CLAIMS / job.name, os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        return False
    return True


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:])
