"""The pools of a head set: what a head does, by name, and how it is told and shown."""

from dataclasses import dataclass
from typing import Literal, get_args

from workbench.phases import PHASES

HeadPool = Literal["coarse", "refine", "carrier", "mover", "suppressor"]
HEAD_POOLS: tuple[HeadPool, ...] = get_args(HeadPool)
"""Those of the two phases, and heads that are of neither."""


@dataclass(frozen=True)
class PoolWords:
    """What a pool's heads do, and how it is shown."""

    what: str
    """After "heads that"."""
    measure: str
    """The measure by which the pool is told of."""
    share_of: str
    """What the measure is a share of, as a figure's unit."""
    finding: str
    """A sentence on the measure, with one gap for the value."""
    colour: str
    symbol: str
    sign: int = 1
    """−1 where the finding is told of the measure's loss."""


def _of_phase(name: str, what: str) -> PoolWords:
    one = PHASES[name]
    return PoolWords(what, one.chief, one.share_of, one.finding, one.colour, one.symbol)


POOL_WORDS: dict[str, PoolWords] = {
    "coarse": _of_phase("coarse", "carry the cluster"),
    "refine": _of_phase("refine", "tell gold from its near misses"),
    "carrier": PoolWords(
        what="carry the label itself, and so do the work of both phases",
        measure="label_swap",
        share_of="p(near label) − p(gold)",
        finding="makes the far prompt answer a sibling by {} more than gold, given its evidence",
        colour="#0b7a75",
        symbol="diamond-open",
    ),
    "mover": PoolWords(
        what="pass on what other heads wrote",
        measure="refine_reduce_margin",
        share_of="of the lost log-odds against near misses",
        finding="gives back {} of the log-odds against near misses, by passing on",
        colour="#8c5a3c",
        symbol="triangle-right-open",
    ),
    "suppressor": PoolWords(
        what="hurt the right label",
        measure="refine_reduce_margin",
        share_of="of the lost log-odds against near misses",
        finding="takes {} more of the log-odds against near misses from the near prompt",
        colour="#b23a48",
        symbol="x-thin-open",
        sign=-1,
    ),
}
"""Pool → its words, in the order shown."""
POOLED_ENDS = "pooled"
"""Of paths between pooled heads, in the column that says which ends were asked for."""
