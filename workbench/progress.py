"""What a long step tells the person who waits: a bar on a terminal, plain lines in a log.

A step counts its events. One event of a large model takes minutes on a CPU, so what works deep
inside it, and knows of no step, says `pulse`: the step that runs then shows that it moves.
"""

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeElapsedColumn,
)
from rich.text import Text

SECONDS_BETWEEN_LINES = 8.0
SECONDS_BETWEEN_UPDATES = 0.5
"""Of a bar, by pulses: there are thousands."""
AT_ONCE = 0.1
"""Seconds within which an event is found to be there, not made."""

Advance = Callable[[int, int], None]
"""Called with (done, total)."""


class _Parts:
    """Parts done since the last event, by unit, and when they were last shown."""

    def __init__(self, show: Callable[[str], None], seconds: float) -> None:
        self._show = show
        self._seconds = seconds
        self._counts: Counter[str] = Counter()
        self.shown()

    def shown(self) -> None:
        """Wait the full time again."""
        self._last = time.monotonic()

    @property
    def due(self) -> bool:
        """Whether nothing was shown for long."""
        return time.monotonic() - self._last >= self._seconds

    def add(self, unit: str, count: int) -> None:
        """Count parts; show them where that is due."""
        self._counts[unit] += count
        if self.due:
            self.shown()
            self._show(f"{self._counts[unit]:,} {unit}")

    def clear(self) -> None:
        """Start anew, with the next event."""
        self._counts.clear()


class _Pace:
    """How long an event takes, and how long is left.

    Events of the first advance may have been there before, or be a batch, and nothing says how many
    are new: what is known counts from it on. A single one is taken to be new. Who goes on after a
    stop counts what is there already one by one, too, and at once: such advances, too, are left
    out, until one takes its time or it is clear that events are that quick.
    """

    def __init__(self) -> None:
        self._started = self._last = time.monotonic()
        self._first: tuple[int, float] | None = None
        """Events and time that the pace counts from."""
        self._begun = False
        """Whether something was done that was not there before."""
        self._done = 0
        self.seconds: float | None = None
        """An event; None while that is not known."""

    def advance(self, done: int) -> None:
        """So many are done now."""
        now = time.monotonic()
        at_once = now - self._last < AT_ONCE
        if self._first is None:
            self._first = done, now
            self.seconds = None if done != 1 or at_once else now - self._started
        elif not self._begun and at_once and now - self._started < SECONDS_BETWEEN_LINES:
            self._first, self.seconds = (done, now), None
        elif done > self._first[0]:
            self._begun = True
            self.seconds = (now - self._first[1]) / (done - self._first[0])
        self._done, self._last = done, now

    def speed(self, unit: str) -> str:
        """Events a second, to be said behind a name; nothing while that is not known."""
        return f", {1 / self.seconds:.2g} {unit} a second" if self.seconds and unit else ""

    def left(self, total: int | float | None) -> str:
        """The time left, likewise."""
        if self.seconds is None or not total or self._done >= total:
            return ""
        gone = time.monotonic() - self._last
        return f", about {duration(max(0.0, self.seconds * (total - self._done) - gone))} left"


class _Left(ProgressColumn):
    """The time left as lines say it: the column of the library knows no pace of minutes an event,
    and takes what was there before for done now.
    """

    max_refresh = SECONDS_BETWEEN_UPDATES

    def __init__(self, pace: _Pace) -> None:
        self._pace = pace
        super().__init__()

    def render(self, task: Task) -> Text:
        return Text(self._pace.left(task.total).removeprefix(", "))


_LISTENING: list[_Parts] = []
"""Steps that run, the innermost last. No context variable: gradients have threads of their own."""


def pulse(unit: str, count: int = 1) -> None:
    """Say that so many parts of the present event are done; nobody need listen."""
    if _LISTENING:
        _LISTENING[-1].add(unit, count)


_BEAT = threading.Lock()
"""Held while something beats: two would count every second twice."""


@contextmanager
def beating(unit: str = "seconds") -> Iterator[None]:
    """Say every second that something still runs which cannot say so itself; once, where nested."""
    if not _BEAT.acquire(blocking=False):
        yield
        return
    over = threading.Event()

    def beat() -> None:
        while not over.wait(1.0):
            pulse(unit)

    thread = threading.Thread(target=beat, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
        _BEAT.release()


@contextmanager
def _listening(parts: _Parts) -> Iterator[None]:
    _LISTENING.append(parts)
    try:
        yield
    finally:
        _LISTENING.remove(parts)


class Reporter:
    """Messages and progress on one console, by default standard error.

    A console made with `quiet=True` says nothing.
    """

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or Console(stderr=True)

    def say(self, message: str) -> None:
        """One line as it is: markup in it is text, and a long line is not wrapped."""
        self.console.print(Text(message), soft_wrap=True)

    @contextmanager
    def step(self, name: str, total: int | None = None, unit: str = "") -> Iterator[Advance]:
        """Show a step while it runs.

        Args:
            name: of the step.
            total: events; None where they cannot be counted.
            unit: what an event is, in the plural: then a line says how many a second are done.
        """
        if self.console.is_terminal:
            with self._bar(name, total, unit) as advance:
                yield advance
        else:
            with self._lines(name, total, unit) as advance:
                yield advance

    @contextmanager
    def between(self, name: str | Callable[[], str]) -> Iterator[Callable[[], None]]:
        """Lines about work that is usually too short to be a step, once it is long.

        `name` may be what says how far the work is. What is given says that the work has shown
        itself otherwise: time and parts count anew.
        """
        said = name if callable(name) else lambda: name
        parts = _Parts(lambda moved: self.say(f"{said()}: {moved}"), SECONDS_BETWEEN_LINES)

        def shown() -> None:
            parts.clear()
            parts.shown()

        with _listening(parts):
            yield shown

    @contextmanager
    def _bar(self, name: str, total: int | None, unit: str) -> Iterator[Advance]:
        pace = _Pace()
        columns = [
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            _Left(pace),
        ]
        with Progress(*columns, console=self.console) as progress:
            task = progress.add_task(name, total=total)
            parts = _Parts(
                lambda moved: progress.update(task, description=f"{name} (and {moved})"),
                SECONDS_BETWEEN_UPDATES,
            )

            def advance(done: int, of: int) -> None:
                parts.clear()
                pace.advance(done)
                said = name + pace.speed(unit)
                progress.update(task, completed=done, total=of, description=said)

            with _listening(parts):
                yield advance
            progress.update(task, total=total or 1, completed=total or 1, description=name)

    @contextmanager
    def _lines(self, name: str, total: int | None, unit: str) -> Iterator[Advance]:
        started = time.monotonic()
        count, pace = 0, _Pace()

        def show(moved: str) -> None:
            said = f"{name}: {count} of {total}" if total else f"{name}:"
            said += f" and {moved}" if total and moved else f" {moved}" if moved else ""
            self.say(said + pace.speed(unit) + pace.left(total))

        parts = _Parts(show, SECONDS_BETWEEN_LINES)

        def advance(done: int, of: int) -> None:
            nonlocal count, total
            parts.clear()
            pace.advance(done)
            count, total = done, of
            if parts.due and done < of:
                parts.shown()
                show("")

        self.say(f"{name}: {total} {unit or 'events'}" if total else f"{name}: started")
        with _listening(parts):
            yield advance
        self.say(f"{name}: finished in {duration(time.monotonic() - started)}")


def duration(seconds: float) -> str:
    """Seconds as a person says them: `8 s`, `3 min 20 s`."""
    whole = round(seconds)
    return f"{whole} s" if whole < 60 else f"{whole // 60} min {whole % 60} s"
