"""Heads that move one readout and leave the other, on both halves, and sets of them with controls.

What such a head is, is told in `curves.dissociation`.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from workbench.analysis.curves.dissociation import KINDS, kind_of, set_shares, sets_plan
from workbench.heads import head_name
from workbench.headsets.controls import controls
from workbench.prompts.prompt import DecisionEvent
from workbench.studies.patched_sets import Work

DRAWS = 20
"""Random sets beside heads that move one readout."""


def dissociated(
    work: Work,
    alone: pd.DataFrame,
    confirmed: pd.DataFrame,
    scores: pd.DataFrame,
    held: Sequence[DecisionEvent],
    *,
    n_resamples: int,
    seed: int,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Every head on the held-out half with its kind on both, and the sets of each kind.

    `alone` and `confirmed` are the rows of every head patched alone on the selection and the
    held-out half.
    """
    on = ["place", "intervention", "target"]
    halves = []
    for rows in (alone, confirmed):
        shares = set_shares(rows, n_resamples=n_resamples, seed=seed)
        shares = shares.loc[shares["target"] > 0].drop(columns="direction")
        kinds = [kind_of(row) for row in shares.to_dict("records")]
        halves.append(shares.assign(kind=kinds))
    chosen, held_out = halves
    names = {"kind": "chosen"}
    table = held_out.merge(chosen[[*on, "kind"]].rename(columns=names), on=on, how="left")
    table["chosen"] = table["chosen"].fillna("")
    heads = np.array(work.every)[table["target"].to_numpy(int) - 1]
    table.insert(2, "layer", heads[:, 0])
    table.insert(3, "head", heads[:, 1])
    table = table.assign(confirmed=(table["chosen"] == table["kind"]) & (table["kind"] != ""))
    table = table.drop(columns="target")
    return table, _sets(work, table, scores, held, n_resamples, seed)


def _sets(
    work: Work,
    table: pd.DataFrame,
    scores: pd.DataFrame,
    held: Sequence[DecisionEvent],
    n_resamples: int,
    seed: int,
) -> pd.DataFrame:
    """Heads of a kind, chosen on the selection half, patched as one beside controls.

    Those that move a readout mostly are joined by those that move it only.
    """
    frames = []
    for key, here in table.groupby(["place", "intervention"], sort=False):
        assert isinstance(key, tuple)
        place, intervention = key
        groups, names = [], []
        for kind in KINDS:
            rows = here[here["chosen"].isin([kind, f"{KINDS[kind][0]} only"])]
            if kind not in set(rows["chosen"]):
                continue
            heads = list(zip(rows["layer"].tolist(), rows["head"].tolist(), strict=True))
            n_heads = work.model.info.n_heads
            drawn = controls(heads, scores, n_heads, seed, DRAWS, pooled=heads)
            for name, sets in {"chosen": [heads], **drawn}.items():
                groups += sets
                names += [(kind, name, draw, len(heads)) for draw in range(len(sets))]
        if not groups:
            continue
        plan = sets_plan(groups, len(work.every))
        step = f"sets, {place}, {intervention}"
        events = work.patched(step, held, plan, [str(place)])
        events = events.loc[events["intervention"] == intervention]
        shares = set_shares(events, n_resamples=n_resamples, seed=seed)
        shares = shares.loc[shares["target"] > 0].reset_index(drop=True)
        labels = pd.DataFrame(names, columns=["kind", "set", "draw", "size"])
        labels["heads"] = [" ".join(head_name(*at) for at in group) for group in groups]
        at = shares["target"].to_numpy(int) - 1
        frames.append(shares.drop(columns="target").join(labels.iloc[at].reset_index(drop=True)))
    return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame()
