"""The losses while a student trains: a table that grows by a row with every log."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from transformers import TrainerCallback

from workbench.distill.training.monitor import Monitor
from workbench.progress import Reporter, beating

WIDTH = 12


class LossTable(TrainerCallback):
    """Prints step, loss, every term unweighted, and the last readout.

    Args:
        reporter: where; a quiet one prints nothing.
        terms: names of the terms, in the order of the columns.
        monitor: whose readouts are shown, if there are any.
    """

    def __init__(
        self, reporter: Reporter, terms: list[str], monitor: Monitor | None = None
    ) -> None:
        self._reporter = reporter
        self._at = ""
        self._shown: Callable[[], None] | None = None
        self._names = ["loss", *(f"loss_{name}" for name in terms)]
        self._width = max([WIDTH, *(len(name) + 1 for name in terms)])
        self._monitor = monitor
        self._readout = ("focus", "confusion", "accuracy") if monitor else ()

    @contextmanager
    def beating(self) -> Iterator[None]:
        """Say in lines that training moves, while no row comes for long."""
        with self._reporter.between(lambda: f"training{self._at}") as self._shown, beating():
            yield

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Keep how far it is."""
        self._at = f", {state.global_step} of {state.max_steps} steps"

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """The head of the table."""
        names = [name.removeprefix("loss_") for name in self._names]
        self._line(state, f"step/{state.max_steps}", [*names, *self._readout])

    def on_log(
        self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **kwargs: Any
    ) -> None:
        """A row for a log that has a loss; the one at the end of training has none."""
        if not logs or "loss" not in logs:
            return
        values = [float(logs[name]) for name in self._names if name in logs]
        last = self._monitor.last if self._monitor else {}
        values += [last[name] for name in self._readout if name in last]
        self._line(state, str(state.global_step), [f"{value:.4f}" for value in values])

    def _line(self, state: Any, first: str, cells: list[str]) -> None:
        if state.is_world_process_zero:
            self._reporter.say("".join(cell.rjust(self._width) for cell in [first, *cells]))
        if self._shown:
            self._shown()
