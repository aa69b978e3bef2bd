"""Focus and Confusion before and after a decision's own steps, wherever in the chain they stand.

Chains that list all shortlists first have a decision's coarse and fine step at other places for
each decision, so steps counted from the start, or from one of the two, mix what came before.
"""

from collections.abc import Sequence

import pandas as pd

from workbench.analysis.chains.trajectories import groups, means, readout_columns
from workbench.errors import InputError, require

MOMENTS = ("direct", "before coarse", "after coarse", "before fine", "after fine", "end")
"""No chain; just before and after the first coarse step, and the first fine step; whole chain."""


def own_steps(
    values: pd.DataFrame, by: Sequence[str] = ("model",), *, n_resamples: int = 2000, seed: int = 0
) -> pd.DataFrame:
    """Means of `chain_values` at each of `MOMENTS`, with 95 % intervals over prompts.

    Columns: those of `by`, moment, place (in `MOMENTS`), share (mean share of the chain that is
    written), focus, focus_low, focus_high, confusion, confusion_low, confusion_high, p_gold, n
    (decisions whose chain has both steps).

    Raises:
        InputError: columns missing, or no decision whose chain has both steps.
    """
    require(values, "chain values", [*by, "id", "event", "step", "share", "label", "p_gold"])
    frames = []
    for _, chain in values.groupby([*by, "id", "event"], sort=False):
        chain = chain.sort_values("step").reset_index(drop=True)
        labels = chain["label"].tolist()
        if {"coarse", "fine"} <= set(labels):
            coarse, fine = labels.index("coarse"), labels.index("fine")
            places = [0, coarse - 1, coarse, fine - 1, fine, len(chain) - 1]
            frames.append(chain.iloc[places].assign(moment=MOMENTS, place=range(len(MOMENTS))))
    if not frames:
        raise InputError("no chain has both a coarse and a fine step of its own decision")
    rows = []
    keys = [*by, "place", "moment"]
    for group, here in groups(pd.concat(frames, ignore_index=True), keys):
        row = dict(zip(keys, group, strict=True)) | {"share": here["share"].mean()}
        row |= readout_columns(means(here, n_resamples, seed))
        rows.append(row | {"p_gold": here["p_gold"].mean(), "n": len(here)})
    return pd.DataFrame(rows).sort_values([*by, "place"], kind="stable").reset_index(drop=True)
