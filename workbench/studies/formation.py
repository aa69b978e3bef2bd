"""At which step of training a phase is there: dates from the table of a training study."""

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from workbench.analysis.statistics import bootstrap, ratio_of_means
from workbench.errors import InputError, require
from workbench.phases import PHASES, POOLS
from workbench.studies.checkpoint_terms import COLUMNS, STEP

KINDS = {
    "score": [(f"{name}_score", name) for name in PHASES],
    "moved": [(phase.moved, name) for name, phase in PHASES.items()],
    "share": [(phase.chief, name) for name, phase in PHASES.items()],
    "model": [(f"{phase.readout}_clean", "model") for phase in PHASES.values()],
}
"""What `formation` dates: quantity and pool, of each phase."""
FALLS = [[kind == "model" and not phase.rises for phase in PHASES.values()] for kind in KINDS]


def formation(
    table: pd.DataFrame,
    terms: pd.DataFrame | None = None,
    *,
    n_resamples: int = 2000,
    seed: int = 0,
) -> pd.DataFrame:
    """The training step at which each side first reaches half of its value at the last checkpoint.

    Between checkpoints a straight line is assumed. `kind` is "score", "moved" (difference over all
    events), "share" (causal effect over valid pairs) or "model": clean Focus, and
    1 − Confusion, of the model itself, which start above 0 and are dated half-way from the first
    checkpoint to the last. With `terms` (`read_terms`) prompts are resampled, the same
    in all checkpoints; without, there are no intervals.

    Returns:
        columns kind, pool ("coarse", "refine", and "refine - coarse" for the difference in steps),
        quantity, step, low, high, final (the last value), at_most (nothing was seen below half
        before: it may have been earlier). A side that does not rise has no step.

    Raises:
        InputError: the table is empty or lacks a column.
    """
    require(table, "checkpoints", COLUMNS)
    if table.empty:
        raise InputError("the table of the study is empty")
    steps = sorted(int(step) for step in table["step"].unique())
    values = _curves(table.assign(event=0), steps, "value")[0]
    dates, at_most = _half_steps(values, steps)
    low = high = torch.full_like(dates, torch.nan)
    if terms is not None:
        # A share with too few valid pairs has no value in a resample either.
        unknown = values.isnan()
        _, low, high = bootstrap(
            lambda up, by: _half_steps(
                ratio_of_means(up, by).masked_fill(unknown, torch.nan), steps
            )[0],
            _curves(terms, steps, "numerator"),
            _curves(terms, steps, "denominator"),
            prompt_ids=terms.groupby("event")["prompt"].first().astype(str).tolist(),
            n_resamples=n_resamples,
            seed=seed,
            labels=[STEP],
            studentised=False,  # steps jump
        )
    rows = []
    for k, (kind, sides) in enumerate(KINDS.items()):
        names = [quantity for quantity, _ in sides]
        finals = [float(final) for final in _rising(values)[k, :, -1]]
        for side, pool in enumerate((*POOLS, " - ".join(reversed(POOLS)))):
            alone = side < len(POOLS)
            row = {"kind": kind, "pool": pool, "quantity": names[side] if alone else ""}
            ends = zip(("step", "low", "high"), (dates, low, high), strict=True)
            row |= {name: float(end[k, side]) for name, end in ends}
            late = {"final": finals[side] if alone else np.nan, "at_most": bool(at_most[k, side])}
            rows.append(row | late)
    return pd.DataFrame(rows)


def _curves(
    rows: pd.DataFrame, steps: list[int], column: str
) -> Float[Tensor, "event kind side step"]:
    """The curves that are dated, NaN where a pool or a step is missing."""
    whole = rows.loc[rows["layer"].isna()]
    events = sorted(rows["event"].unique())
    kinds = []
    for sides in KINDS.values():
        for quantity, pool in sides:
            here = (whole["quantity"] == quantity) & (whole["pool"] == pool)
            curve = whole.loc[here].pivot(index="event", columns="step", values=column)
            curve = curve.reindex(index=events, columns=steps).to_numpy(float)
            kinds.append(torch.from_numpy(curve.copy()))
    return torch.stack(kinds, dim=1).reshape(len(events), len(KINDS), len(POOLS), len(steps))


def _rising(values: Float[Tensor, "*any kind side step"]) -> Float[Tensor, "*any kind side step"]:
    """Confusion as 1 − Confusion, so that every curve rises."""
    return torch.where(torch.tensor(FALLS)[..., None], 1 - values, values)


def _half_steps(
    values: Float[Tensor, "*any kind side step"], steps: list[int]
) -> tuple[Float[Tensor, "*any kind place"], Bool[Tensor, "*any kind place"]]:
    """Steps half-way to the last value, coarse, refine and their difference; and "at most"."""
    values, at = _rising(values), torch.tensor(steps, dtype=torch.float64)
    first, last = values[..., :1], values[..., -1:]
    # A pool starts at nothing, the model at chance.
    chance = torch.tensor([kind == "model" for kind in KINDS])[:, None, None]
    start = torch.where(chance, first, 0.0)
    half, rises = (start + last) / 2, last > start
    reached = values >= half
    index = reached.int().argmax(dim=-1, keepdim=True)
    before = (index - 1).clamp(min=0)
    below, above = values.gather(-1, before), values.gather(-1, index)
    at_most = (index == 0) | below.isnan()
    share = torch.where(at_most, 1.0, (half - below) / (above - below))
    date = at[before] + share * (at[index] - at[before])
    date = torch.where(at_most, at[index], date).masked_fill(~rises, torch.nan)[..., 0]
    at_most = (at_most & rises)[..., 0]
    difference = date[..., 1:] - date[..., :1]
    either = at_most.any(dim=-1, keepdim=True)
    return torch.cat([date, difference], dim=-1), torch.cat([at_most, either], dim=-1)
