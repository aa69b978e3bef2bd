"""How far a student is, while it trains: Focus, Confusion and direct accuracy on fixed prompts."""

from pathlib import Path
from typing import Any

import pandas as pd
import torch
from transformers import TrainerCallback

from workbench.analysis.readout import Roles, focus_confusion, select_options
from workbench.errors import InputError
from workbench.files import write_table
from workbench.prompts.prompt import PromptSet

COLUMNS = ["step", "n", "focus", "confusion", "accuracy"]


@torch.no_grad()
def direct_readout(
    model: Any, prompts: PromptSet, *, batch_size: int = 32
) -> dict[str, float | int]:
    """Means over the events of Focus, Confusion and whether gold is the likeliest next token.

    The model is a Hugging Face causal language model; it is run on the clean prompts.
    """
    training = model.training
    model.eval()
    rows: list[tuple[float, float, float]] = []
    events = sorted(prompts, key=lambda event: len(event.clean))
    try:
        for start in range(0, len(events), batch_size):
            batch = events[start : start + batch_size]
            longest = len(batch[-1].clean)
            ids = [[*event.clean, *[0] * (longest - len(event.clean))] for event in batch]
            tokens = torch.tensor(ids, device=model.device)
            last = torch.tensor([len(event.clean) - 1 for event in batch], device=model.device)
            logits = model(input_ids=tokens, use_cache=False).logits
            logits = logits[torch.arange(len(batch), device=last.device), last].float().cpu()
            for event, row in zip(batch, logits, strict=True):
                focus, confusion = focus_confusion(select_options(row, event), Roles.of(event))
                gold = event.option_tokens[event.with_role("gold")[0]]
                rows.append((float(focus), float(confusion), float(row.argmax() == gold)))
    finally:
        model.train(training)
    focus, confusion, accuracy = (sum(column) / len(rows) for column in zip(*rows, strict=True))
    return {"n": len(rows), "focus": focus, "confusion": confusion, "accuracy": accuracy}


class Monitor(TrainerCallback):
    """Writes `direct_readout` to a parquet table at the start, every few steps and at the end.

    Columns: step, n (events), focus, confusion, accuracy. Rows of steps after a checkpoint that
    training goes on from are measured again.

    Attributes:
        last: the last readout, without its step.

    Raises:
        InputError: `every` is below 1, or the table that is there cannot be read.
    """

    def __init__(self, path: Path, prompts: PromptSet, every: int) -> None:
        if every < 1:
            raise InputError(f"readout every {every} steps, must be at least 1")
        self._path = path
        self._prompts = prompts
        self._every = every
        self.last: dict[str, float | int] = {}
        self._before()

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Measure where training starts, unless it goes on."""
        if state.global_step == 0:
            self._measure(state, kwargs["model"])

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Measure after every so many steps."""
        if state.global_step % self._every == 0 or state.global_step == state.max_steps:
            self._measure(state, kwargs["model"])

    def _measure(self, state: Any, model: Any) -> None:
        # All processes run the model, which may be spread over them; one writes.
        self.last = direct_readout(model, self._prompts)
        row = {"step": state.global_step, **self.last}
        if not state.is_world_process_zero:
            return
        before = self._before()
        before = before.loc[before["step"] < state.global_step]
        frames = [frame for frame in (before, pd.DataFrame([row], columns=COLUMNS)) if len(frame)]
        write_table(self._path, pd.concat(frames, ignore_index=True))

    def _before(self) -> pd.DataFrame:
        """What was measured so far."""
        if not self._path.is_file():
            return pd.DataFrame(columns=COLUMNS)
        return read_readout(self._path)


def read_readout(path: Path) -> pd.DataFrame:
    """A table that a `Monitor` wrote.

    Raises:
        InputError: it cannot be read.
    """
    try:
        return pd.read_parquet(path, columns=COLUMNS)
    except (OSError, ValueError, KeyError) as error:
        raise InputError(
            f"{path}: is not a readable table ({type(error).__name__}); delete it, and go on "
            "without the readouts made so far"
        ) from None
