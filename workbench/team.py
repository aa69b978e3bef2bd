"""Processes of one launch that share the work on one folder, on one machine or on several.

All they need is a file system that all of them see. What they say of their work lies beside what
they say of themselves (`workbench.presence`):

    .team/SESSION/4-2-1.pkl  what process 1 found in the second shared loop of the fourth step
    .team/SESSION/told-3     the third thing that the main process told all

Who waits says for whom, and how far that one is.
"""

import pickle
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from workbench import presence
from workbench.errors import InputError
from workbench.presence import Presence
from workbench.processes import Alone, Gone, Processes, ShareDone, Work
from workbench.progress import Advance, Reporter


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
    ) -> list[Any]:
        """A `Spread`: process n of m does items n, n + m, ….

        Raises:
            InputError: that of the first item that has one, in all processes.
            Gone: another process failed or is gone.
            ShareDone: in all but the main process, unless results are wanted everywhere.
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
        share = {"of": total, "found": found, "error": error}
        if everywhere or not self.is_main:
            self._put(f"{name}-{self.here.rank}.pkl", pickle.dumps(share))
        self._say()
        if not (everywhere or self.is_main):
            raise ShareDone
        shares = [
            share if rank == self.here.rank else self._share(name, rank, keep=everywhere)
            for rank in range(self.here.world)
        ]
        for rank, other in enumerate(shares):
            if other["of"] != total:
                raise Gone(
                    f"process {rank} has {other['of']} events where another has {total}; have all "
                    "machines the same versions of all packages?"
                )
        if errors := [other["error"] for other in shares if other["error"]]:
            raise InputError(min(errors)[1])
        if progress is not None and total:
            progress(total, total)
        return [shares[at % self.here.world]["found"][at // self.here.world] for at in range(total)]

    def told(self, value: Callable[[], Any]) -> Any:
        """What the main process finds; the others wait for it.

        Raises:
            Gone: another process failed or is gone.
        """
        self._n_told += 1
        name = f"told-{self._n_told}"
        if self.is_main:
            self._put(name, pickle.dumps(value()))
        self.wait((self._below / name).is_file, "the main process")
        return _read(self._below / name)

    def _share(self, name: str, rank: int, *, keep: bool) -> dict[str, Any]:
        path = self._below / f"{name}-{rank}.pkl"

        def far() -> str:
            state = self._look().get(rank, {})
            here = state.get("at") == name
            counts = f"{state['done']} of {state['of']} events" if here else "not here yet"
            return f"process {rank} ({counts})"

        self.wait(path.is_file, far)
        share = _read(path)
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


def _read(path: Path) -> Any:
    """What another process of this session wrote, in a folder that is this user's alone."""
    return pickle.loads(path.read_bytes())
