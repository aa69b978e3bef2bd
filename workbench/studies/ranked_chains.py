"""Heads ranked by what they do at chain tokens."""

from collections.abc import MutableMapping, Sequence
from typing import Any

import pandas as pd

from workbench.analysis.chains.chain_scores import chain_scores
from workbench.analysis.chains.head_parts import chain_parts
from workbench.analysis.chains.reading import ChainReading, ChainSettings
from workbench.analysis.curves.orderings import rank_heads
from workbench.heads import Head
from workbench.models.hooked import HookedModel
from workbench.progress import Reporter


def read_heads(
    model: HookedModel,
    readings: Sequence[ChainReading],
    given: ChainSettings,
    parts: MutableMapping[Any, pd.DataFrame],
    reporter: Reporter,
    name: str = "chain",
) -> list[pd.DataFrame]:
    """What every head does at the tokens of each chain; `parts` keeps what is done, by `name`."""
    tables = []
    with reporter.step("heads at chain tokens", len(readings)) as advance:
        for done, reading in enumerate(readings):
            key = f"{name} {done:06}"
            if key not in parts:
                parts[key] = chain_parts(model, reading, given)
            tables.append(parts[key])
            advance(done + 1, len(readings))
    return tables


def ranked_chains(
    readings: Sequence[ChainReading],
    tables: Sequence[pd.DataFrame],
    reporter: Reporter,
    **resampling: int,
) -> pd.DataFrame:
    """The chain scores of every head, with their intervals and nulls; see `chain_scores`."""
    with reporter.step("nulls"):
        return chain_scores(readings, tables, **resampling)


def leaders(scores: pd.DataFrame, column: str) -> list[Head]:
    """Heads that have this score, the highest first."""
    return rank_heads(scores.dropna(subset=[column]), column)
