"""Which of several processes this one is, and loops that they share: nothing else asks that.

`accelerate launch` and `torchrun` start one command several times and say to each in its
environment how many there are; so do mpirun and whoever sets RANK and WORLD_SIZE. The processes
need nothing but a shared folder to work together (`workbench.team`). Process 0 is the main one:
it alone talks to the user and writes what is kept.

Work on many events is written as a function of some of them, which yields one result an event, and
handed to a `Spread`. In one process that is `in_order`.
"""

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

from rich.console import Console

from workbench.errors import InputError
from workbench.progress import Advance, Reporter

Work = Callable[[Sequence[Any]], Iterable[Any]]
"""Takes items and yields one result for each, in their order."""
Spread = Callable[..., list[Any]]
"""(work, items, progress=None, *, everywhere=False, records=()) → a result for each item.

They are in the order of the items. `progress` is called with (items done, items). Several processes
share the items, and the main one has all results; so have the others with `everywhere`, without it
they leave the step there. Results are values as `workbench.messages` knows them, and `records` the
dataclasses and named tuples in them.
"""

_RANK = ("RANK", "PMI_RANK", "OMPI_COMM_WORLD_RANK", "MV2_COMM_WORLD_RANK")
_WORLD = ("WORLD_SIZE", "PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "MV2_COMM_WORLD_SIZE")
_LOCAL_RANK = (
    *("LOCAL_RANK", "MPI_LOCALRANKID"),
    *("OMPI_COMM_WORLD_LOCAL_RANK", "MV2_COMM_WORLD_LOCAL_RANK"),
)
_LOCAL_WORLD = (
    *("LOCAL_WORLD_SIZE", "MPI_LOCALNRANKS"),
    *("OMPI_COMM_WORLD_LOCAL_SIZE", "MV2_COMM_WORLD_LOCAL_SIZE"),
)


class Gone(Exception):
    """Another process failed or is gone, so this one cannot go on; its line says which and why.

    No `InputError`: a step that leaves out what an input does not allow must not leave out this.
    """


class SaidElsewhere(Gone):
    """Another process failed and says why: this one ends without a word."""


class ShareDone(Exception):
    """What is left of a step is the main process's work."""


@dataclass(frozen=True)
class Processes:
    """The place of this process among those of one launch."""

    rank: int = 0
    world: int = 1
    """How many there are."""
    local_rank: int = 0
    """Its place among those of this machine."""
    local_world: int = 1

    @classmethod
    def here(cls, environment: Mapping[str, str] | None = None) -> "Processes":
        """This process, as its environment says.

        Raises:
            InputError: numbers that do not fit one another.
        """
        given = os.environ if environment is None else environment
        world = _number(given, _WORLD, 1)
        rank = _number(given, _RANK, 0)
        if world <= 1:
            return cls()
        if rank >= world:
            raise InputError(f"RANK is {rank} and WORLD_SIZE {world}: ranks go to {world - 1}")
        local_rank = _number(given, _LOCAL_RANK, rank)
        return cls(rank, world, local_rank, max(_number(given, _LOCAL_WORLD, world), 1))

    @property
    def is_main(self) -> bool:
        """Whether this one writes what is kept, and talks."""
        return self.rank == 0

    def mine(self, count: int) -> range:
        """Which of so many numbered pieces of work are this process's."""
        return range(self.rank, count, self.world)

    def reporter(self, given: Reporter | None = None) -> Reporter:
        """Where progress is told: by the main process as given, by the others nowhere."""
        return (given or Reporter()) if self.is_main else Reporter(Console(quiet=True))

    def device(self, asked: str | None = None) -> str | None:
        """The device for a model of this process; several have one GPU of the machine each.

        None leaves the choice to the model: an accelerator if there is one.

        Raises:
            InputError: "auto", where several processes of this machine would spread models.
        """
        if self.world == 1:
            return asked
        if asked == "auto" and self.local_world > 1:
            raise InputError(
                "--device auto gives one process all GPUs of a machine, and "
                f"{self.local_world} were launched on this one; launch one a machine, or leave "
                "--device out: then each has a GPU of its own"
            )
        if asked not in (None, "cuda"):
            return asked
        if asked is None and os.environ.get("ACCELERATE_USE_CPU", "").lower() in ("1", "true"):
            return "cpu"
        import torch

        count = torch.cuda.device_count()
        return f"cuda:{self.local_rank % count}" if count else asked


def _number(given: Mapping[str, str], names: Iterable[str], otherwise: int) -> int:
    for name in names:
        if name in given:
            if not given[name].isdecimal():
                raise InputError(f"{name} is {given[name]!r} in the environment, must be a number")
            return int(given[name])
    return otherwise


def started_alone(environment: Mapping[str, str] | None = None) -> bool:
    """Whether several processes were asked for and `accelerate launch --cpu` started one.

    It gives the address at which they would meet, and no rank.
    """
    given = os.environ if environment is None else environment
    on_cpu = given.get("ACCELERATE_USE_CPU", "").lower() in ("1", "true")
    return on_cpu and "MASTER_ADDR" in given and not any(name in given for name in _RANK)


def parted(part: str) -> Processes:
    """`1/8`: the second of eight processes that are started by hand, as `--part` says it.

    Raises:
        InputError: something else.
    """
    which, _, parts = part.partition("/")
    if not (which.isdecimal() and parts.isdecimal() and int(parts)):
        raise InputError(f"part {part!r} is not WHICH/PARTS; give 0/8, 1/8 and so on")
    if int(which) >= int(parts):
        raise InputError(f"part {part}: parts count from 0 to {int(parts) - 1}")
    return Processes(int(which), int(parts))


def in_order(
    work: Work,
    items: Sequence[Any],
    progress: Advance | None = None,
    *,
    everywhere: bool = False,
    records: Sequence[type] = (),
) -> list[Any]:
    """The `Spread` of one process: all items, one after the other."""
    found = []
    for one in work(items):
        found.append(one)
        if progress is not None:
            progress(len(found), len(items))
    return found


class Alone:
    """One process: shares its work with nobody. `workbench.team.Team` is several."""

    is_main = True

    def spread(
        self,
        work: Work,
        items: Sequence[Any],
        progress: Advance | None = None,
        *,
        everywhere: bool = False,
        records: Sequence[type] = (),
    ) -> list[Any]:
        """A `Spread`."""
        return in_order(work, items, progress)

    def told(self, value: Callable[[], Any], records: Sequence[type] = ()) -> Any:
        """What the main process finds; the others do not look."""
        return value()

    def check(self) -> None:
        """Nothing that others do can stop this."""

    def wait(self, ready: Callable[[], bool], what: str) -> None:
        """Wait for a file that was written, where file systems show it late."""

    def close(self) -> None:
        """Nobody is left."""

    def everyone(self) -> None:
        """Nobody is to come."""

    def rejoin(self) -> None:
        """Nobody has left."""

    def begin_step(self) -> None:
        """Nobody is to know."""

    def failing(self) -> AbstractContextManager[None]:
        """Nobody is to stop."""
        return nullcontext()
