"""Terms of checkpoints, event by event, and the table of means that they make."""

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from workbench.analysis.statistics import bootstrap, ratio_of_means
from workbench.measures import MEASURES
from workbench.prompts.prompt import PromptSet

STEP = "training"
MIN_COUNTED = 5
KEY = ["quantity", "layer", "head", "pool"]
COLUMNS = ["step", *KEY, "value", "low", "high", "n"]

Cell = tuple[str, float, float, str]
"""One row of the table at a step: the values of `KEY`."""

Terms = dict[Cell, tuple[np.ndarray, ...]]
"""Numerator and denominator per event, in order; both 0 where the event does not count."""


def terms_frame(step: int, terms: Terms, prompts: PromptSet) -> pd.DataFrame:
    """Cells in rows, events inside them; prompts and events are numbered, their ids left out."""
    numbers = {name: number for number, name in enumerate(prompts.prompt_ids)}
    prompt = [numbers[event.id] for event in prompts]
    keys = pd.DataFrame(list(terms), columns=KEY)
    frame = keys.loc[np.repeat(np.arange(len(keys)), len(prompts))].reset_index(drop=True)
    frame.insert(0, "step", step)
    return frame.assign(
        prompt=np.tile(prompt, len(keys)),
        event=np.tile(np.arange(len(prompts)), len(keys)),
        numerator=np.concatenate([pair[0] for pair in terms.values()]),
        denominator=np.concatenate([pair[1] for pair in terms.values()]),
    )


def training_table(terms: pd.DataFrame, *, n_resamples: int = 2000, seed: int = 0) -> pd.DataFrame:
    """Values with intervals from per-event terms; all steps see the same resamples of prompts."""
    frames = []
    for step, part in terms.groupby("step", sort=True):
        numerator, denominator, prompt_ids = matrices(part)
        interval = bootstrap(
            ratio_of_means,
            numerator,
            denominator,
            prompt_ids=prompt_ids,
            n_resamples=n_resamples,
            seed=seed,
            labels=[STEP],
        )
        n = (denominator != 0).sum(dim=0).numpy()
        frame = part.filter(KEY).drop_duplicates().assign(step=step, n=n)
        measured = frame["quantity"].isin(list(MEASURES)).to_numpy()
        for name, end in zip(("value", "low", "high"), interval, strict=True):
            frame[name] = np.where(measured & (n < MIN_COUNTED), np.nan, end.numpy())
        frames.append(frame.astype({"layer": "Int64", "head": "Int64"})[COLUMNS])
    return pd.concat(frames, ignore_index=True)


def matrices(
    part: pd.DataFrame,
) -> tuple[Float[Tensor, "event cell"], Float[Tensor, "event cell"], list[str]]:
    """Numerators, denominators and prompt ids of one step's terms."""
    n_events = len(np.unique(part["event"]))
    pair = [
        torch.from_numpy(part[name].to_numpy(float).reshape(-1, n_events).T.copy())
        for name in ("numerator", "denominator")
    ]
    return pair[0], pair[1], part["prompt"].iloc[:n_events].astype(str).tolist()
