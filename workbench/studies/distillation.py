"""Every arm with several seeds, as many at a time as the machine takes; stops and goes on.

Each student is a process of its own, started with the command that trains one, so that a study does
nothing that its commands one by one would not. What is finished is left alone; a student that was
stopped goes on from its last checkpoint.
"""

import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path

from workbench.bench.distill import equal_compute
from workbench.distill.arms import ON_TRACES, find_arm
from workbench.distill.given import RECORD, read_record
from workbench.distill.training.folder import WORK
from workbench.errors import InputError
from workbench.files import claim
from workbench.models import loading
from workbench.progress import Advance

MAIN = ("cot", "mechanistic", "random")
"""Arms of the main comparison, which get more seeds."""


INDIFFERENT = {"--workers", "--readout-every", "--checkpoint-every"}
"""Flags of `distill` that decide nothing."""


@dataclass(frozen=True)
class Planned:
    """One student of a study."""

    name: str
    arm: str
    seed: int
    steps: int

    def command(self, out: Path, options: Sequence[str]) -> list[str]:
        """What trains it; `options` are those that all students share."""
        own = ["--arm", self.arm, "--seed", str(self.seed), "--steps", str(self.steps)]
        start = [sys.executable, "-m", "workbench", "distill", "--out", str(out / self.name)]
        return [*start, *own, *options]


def plan(
    arms: Sequence[str] = ON_TRACES,
    *,
    steps: int,
    seeds: int = 3,
    main_seeds: int = 5,
    costs: Mapping[str, float] | None = None,
) -> list[Planned]:
    """Students of a study, the first seed of every arm first.

    Args:
        arms: names of `arms.ARMS`; unless given, all that traces can train.
        steps: of every student.
        seeds: students of each arm, from seed 0.
        main_seeds: of chains alone, the full objective, and random heads.
        costs: seconds of a training step by arm, of `speed.read_costs`; if given, arms whose step
            costs less than one of the full objective are also trained for as many steps as take
            equal compute ("ARM-compute").

    Raises:
        InputError: an unknown arm, the same twice, or no students.
    """
    for arm in arms:
        find_arm(arm)
    if len(set(arms)) < len(arms) or not arms or min(seeds, main_seeds, steps) < 1:
        raise InputError("a study needs distinct arms, and at least one seed and step")
    longer = equal_compute(costs, steps) if costs is not None else {}
    students = []
    for arm in arms:
        for seed in range(main_seeds if arm in MAIN else seeds):
            students.append(Planned(f"{arm}-{seed}", arm, seed, steps))
            if arm in longer:
                students.append(Planned(f"{arm}-compute-{seed}", arm, seed, longer[arm]))
    return sorted(students, key=lambda student: student.seed)


def run_study(
    out: Path,
    students: Sequence[Planned],
    options: Sequence[str],
    *,
    jobs: int = 1,
    environments: Sequence[Mapping[str, str]] = ({},),
    progress: Advance | None = None,
) -> list[str]:
    """Train the students that are not finished, `jobs` at a time; each writes NAME.log in `out`.

    On Ctrl-C those that run are stopped too; the same call goes on.

    Args:
        out: folder of the students' folders.
        students: of `plan`.
        options: further flags of `workbench distill`, the same for all.
        jobs: processes at a time.
        environments: environment of each place in turn, whole; {} for this process's own. With
            several devices, one for each, saying which it is.
        progress: called with students done and all.

    Returns:
        names of those that failed; the end of their log says why.

    Raises:
        InputError: `jobs` is below 1, or the folder holds students with other flags or steps.
    """
    if jobs < 1:
        raise InputError(f"jobs is {jobs}, must be at least 1")
    _claim(out, options)
    waiting = [student for student in students if not _is_finished(out, student)]
    done, failed = len(students) - len(waiting), []
    places = [environments[place % len(environments)] for place in range(jobs)]
    running: set[subprocess.Popen[bytes]] = set()
    lock = threading.Lock()

    def train(student: Planned) -> str | None:
        with lock:
            place = places.pop(0)
        try:
            with (out / f"{student.name}.log").open("ab") as log:
                process = subprocess.Popen(
                    student.command(out, options), stdout=log, stderr=log, env=place or None
                )
                running.add(process)
                code = process.wait()
            running.discard(process)
        finally:
            with lock:
                places.append(place)
        return student.name if code else None

    with ThreadPoolExecutor(jobs) as pool:
        pending = {pool.submit(train, student) for student in waiting}
        try:
            while pending:
                finished, pending = wait(pending, return_when=FIRST_COMPLETED)
                failed += [name for name in (each.result() for each in finished) if name]
                done += len(finished)
                if progress:
                    progress(done, len(students))
        except KeyboardInterrupt:
            for future in pending:
                future.cancel()
            for process in list(running):
                process.terminate()
            raise
    return sorted(failed)


def _claim(out: Path, options: Sequence[str]) -> None:
    """Refuse flags that would give other students than those that are there."""
    path = out / "study.json"
    begun = any(out.glob(f"*/{RECORD}")) or any(out.glob(f"*/{WORK}/*/"))
    if not begun:  # whatever failed before the first checkpoint binds nobody
        path.unlink(missing_ok=True)
    claim(out, path, {"flags": _deciding(options)}, "a study")


def _deciding(options: Sequence[str]) -> dict[str, str]:
    """Flags that decide what students become, with their values; of a file, the hash."""
    words = [part for option in options for part in option.split("=", 1)]
    flags: dict[str, str] = {}
    name = ""
    for word in words:
        if word.startswith("--"):
            name = word
            flags[name] = ""
        elif Path(word).is_file():
            flags[name] = loading.files_sha256([Path(word)])
        else:
            flags[name] = str(Path(word).resolve()) if Path(word).is_dir() else word
    return {name: flags[name] for name in sorted(flags.keys() - INDIFFERENT)}


def _is_finished(out: Path, student: Planned) -> bool:
    path = out / student.name / RECORD
    if not path.is_file():
        return False
    steps = read_record(out / student.name)["config"].get("steps")
    if steps != student.steps:
        raise InputError(
            f"{path}: is of {steps} steps, not of {student.steps}; give another --out, or the "
            "steps that the study began with"
        )
    return True
