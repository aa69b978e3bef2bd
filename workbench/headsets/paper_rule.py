"""The paper's rule: a pool is the first heads of a chain score, whatever patching says.

Coarse are the heads with the largest CoarseScore at early tokens of a chain, refine those with the
largest RefineScore at later ones (Saha Roy et al., arXiv 2606.06840), as `study paper` measures
them.
"""

import math
from pathlib import Path

import pandas as pd
from pyarrow import ArrowException

from workbench.errors import InputError, require
from workbench.files import reading
from workbench.headsets.pooling import KEYS, frame_of, head_id

RULE = "paper"
"""Name of the rule in a head set."""
CHAIN_SCORES = {"coarse": "coarse_chain", "refine": "refine_chain"}
"""Phase → the column that ranks its heads."""
READERS = {".csv": pd.read_csv, ".parquet": pd.read_parquet}


def read_scores(path: str | Path) -> pd.DataFrame:
    """A table of scores, as CSV or Parquet.

    Raises:
        InputError: another kind of file, or it cannot be read.
    """
    path = Path(path)
    if path.suffix not in READERS:
        raise InputError(f"{path}: a table of scores is a .csv or a .parquet file")
    with reading(path):
        try:
            return READERS[path.suffix](path)
        except (ValueError, ArrowException) as error:
            raise InputError(f"{path}: is no readable table ({type(error).__name__})") from None


def paper_pools(chain: pd.DataFrame, count: int) -> pd.DataFrame:
    """The first `count` heads of each chain score, in the columns of `pool_heads`.

    A head among the first of both is of the pool in which its rank is better, on ties coarse; the
    other pool then has one head less. `weight` is its share of the pool's sum of scores. Heads with
    a score of 0 or less, or none, are in no pool. What a head does at the decision and passes on is
    not asked: NaN.

    Raises:
        InputError: `count` below 1, or a column is missing.
    """
    if count < 1:
        raise InputError(f"a pool has at least 1 head, not {count}")
    require(chain, "chain scores", [*KEYS, *CHAIN_SCORES.values()])
    best: dict[tuple[int, int], tuple[int, str, float]] = {}
    for pool, column in CHAIN_SCORES.items():
        first = chain.loc[chain[column] > 0].nlargest(count, column, keep="first")
        for rank, row in enumerate(first.to_dict("records")):
            key = head_id(row)
            if key not in best or rank < best[key][0]:
                best[key] = rank, pool, float(row[column])
    return frame_of(
        [
            {
                "layer": layer,
                "head": head,
                "pool": pool,
                "read_out": False,
                "decision_share": math.nan,
                "passed_share": math.nan,
                "weight": score,
            }
            for (layer, head), (_, pool, score) in sorted(best.items())
        ]
    )
