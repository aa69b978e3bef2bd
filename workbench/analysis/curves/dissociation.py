"""Heads that move one readout and leave the other: a double dissociation.

Every head is patched alone, denoising: what it gives back of Focus in the far run, and of
1 − Confusion in the near run, as shares of the way (see `cumulative`), in margins. A head is

    focus only      the interval of its share of Focus lies above `MOVES`, that of its share of
                    1 − Confusion within ± `MOVES`
    confusion only  the reverse
    focus mostly    the interval of its share of Focus lies above `MOVES`, and the far end of the
                    other is at most a `RATIO`th of its near end: moved `RATIO` times as much
    confusion mostly  the reverse

Heads are chosen by this rule on the selection half, and confirmed where it holds on the held-out
half too. Sets of them are then patched as one on the held-out half, beside as many random heads of
the same layers and as many of the largest output.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
import torch

from workbench.analysis.curves.cumulative import KEYS
from workbench.analysis.curves.faithfulness import Plan
from workbench.analysis.statistics import bootstrap, ratio_of_means
from workbench.errors import InputError
from workbench.heads import Head
from workbench.phases import OF_READOUT

MOVES = 0.02
"""Share of the way to the other run, in log-odds, that counts as moved."""
RATIO = 5
_PAIRS = {"focus": "confusion", "confusion": "focus"}
KINDS = {
    f"{one} {how}": (one, other) for how in ("only", "mostly") for one, other in _PAIRS.items()
}
"""Kind of head → the readout that it moves, and the one that it leaves."""
SHARES = ["place", "intervention", "direction", "target", "focus", "focus_low", "focus_high"]
SHARES += ["confusion", "confusion_low", "confusion_high", "n_focus", "n_confusion"]


def sets_plan(groups: Sequence[Sequence[Head]], n_heads: int) -> Plan:
    """A plan that patches these sets for both readouts; target 0 has no heads."""
    sets = [(), *(tuple(sorted(group)) for group in groups)]
    return Plan(dict.fromkeys(OF_READOUT, sets), pd.DataFrame(), n_heads)


def set_shares(
    events: pd.DataFrame, *, scale: str = "margin", n_resamples: int = 2000, seed: int = 0
) -> pd.DataFrame:
    """Share of the way that each set leads, in either readout, with 95 % intervals over prompts.

    `events` are rows of `cumulative_event` on a `sets_plan`; `scale` is "margin" (log-odds) or
    "value" (probability). Columns: `SHARES`.

    Raises:
        InputError: no row.
    """
    if events.empty:
        raise InputError("no event is a valid pair, so no head can be told from another")
    prefix = "margin_" if scale == "margin" else ""
    tables = []
    for key, part in events.groupby(KEYS, sort=False):
        assert isinstance(key, tuple)
        place, intervention, direction, readout = key
        wide = part.pivot(index=["id", "event"], columns="target", values=scale)
        ends = part.drop_duplicates(["id", "event"]).set_index(["id", "event"]).reindex(wide.index)
        start, goal = (ends[f"{prefix}{end}"].to_numpy(float)[:, None] for end in ("start", "goal"))
        moved = torch.from_numpy(wide.to_numpy(float) - start)
        way = torch.from_numpy(goal - start).expand_as(moved)
        ids = [str(name) for name in wide.index.get_level_values("id")]
        found = bootstrap(
            ratio_of_means,
            moved,
            way,
            prompt_ids=ids,
            n_resamples=n_resamples,
            seed=seed,
            labels=["dissociation"],
        )
        columns = {
            f"{readout}{end}": x.numpy()
            for end, x in zip(("", "_low", "_high"), found, strict=True)
        }
        table = pd.DataFrame({"target": wide.columns, **columns, f"n_{readout}": len(ids)})
        tables.append(table.assign(place=place, intervention=intervention, direction=direction))
    on = ["place", "intervention", "direction", "target"]
    joined = pd.concat(tables).groupby(on, as_index=False, sort=False).first()
    return joined.reindex(columns=SHARES)


def kind_of(row: Mapping[Any, Any], moves: float = MOVES) -> str:
    """Which of `KINDS` a row of `set_shares` is; "both" where both move, "" for anything else."""
    above = {name: row[f"{name}_low"] > moves for name in OF_READOUT}
    within = {
        name: row[f"{name}_low"] > -moves and row[f"{name}_high"] < moves for name in OF_READOUT
    }
    most = {name: max(abs(row[f"{name}_low"]), abs(row[f"{name}_high"])) for name in OF_READOUT}
    for kind, (moved, left) in KINDS.items():
        apart = within[left] if kind.endswith("only") else RATIO * most[left] <= row[f"{moved}_low"]
        if above[moved] and apart:
            return kind
    return "both" if all(above.values()) else ""
