"""Many students on the devices of a machine, until they are done or time is up.

Several processes share a device; each loads the teacher once and trains one student after the
other, taking the next of an ordered list that nobody has. A student is a small file of results.
The same call goes on.
"""

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from workbench.errors import InputError
from workbench.files import alone_in, claim, file_sha256, write_text
from workbench.models import loading
from workbench.studies.students.asked import share_right
from workbench.studies.students.jobs import TEACHER, Job
from workbench.studies.students.place import (
    CLAIMS,
    ERRORS,
    JOBS,
    LOGS,
    RESULTS,
    SAMPLES,
    STUDY,
    result_path,
)

Compiled = Literal["none", "blocks", "all"]
FREE = ("workers", "keep", "evaluations")
"""Settings that decide no results."""
EVERY = 10.0
"""Seconds between two lines."""


def run_students(
    out: Path,
    jobs: Sequence[Job],
    settings: Mapping[str, Any],
    *,
    rows: Path,
    n_rows: int,
    processes: int,
    devices: int,
    until: float,
    compiled: Compiled = "none",
    say: Callable[[str], None] = print,
) -> list[Job]:
    """Train the students that are not finished; the teacher is asked first.

    Args:
        out: the study's folder.
        jobs: in the order in which they are begun.
        settings: teacher, task, heads (files by name), batch_size, evaluations (shares of the
            steps), report, select and seen (prompts), workers, keep (a seed
            whose models are kept, or None); those that decide results are
            the same for all that a folder holds.
        rows: file of JSON lines, or folder of such; the first `n_rows` are used.
        n_rows: of which every student has its own.
        processes: side by side.
        devices: they take turns on; 0 for the CPU.
        until: seconds since the epoch when all ends.
        compiled: what is compiled on CUDA: nothing, the blocks of models (once a process), or
            losses, too (once an arm).
        say: told a line now and then.

    Returns:
        those that are not finished.

    Raises:
        InputError: the folder is of other settings, bad rows, or a damaged file of samples.
    """
    from workbench.studies.students.samples import make_samples, read_samples

    if processes < 1:
        raise InputError(f"{processes} processes, must be at least 1")
    with alone_in(out):
        _claim(out, settings, rows, n_rows)
        folder = loading.model_folder(settings["teacher"])
        if (out / SAMPLES).is_file():
            read_samples(out / SAMPLES)  # a damaged one is refused here, not in every process
        else:
            started = time.monotonic()
            context = loading.hf_config(folder).get_text_config().max_position_embeddings
            n = make_samples(rows, folder, context, n_rows, out / SAMPLES)
            say(f"{n:,} rows are samples, {time.monotonic() - started:.0f} s")
        for name in (RESULTS, ERRORS, LOGS):
            (out / name).mkdir(exist_ok=True)
        shutil.rmtree(out / CLAIMS, ignore_errors=True)  # whoever had one is gone
        (out / CLAIMS).mkdir()
        n_layers = loading.hf_config(folder).get_text_config().num_hidden_layers
        teacher = Job(TEACHER, "", n_layers, 0, 0.0, 1.0, 0, 0)
        all_jobs = [teacher, *jobs]
        asked = {"until": until, "jobs": [job.to_json() for job in all_jobs]}
        write_text(out / JOBS, json.dumps(asked))
        _watch(out, all_jobs, _start(out, processes, devices, compiled), until, say)
    return [job for job in all_jobs if not _finished(out, job)]


def _claim(out: Path, settings: Mapping[str, Any], rows: Path, n_rows: int) -> None:
    """Refuse settings that would give other results than those that are there."""
    files = {name: file_sha256(Path(path)) for name, path in settings["heads"].items()}
    whole = {**settings, "heads": files, "rows": rows.name, "n_rows": n_rows}
    decides = {name: value for name, value in whole.items() if name not in FREE}
    before = out / "asked.json"
    if before.is_file():  # a further head set changes nothing of what is there
        theirs = json.loads(before.read_text()).get("heads", {})
        if all(files.get(name, sha) == sha for name, sha in theirs.items()):
            kept = json.loads(before.read_text()) | {"heads": theirs | files}
            write_text(before, json.dumps(kept, indent=1, sort_keys=True))
            decides["heads"] = theirs | files
    claim(out, before, decides, "a study of students")
    paths = {name: str(Path(path).resolve()) for name, path in settings["heads"].items()}
    write_text(out / STUDY, json.dumps({**settings, "heads": paths}))


def _start(
    out: Path, processes: int, devices: int, compiled: Compiled
) -> list["subprocess.Popen[bytes]"]:
    running = []
    for number in range(processes):
        environment = {**os.environ, "TOKENIZERS_PARALLELISM": "false"}
        if compiled == "none":
            environment["TORCHDYNAMO_DISABLE"] = "1"
        if devices:
            environment["CUDA_VISIBLE_DEVICES"] = str(number % devices)
            environment.setdefault("OMP_NUM_THREADS", "2")
        command = [sys.executable, "-m", "workbench.studies.students.worker", str(out), compiled]
        with (out / LOGS / f"{number}.log").open("ab") as log:
            running.append(subprocess.Popen(command, stdout=log, stderr=log, env=environment))
    return running


def _watch(
    out: Path,
    jobs: Sequence[Job],
    running: Sequence["subprocess.Popen[bytes]"],
    until: float,
    say: Callable[[str], None],
) -> None:
    """A line every ten seconds, and one for every student that is done."""
    told: set[str] = {job.name for job in jobs if _finished(out, job)}
    last = 0.0
    try:
        while any(process.poll() is None for process in running):
            time.sleep(0.5)
            done = [job for job in jobs if job.name not in told and _finished(out, job)]
            for job in done:
                told.add(job.name)
                say(line(json.loads(result_path(out, job).read_text())))
            if time.monotonic() - last > EVERY:
                last = time.monotonic()
                begun = {path.name for path in (out / CLAIMS).iterdir()} - told
                wrong = len(list((out / ERRORS).glob("*.txt")))
                minutes = (until - time.time()) / 60
                left = "" if minutes > 10_000 else f", {minutes:.1f} min left"
                say(f"[{len(told)}/{len(jobs)} done, {len(begun)} begun, {wrong} failed{left}]")
            if time.time() > until + 30:
                say("time is up: what is not finished is left")
                break
    finally:
        for process in running:
            if process.poll() is None:
                process.terminate()
        for process in running:
            process.wait()


def _finished(out: Path, job: Job) -> bool:
    path = result_path(out, job)
    return path.is_file() and json.loads(path.read_text())["finished"]


def line(result: Mapping[str, Any]) -> str:
    """What is said of a student: shares of prompts right, at the steps at which it was asked."""
    shares = [
        f"{point['step']}: {share_right(point['report']['exact']):.3f}" for point in result["curve"]
    ]
    seconds = ", ".join(f"{name} {value:.0f} s" for name, value in result["seconds"].items())
    job = Job(**result["job"])
    peak = f", {result['peak_gib']} GiB" if "peak_gib" in result else ""
    return f"{job.name}  {'  '.join(shares)}  ({seconds}{peak})"
