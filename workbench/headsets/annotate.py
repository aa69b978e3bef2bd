"""What was found out about a head set after it was made, added to it."""

from typing import Any

import pandas as pd

from workbench.headsets.headset import HeadSet
from workbench.headsets.pooling import number
from workbench.headsets.records import Area
from workbench.phases import PHASES


def add_evidence(found: HeadSet, stability: pd.DataFrame, areas: pd.DataFrame) -> HeadSet:
    """The same head set with how often each head is chosen, and the areas of the orders of heads.

    `stability` is the frame of `selection_stability`: a head that is not in it was never chosen.
    `areas` is that of `faithfulness_tables`.
    """
    shares = {
        (row["pool"], row["layer"], row["head"]): float(row["share"])
        for row in stability.to_dict("records")
    }
    heads = tuple(
        head.model_copy(
            update={"chosen_share": shares.get((head.pool, head.layer, head.head), 0.0)}
        )
        for head in found.heads
    )
    pools = tuple(
        pool.model_copy(update={"areas": _areas(areas, PHASES[pool.pool].readout)})
        if pool.pool in PHASES
        else pool
        for pool in found.pools
    )
    return found.model_copy(update={"heads": heads, "pools": pools})


def _areas(areas: pd.DataFrame, readout: str) -> tuple[Area, ...]:
    rows: list[dict[Any, Any]] = areas.loc[areas["readout"] == readout].to_dict("records")
    rows.sort(key=lambda row: row["order"] != "pool")
    return tuple(
        Area(
            order=str(row["order"]),
            kind=row["kind"],
            cpr=number(row["cpr"]),
            low=number(row["cpr_low"]),
            high=number(row["cpr_high"]),
        )
        for row in rows
    )
