"""Which of several processes this is, and waiting for the others by what lies in the folder.

Launchers (`accelerate launch`, torchrun, MPI) say it in the environment. Processes share a folder
and nothing else: no process group is made, so none can wait for a message that never comes, and
hosts that see the same folder need no network between them.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from accelerate.utils.environment import get_cpu_distributed_information

from workbench.errors import InputError
from workbench.progress import Reporter, duration

SECONDS_BETWEEN_LOOKS = 0.5


@dataclass(frozen=True)
class Place:
    """Process `index` of `count`, counted from 0.

    `local` is its number on this machine, `by_launcher` whether a launcher started all of them.
    """

    index: int = 0
    count: int = 1
    local: int = 0
    by_launcher: bool = False

    @property
    def main(self) -> bool:
        """Whether it does what is done once."""
        return self.index == 0

    @property
    def said(self) -> str:
        """ ", process 2 of 8", as people count; nothing where it is the only one."""
        return f", process {self.index + 1} of {self.count}" if self.count > 1 else ""

    def device(self, device: str | torch.device) -> torch.device | str:
        """The accelerator of this process, where one of several is not named by number."""
        if str(device) != "cuda" or not torch.cuda.is_available():
            return device
        return f"cuda:{self.local % torch.cuda.device_count()}"


def launched() -> Place:
    """What the launcher says; the only process where there is none.

    Raises:
        InputError: numbers that cannot be.
    """
    try:
        told = get_cpu_distributed_information()
    except ValueError:
        raise InputError("RANK and WORLD_SIZE in the environment must be whole numbers") from None
    place = _checked(told.rank, told.world_size, told.local_rank, "RANK/WORLD_SIZE")
    return replace(place, by_launcher=True)


def parted(part: str) -> Place:
    """`1/8`: the second of eight processes that are started by hand.

    Raises:
        InputError: something else.
    """
    which, _, parts = part.partition("/")
    if not (which.isdecimal() and parts.isdecimal()):
        raise InputError(f"part {part!r} is not WHICH/PARTS; give 0/8, 1/8 and so on")
    return _checked(int(which), int(parts), 0, "part")


def _checked(index: int, count: int, local: int, what: str) -> Place:
    if not 0 <= index < count:
        raise InputError(f"{what} {index}/{count}: the first counts from 0 to {count - 1}")
    return Place(index, count, max(0, local))


def wait_for(
    done: Callable[[], int], total: int, what: str, patience: float, reporter: Reporter
) -> None:
    """Until `done` says `total`; it counts what other processes have made.

    Args:
        done: looked at again and again.
        total: what it is to become.
        what: is awaited, for people.
        patience: seconds without anything new after which this process gives up.
        reporter: shows how much is there.

    Raises:
        InputError: nothing new for that long.
    """
    there = done()
    if there >= total:
        return
    since = time.monotonic()
    waits = f"waiting for {what} (at most {duration(patience)} without anything new)"
    with reporter.step(waits, total) as advance:
        while there < total:
            if time.monotonic() - since > patience:
                raise InputError(
                    f"waited {duration(patience)} for {what} of other processes, and "
                    f"{there} of {total} are there; run the same command again for the rest"
                )
            time.sleep(SECONDS_BETWEEN_LOOKS)
            found = done()
            since = time.monotonic() if found != there else since
            there = found
            advance(min(there, total), total)
