"""What a long step tells the person who waits: a bar on a terminal, plain lines in a log."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

SECONDS_BETWEEN_LINES = 15.0

Advance = Callable[[int, int], None]
"""Called with (done, total)."""


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
    def step(self, name: str, total: int | None = None) -> Iterator[Advance]:
        """Show a step while it runs; `total` None for one that cannot be counted."""
        if self.console.is_terminal:
            with self._bar(name, total) as advance:
                yield advance
        else:
            with self._lines(name, total) as advance:
                yield advance

    @contextmanager
    def _bar(self, name: str, total: int | None) -> Iterator[Advance]:
        columns = [
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
        ]
        with Progress(*columns, console=self.console) as progress:
            task = progress.add_task(name, total=total)
            yield lambda done, of: progress.update(task, completed=done, total=of)
            progress.update(task, total=total or 1, completed=total or 1)

    @contextmanager
    def _lines(self, name: str, total: int | None) -> Iterator[Advance]:
        started = last = time.monotonic()
        first: int | None = None

        def advance(done: int, of: int) -> None:
            nonlocal last, first
            now = time.monotonic()
            first = done - 1 if first is None else first
            if now - last >= SECONDS_BETWEEN_LINES and done < of:
                last = now
                left = (now - started) / max(1, done - first) * (of - done)
                self.say(f"{name}: {done} of {of}, about {duration(left)} left")

        self.say(f"{name}: {total} events" if total else f"{name}: started")
        yield advance
        self.say(f"{name}: finished in {duration(time.monotonic() - started)}")


def duration(seconds: float) -> str:
    """Seconds as a person says them: `8 s`, `3 min 20 s`."""
    whole = round(seconds)
    return f"{whole} s" if whole < 60 else f"{whole // 60} min {whole % 60} s"
