"""That processes of one launch know of one another: who is there, lives, failed or has left.

They meet in a hidden folder below the one that they work on, and talk by files:

    .team/session.json    which launch this is; what is left of an earlier one finds another
    .team/hello-1-NONCE   process 1 asks to be let in
    .team/SESSION/1.json  process 1 as it is: a beat that goes on while it lives, how far it is, and
                          why it failed

A process whose beat stands still for `PATIENCE` seconds is taken for dead, and one that fails stops
all: the main process says why.
"""

import atexit
import json
import shutil
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from uuid import uuid4

from workbench import __version__
from workbench.errors import InputError, first_line
from workbench.files import make_folder, replacing
from workbench.processes import Gone, Processes, SaidElsewhere, ShareDone
from workbench.progress import SECONDS_BETWEEN_LINES, Reporter, duration

FOLDER = ".team"
PATIENCE = 300.0
"""Seconds; file systems of a network show what was written up to a minute late."""
BEAT, LOOK = 2.0, 0.25
"""Seconds between two beats, and between two looks at the others."""
COMING = 3.0
"""Seconds for which a main process that fails waits for others that have just been started."""
LINGER = 10.0
"""Seconds for which one that failed waits for the main process to say so."""

State = dict[str, Any]


class Presence:
    """This process among those of its launch."""

    def __init__(
        self, here: Processes, home: Path, session: str, reporter: Reporter, patience: float
    ) -> None:
        self.here, self.is_main = here, here.is_main
        self._home, self._session, self._below = home, session, home / session
        self._reporter, self._patience = reporter, patience
        self._others = [rank for rank in range(here.world) if rank != here.rank]
        self._state: State = {"beat": 0, "version": __version__, "at": "", "done": 0, "of": 0}
        self._states: dict[int, State] = {}
        self._heard: dict[int, float] = {}
        self._known: set[str] = set()
        self._looked = self._unseen = 0.0
        self._writing, self._over = threading.Lock(), threading.Event()
        self._say()
        threading.Thread(target=self._live, daemon=True).start()

    @classmethod
    def begin(cls, folder: Path, here: Processes, reporter: Reporter, patience: float) -> Any:
        """Meet the others; the main process does not wait for them yet.

        Raises:
            InputError: the main process does not come, or is of another launch.
        """
        home = folder / FOLDER
        if not here.is_main:
            return cls(here, home, _let_in(home, here, patience), reporter, patience)
        shutil.rmtree(home, ignore_errors=True)  # of a launch that was killed
        session = uuid4().hex
        make_folder(home, private=True)
        make_folder(home / session, private=True)
        first = cls(here, home, session, reporter, patience)
        first._admit([])
        atexit.register(first._end)
        return first

    def everyone(self) -> None:
        """Wait, as the main process, until all have come.

        Raises:
            InputError: one does not come, failed, or is of another version.
        """
        if not self.is_main:
            return
        began = time.monotonic()

        def there() -> bool:
            missing = self._missing()
            if missing and time.monotonic() - began > self._patience:
                raise InputError(
                    f"process {missing[0]} of {self.here.world} did not begin within "
                    f"{duration(self._patience)}; do all machines see {self._home.parent}?"
                )
            return not missing

        self.wait(there, "all processes to begin")
        for rank, state in self._states.items():
            if state["version"] != __version__:
                raise InputError(
                    f"process {rank} has workbench {state['version']}, this one {__version__}; "
                    "install the same version on all machines"
                )

    def wait(self, ready: Callable[[], bool], what: str | Callable[[], str]) -> None:
        """Wait, and say every few seconds for what.

        Raises:
            Gone: another process failed or is gone.
        """
        pause, said = 0.01, time.monotonic()
        while not ready():
            self.check()
            if time.monotonic() - said >= SECONDS_BETWEEN_LINES:
                said = time.monotonic()
                self._reporter.say(f"waiting for {what if isinstance(what, str) else what()}")
            time.sleep(pause)
            pause = min(pause * 1.5, 0.5)

    def check(self) -> None:
        """Whether all is well with the others; looks at them every now and then.

        Raises:
            Gone: one failed or is gone; `SaidElsewhere`, where that is the main one.
        """
        states = self._look()
        if self.is_main:
            for rank, state in states.items():
                if state.get("failed"):
                    raise Gone(f"process {rank} of {self.here.world}: {state['failed']}")
        elif self._ended():
            raise SaidElsewhere("the main process has ended")
        for rank, last in self._heard.items():
            silent = time.monotonic() - last > self._patience
            if silent and (self.is_main or rank == 0):
                raise Gone(
                    f"process {rank} of {self.here.world} has not been heard of for "
                    f"{duration(self._patience)}; the same command goes on where it stopped"
                )

    @contextmanager
    def failing(self) -> Iterator[None]:
        """Have all others stop where something goes wrong inside.

        Raises:
            InputError: another process failed or is gone.
            SaidElsewhere: the main process says what went wrong here.
        """
        try:
            yield
        except (ShareDone, SaidElsewhere):
            raise
        except BaseException as error:
            if self.is_main:
                until = time.monotonic() + COMING
                while self._missing() and time.monotonic() < until:
                    time.sleep(0.05)  # who comes later than this would wait for nothing
                self._end()
            else:
                self._state["failed"] = first_line(error)
                self._say()
                until = time.monotonic() + LINGER
                while isinstance(error, Exception) and time.monotonic() < until:
                    if self._ended():
                        raise SaidElsewhere(str(error)) from error
                    time.sleep(0.2)
            if isinstance(error, Gone):
                raise InputError(str(error)) from None
            raise

    def close(self) -> None:
        """Part. The main process waits for the others, and puts away what they said.

        Raises:
            InputError: one is gone.
        """
        self.rejoin()
        if self.is_main:
            self._end()
        self._over.set()

    def rejoin(self) -> None:
        """Have all come as far as this: the main process waits for the others.

        Raises:
            InputError: one is gone.
        """
        self._state["rejoined"] = self._state.get("rejoined", 0) + 1
        self._say()
        if self.is_main:
            with self.failing():
                self.wait(self._all_rejoined, "the other processes to end")

    def _all_rejoined(self) -> bool:
        states = self._look().values()
        return all(state.get("rejoined", 0) >= self._state["rejoined"] for state in states)

    def _look(self, age: float | None = None) -> dict[int, State]:
        now = time.monotonic()
        if now - self._looked >= (LOOK if age is None else age):
            self._looked = now
            for rank in self._others:
                with suppress(OSError, ValueError):
                    state = json.loads((self._below / f"{rank}.json").read_bytes())
                    if state != self._states.get(rank):
                        self._states[rank], self._heard[rank] = state, now
        return self._states

    def _ended(self) -> bool:
        """Whether the main process has put its session away, as is seen for a while."""
        there = _session(self._home)
        if there.get("session") == self._session:
            self._unseen = 0.0
            return False
        self._unseen = self._unseen or time.monotonic()
        return bool(there) or time.monotonic() - self._unseen > 4 * LOOK

    def _missing(self) -> list[int]:
        """Who has not come yet, as the main process sees it, which lets in those that ask."""
        if new := {path.name for path in self._home.glob("hello-*")} - self._known:
            self._known.update(new)
            self._admit(sorted(self._known))
        return [rank for rank in self._others if rank not in self._look(0.0)]

    def _admit(self, names: Sequence[str]) -> None:
        about = {"session": self._session, "world": self.here.world, "admitted": list(names)}
        _write(self._home / "session.json", json.dumps(about).encode())

    def _live(self) -> None:
        while not self._over.wait(BEAT):
            self._state["beat"] += 1
            self._say()

    def _say(self) -> None:
        with self._writing, suppress(InputError):
            if not self._over.is_set():
                _write(self._below / f"{self.here.rank}.json", json.dumps(self._state).encode())

    def _put(self, name: str, content: bytes) -> None:
        with self._writing:
            _write(self._below / name, content)

    def _end(self) -> None:
        self._over.set()
        with self._writing:
            if _session(self._home).get("session") != self._session:
                return
            for _ in range(10):  # until no other process puts its beat there any more
                shutil.rmtree(self._home, ignore_errors=True)
                if not self._home.exists():
                    return
                time.sleep(0.1)


def _let_in(home: Path, here: Processes, patience: float) -> str:
    """The session, once the main process has let this one in."""
    mine, began = f"hello-{here.rank}-{uuid4().hex}", time.monotonic()
    while time.monotonic() - began < patience:
        there = _session(home)
        if mine in there.get("admitted", ()):
            if there["world"] != here.world:
                raise InputError(
                    f"process {here.rank} is of {here.world}, the main one of {there['world']}"
                )
            (home / mine).unlink(missing_ok=True)
            return there["session"]
        if home.is_dir() and not (home / mine).is_file():
            with suppress(InputError):  # the main process puts its folder in order
                _write(home / mine, b"")
        time.sleep(0.1)
    raise InputError(
        f"{home.parent}: the main process did not come within {duration(patience)}; do all "
        "machines see this folder?"
    )


def _session(home: Path) -> dict[str, Any]:
    try:
        return json.loads((home / "session.json").read_bytes())
    except (OSError, ValueError):
        return {}


def _write(path: Path, content: bytes) -> None:
    with replacing(path, private=True) as beside:
        beside.write_bytes(content)
