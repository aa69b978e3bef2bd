"""Processes that share a folder wait for one another.

They tell one another nothing but what they write, so hosts need only a folder that all of them see.
"""

import time
from collections.abc import Callable

from workbench.errors import InputError
from workbench.processes import Alone
from workbench.progress import Reporter, duration

SECONDS_BETWEEN_LOOKS = 0.5


def wait_for(
    done: Callable[[], int], total: int, what: str, patience: float, reporter: Reporter, team: Alone
) -> None:
    """Until `done` says `total`; it counts what other processes have made.

    Args:
        done: looked at again and again.
        total: what it is to become.
        what: is awaited, for people.
        patience: seconds without anything new after which this process gives up.
        reporter: shows how much is there.
        team: says at once where another process of the same launch has failed.

    Raises:
        InputError: nothing new for that long, or another process failed.
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
            team.check()
            time.sleep(SECONDS_BETWEEN_LOOKS)
            found = done()
            since = time.monotonic() if found != there else since
            there = found
            advance(min(there, total), total)
