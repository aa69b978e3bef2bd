import math

import pandas as pd
import pytest

from workbench.errors import InputError
from workbench.headsets.paper_rule import paper_pools, read_scores
from workbench.headsets.pooling import COLUMNS


def chain(**scores):
    """Scores by head name, as (coarse_chain, refine_chain)."""
    rows = [(*map(int, name[1:].split("_")), *value) for name, value in scores.items()]
    return pd.DataFrame(rows, columns=["layer", "head", "coarse_chain", "refine_chain"])


def pools(table):
    return {(row.layer, row.head): row.pool for row in table.itertuples()}


def test_a_pool_is_the_first_heads_of_a_score():
    table = chain(h0_0=(3.0, 0.1), h0_1=(1.0, 0.0), h1_0=(0.5, 4.0), h1_1=(0.1, 1.0))
    found = paper_pools(table, 2)
    assert pools(found) == {(0, 0): "coarse", (0, 1): "coarse", (1, 0): "refine", (1, 1): "refine"}
    assert list(found) == COLUMNS
    assert found["weight"].tolist() == pytest.approx([0.75, 0.25, 0.8, 0.2])


def test_a_head_of_both_is_where_its_rank_is_better():
    table = chain(h0_0=(3.0, 1.0), h0_1=(2.0, 4.0), h1_0=(1.0, 0.5))
    assert pools(paper_pools(table, 2)) == {(0, 0): "coarse", (0, 1): "refine"}


def test_heads_that_score_nothing_fill_no_pool():
    table = chain(h0_0=(3.0, -1.0), h0_1=(math.nan, 0.0), h1_0=(-2.0, math.nan))
    assert pools(paper_pools(table, 3)) == {(0, 0): "coarse"}
    assert paper_pools(table.iloc[1:], 3).empty


def test_bad_tables_are_named(tmp_path):
    with pytest.raises(InputError, match="chain scores table lacks column 'refine_chain'"):
        paper_pools(chain(h0_0=(1.0, 1.0)).drop(columns="refine_chain"), 1)
    with pytest.raises(InputError, match="at least 1 head, not 0"):
        paper_pools(chain(h0_0=(1.0, 1.0)), 0)
    with pytest.raises(InputError, match=r"is a \.csv or a \.parquet file"):
        read_scores(tmp_path / "scores.xlsx")
    (tmp_path / "scores.parquet").write_text("no table")
    with pytest.raises(InputError, match="is no readable table"):
        read_scores(tmp_path / "scores.parquet")
