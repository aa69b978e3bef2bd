"""Processes of one launch that share the work on one folder, on one machine or on several.

All they need is a file system that all of them see. What they say of their work lies beside what
they say of themselves (`workbench.presence`):

    .team/SESSION/4-2-1   what process 1 found in the second shared loop of the fourth step
    .team/SESSION/told-3  the third thing that the main process told all

Both are messages (`workbench.messages`). Who waits says for whom, and how far that one is.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from workbench import presence
from workbench.errors import InputError
from workbench.messages import decode, encode
from workbench.presence import Presence
from workbench.processes import Alone, Gone, Processes, ShareDone, Work
from workbench.progress import Advance, Reporter


class _Share(NamedTuple):
    """What one process found of the items of a loop."""

    of: int
    """How many items there are for all."""
    found: list[Any]
    error: tuple[int, str] | None
    """The item that has one, and what it says."""


class Team(Presence, Alone):
    """This process among those that share its work; made by `meet`."""

    _step = _turn = _n_told = 0

    @classmethod
    def meet(
        cls,
        folder: Path,
        *,
        here: Processes | None = None,
        reporter: Reporter | None = None,
        patience: float | None = None,
    ) -> Alone:
        """The processes of this launch; the main one does not wait for the others yet.

        Raises:
            InputError: the main process does not come, or is of another launch.
        """
        here = here or Processes.here()
        if here.world == 1:
            return Alone()
        patience = presence.PATIENCE if patience is None else patience
        return cls.begin(folder, here, here.reporter(reporter), patience)

    def begin_step(self) -> None:
        """A further step comes, as all know: what is left of the one before is not waited for."""
        self._step, self._turn = self._step + 1, 0

    def spread(
        self,
        work: Work,
        items: Sequence[Any],
        progress: Advance | None = None,
        *,
        everywhere: bool = False,
        records: Sequence[type] = (),
    ) -> list[Any]:
        """A `Spread`: process n of m does items n, n + m, ….

        Raises:
            InputError: that of the first item that has one, in all processes.
            Gone: another process failed or is gone.
            ShareDone: in all but the main process, unless results are wanted everywhere.
            TypeError: a result that is none of the kinds that messages hold.
        """
        self._turn += 1
        name, total = f"{self._step}-{self._turn}", len(items)
        mine = self.here.mine(total)
        self._state |= {"at": name, "done": 0, "of": len(mine), "stopped": None}
        self._say()
        found: list[Any] = []
        error = None
        own = iter(work([items[number] for number in mine]) if len(mine) else ())
        for number in mine:
            try:
                found.append(next(own))
            except InputError as said:
                error = number, str(said)
                self._state["stopped"] = number
                break
            self._state["done"] = len(found)
            self.check()
            if progress is not None:
                progress(min(total, self._done(name)), total)
            if self._stopped(name) < number:
                break
        share, sent = _Share(total, found, error), (_Share, *records)
        if everywhere or not self.is_main:
            self._put(f"{name}-{self.here.rank}", encode(share, sent))
        self._say()
        if not (everywhere or self.is_main):
            raise ShareDone
        shares = [
            share if rank == self.here.rank else self._share(name, rank, sent, keep=everywhere)
            for rank in range(self.here.world)
        ]
        for rank, other in enumerate(shares):
            if other.of != total:
                raise Gone(
                    f"process {rank} has {other.of} events where another has {total}; have all "
                    "machines the same versions of all packages?"
                )
        if errors := [other.error for other in shares if other.error]:
            raise InputError(min(errors)[1])
        if progress is not None and total:
            progress(total, total)
        return [shares[at % self.here.world].found[at // self.here.world] for at in range(total)]

    def told(self, value: Callable[[], Any], records: Sequence[type] = ()) -> Any:
        """What the main process finds; the others wait for it.

        `records` are the dataclasses and named tuples that may come.

        Raises:
            Gone: another process failed or is gone.
            TypeError: this is none of the kinds that messages hold.
        """
        self._n_told += 1
        name = f"told-{self._n_told}"
        if self.is_main:
            self._put(name, encode(value(), records))
        self.wait((self._below / name).is_file, "the main process")
        return _read(self._below / name, records)

    def _share(self, name: str, rank: int, records: Sequence[type], *, keep: bool) -> _Share:
        path = self._below / f"{name}-{rank}"

        def far() -> str:
            state = self._look().get(rank, {})
            here = state.get("at") == name
            counts = f"{state['done']} of {state['of']} events" if here else "not here yet"
            return f"process {rank} ({counts})"

        self.wait(path.is_file, far)
        share = _read(path, records)
        if not isinstance(share, _Share):
            raise Gone(f"{path}: is another message than the share of a process")
        if not keep:
            path.unlink(missing_ok=True)
        return share

    def _done(self, name: str) -> int:
        others = (state for state in self._look().values() if state["at"] == name)
        return self._state["done"] + sum(state["done"] for state in others)

    def _stopped(self, name: str) -> float:
        """The first item at which another process met an error: later ones are not needed."""
        others = (state for state in self._look().values() if state["at"] == name)
        at = [state["stopped"] for state in others if state.get("stopped") is not None]
        return float(min(at, default=float("inf")))


def _read(path: Path, records: Sequence[type]) -> Any:
    """What another process of this session wrote."""
    try:
        return decode(path.read_bytes(), records)
    except ValueError as error:
        raise Gone(f"{path}: {error}; the same command goes on where it stopped") from None
