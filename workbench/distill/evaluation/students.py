"""Students on disk, and which of their heads are patched."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import pandas as pd

from workbench.distill.arms import ARMS, CUSTOM, arm_of
from workbench.distill.config import DEFAULTS, plain
from workbench.distill.given import RECORD, damaged, read_record
from workbench.distill.matching.head_map import HeadMap, Pools, pooled_heads
from workbench.distill.training.folder import READOUT
from workbench.distill.training.monitor import COLUMNS, read_readout
from workbench.errors import InputError
from workbench.files import differences
from workbench.heads import Head
from workbench.headsets.headset import HeadSet
from workbench.models import loading
from workbench.phases import POOLS, Pool

LEVEL = 0.9
NAMED = 4
"""Heads that the name of an arm spells out at most."""
SPEED_COLUMNS = [
    *("student", "arm", "seed", "teacher_accuracy", "level"),
    *("steps", "last_step", "last_accuracy"),
]

PoolHeads = dict[Pool, list[Head]]


@dataclass(frozen=True)
class Student:
    """A finished student's folder.

    Attributes:
        name: what it is called in tables.
        folder: as `distill` wrote it.
        arm: name of its arm, "custom" where it is of none.
        seed: of its weights and data.
        config: the `DistillationConfig` in its record.
        headmap: its supervised heads, None where no term has any.
        weights_sha256: hash of its weights.
        teacher: hash of its teacher's weights.
        n_traces: right chains of the teacher that it was taught with.
    """

    name: str
    folder: Path
    arm: str
    seed: int
    config: Mapping[str, Any] = field(repr=False)
    headmap: HeadMap | None = field(repr=False)
    weights_sha256: str = ""
    teacher: str = ""
    n_traces: int = 0

    @classmethod
    def read(cls, name: str, folder: str | Path) -> "Student":
        """What the folder says of the student; its weights are only hashed.

        Raises:
            InputError: no finished student there, or a record that cannot be read.
        """
        folder = Path(folder)
        path, record = folder / RECORD, read_record(folder)
        try:
            config, mapped = record["config"], record["headmap"]
            seed, n_steps, mix = int(config["seed"]), config.get("steps", 0), config.get("mix", {})
            if not isinstance(n_steps, int) or not isinstance(mix, Mapping):
                raise TypeError
            headmap = None if mapped is None else HeadMap.model_validate_json(json.dumps(mapped))
            arm = arm_of(config, {pair.pool for pair in headmap.pairs} if headmap else POOLS)
            taught = {"teacher": str(record["teacher"]), "n_traces": int(record["traces"]["kept"])}
        except (ValueError, KeyError, TypeError, AttributeError):
            raise damaged(path) from None
        digest = loading.weights_sha256(folder)
        return cls(name, folder, arm, seed, config, headmap, digest, **taught)

    @property
    def shared(self) -> dict[str, Any]:
        """Settings in which students of a comparison are alike: all but arm, steps and seed."""
        defaults = plain(asdict(DEFAULTS))
        settings = defaults | dict(self.config)
        settings["mix"] = defaults["mix"] | dict(settings["mix"])
        own = {"loss", "heads", "matching", "steps", "seed"}
        of_traces = {"n_traces", "max_new_tokens", "trace_seed"}  # the traces' number says enough
        kept = {name: settings[name] for name in settings.keys() - own - of_traces}
        return {"teacher": self.teacher, "traces": self.n_traces, **kept}

    @property
    def knows_pools(self) -> bool:
        """Whether it was taught with the teacher's pooled heads, not with controls."""
        return self.headmap is not None and self.config.get("heads") == "pools"

    def readout(self) -> pd.DataFrame | None:
        """How far it was while it trained; None where nothing was measured.

        Raises:
            InputError: the table cannot be read.
        """
        path = self.folder / READOUT
        if not path.is_file():
            return None
        return read_readout(path)


def read_students(students: Mapping[str, str | Path], pools: Pools | None = None) -> list[Student]:
    """All students, checked before any of them is run.

    Those trained for more steps than the others, to spend as much compute, are an arm of their own:
    `cot@6000` beside `cot`. So are those of another head set: `mechanistic(3-5,4-2)` beside
    `mechanistic`, which are those of `pools`, or of the first student's heads where no student has
    learnt from `pools`. Arms come in the order of `ARMS`, seeds in theirs.

    Raises:
        InputError: a name that is no folder name, a folder without a finished student, two
            students of the same arm and seed, or students of arms that differ in more than these
            and their steps.
    """
    found: dict[tuple[str, int], Student] = {}
    read = []
    for name, folder in students.items():
        if name == "teacher" or name != Path(name).name or name.startswith("."):
            raise InputError(f"a student cannot be called {name!r}: results go to a folder of it")
        read.append(Student.read(name, folder))
    _check_alike([student for student in read if student.arm != CUSTOM])
    read = _by_head_set(read, pools)
    fewest = min((student.config.get("steps", 0) for student in read), default=0)
    for place, student in enumerate(read):
        steps = student.config.get("steps", 0)
        if student.arm != CUSTOM and steps > fewest:
            read[place] = student = replace(student, arm=f"{student.arm}@{steps}")
        twin = found.setdefault((student.arm, student.seed), student)
        if twin is not student and student.arm != CUSTOM:
            raise InputError(
                f"students {twin.name!r} and {student.name!r} are both of arm {student.arm!r} and "
                f"seed {student.seed}"
            )
    return sorted(read, key=_place)


def _check_alike(students: Sequence[Student]) -> None:
    for one in students[1:]:
        different = differences(students[0].shared, one.shared)
        if different:
            raise InputError(
                f"students {students[0].name!r} and {one.name!r} differ in {', '.join(different)}, "
                "which arms are not told apart by; evaluate them in folders of their own"
            )


def _by_head_set(students: Sequence[Student], pools: Pools | None) -> list[Student]:
    """Students of other heads than the chief head set are of an arm that names their heads."""
    taught = {
        one.name: _ordered(_side(headmap, "teacher"))
        for one, headmap in _taught(students)
        if one.arm != CUSTOM
    }
    chief = next(iter(taught.values()), {})
    if pools is not None and (given := _ordered(_listed(pools))) in taught.values():
        chief = given
    return [
        replace(one, arm=f"{one.arm}({_heads_named(taught[one.name])})")
        if taught.get(one.name, chief) != chief
        else one
        for one in students
    ]


def _ordered(heads: PoolHeads) -> PoolHeads:
    """The same whatever order the heads were listed in."""
    return {pool: sorted(listed) for pool, listed in heads.items()}


def _heads_named(heads: PoolHeads) -> str:
    """Names of a few heads; of many their number, and some letters that tell sets apart."""
    names = [f"{layer}-{head}" for listed in heads.values() for layer, head in listed]
    if len(names) <= NAMED:
        return ",".join(names)
    return f"{len(names)} heads {sha256(str(heads).encode()).hexdigest()[:6]}"


def _place(student: Student) -> tuple[int, str, int]:
    """Where a student stands among others; those of no known arm come last."""
    known = list(ARMS)
    arm = student.arm.partition("@")[0].partition("(")[0]
    return known.index(arm) if arm in known else len(known), student.arm, student.seed


def heads_of(student: Student, others: Sequence[Student]) -> tuple[PoolHeads, str]:
    """Heads of a student by pool, and whose they are.

    "own" are those that it was taught with. One taught with none is patched where a student of the
    same shape was taught with the pools ("borrowed"); "none" where there is no such student.
    """
    if student.headmap is not None:
        return _side(student.headmap, "student"), "own"
    for other, headmap in _taught(others):
        if other.config.get("student") == student.config.get("student"):
            return _side(headmap, "student"), "borrowed"
    return {}, "none"


def teacher_heads(pools: Pools | None, students: Sequence[Student]) -> tuple[PoolHeads, str]:
    """The teacher's pooled heads: as given, else those that a student was taught with."""
    if pools is None:
        taught = _taught(students)
        return (_side(taught[0][1], "teacher"), "taught") if taught else ({}, "none")
    return _listed(pools), "given"


def _taught(students: Sequence[Student]) -> list[tuple[Student, HeadMap]]:
    """Those who learnt from a head set, with their maps; of the chief one first."""
    found = [(one, one.headmap) for one in students if one.knows_pools and one.headmap is not None]
    return sorted(found, key=lambda pair: "(" in pair[0].arm)  # as `_by_head_set` names arms


def _listed(pools: Pools) -> PoolHeads:
    """Heads by pool, in whatever form they are given."""
    listed: list[tuple[Pool, Head]]
    if isinstance(pools, Mapping):
        listed = [(pool, head) for pool, heads in pools.items() for head in heads]
    else:
        heads = pooled_heads(pools) if isinstance(pools, HeadSet) else pools
        listed = [(head.pool, (head.layer, head.head)) for head in heads]
    return _by_pool(listed)


def _side(headmap: HeadMap, side: str) -> PoolHeads:
    return _by_pool([(pair.pool, getattr(pair, side)) for pair in headmap.pairs])


def _by_pool(listed: Sequence[tuple[Pool, Head]]) -> PoolHeads:
    """Each head once in its pool; no pool without heads."""
    found: PoolHeads = {}
    for pool in POOLS:
        heads = list(dict.fromkeys((at[0], at[1]) for name, at in listed if name == pool))
        if heads:
            found[pool] = heads
    return found


def steps_to(readout: pd.DataFrame, level: float) -> float:
    """First step whose accuracy is at least `level`, as fine as readouts were made; else NaN.

    `readout` has columns step and accuracy.
    """
    reached = readout.loc[readout["accuracy"] >= level, "step"]
    return float(reached.min()) if len(reached) else float("nan")


def readouts(students: Sequence[Student]) -> pd.DataFrame:
    """Every student's readouts while it trained: student, arm, seed and `monitor.COLUMNS`."""
    frames = [
        table.assign(student=one.name, arm=one.arm, seed=one.seed)
        for one in students
        if (table := one.readout()) is not None and len(table)
    ]
    columns = ["student", "arm", "seed", *COLUMNS]
    if not frames:
        return pd.DataFrame(columns=columns)
    return pd.concat(frames, ignore_index=True).reindex(columns=columns)


def speed(readouts: pd.DataFrame, accuracy: float) -> pd.DataFrame:
    """Steps to 90 % of the teacher's direct accuracy, of the students in `readouts`."""
    rows = []
    for who, table in readouts.groupby(["student", "arm", "seed"], sort=False):
        assert isinstance(who, tuple)
        last = table.sort_values("step").iloc[-1]
        reached = steps_to(table, LEVEL * accuracy)
        rows.append((*who, accuracy, LEVEL * accuracy, reached, last["step"], last["accuracy"]))
    return pd.DataFrame(rows, columns=SPEED_COLUMNS)
