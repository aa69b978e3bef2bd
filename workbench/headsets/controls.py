"""What a pool must beat: as many other heads, of the same layers or of the largest output."""

from collections.abc import Collection, Mapping, Sequence

import pandas as pd
import torch
from transformer_lens.utilities.statistics import derive_generator

from workbench.errors import require
from workbench.heads import head_name
from workbench.headsets.pooling import KEYS, HeadId, head_id

ATTEMPTS = 20
"""Draws for each set that is asked for: of few possible sets most are drawn again and again."""


def controls(
    heads: Sequence[HeadId],
    scores: pd.DataFrame,
    n_heads: int,
    seed: int,
    draws: int,
    *,
    pooled: Collection[HeadId],
) -> dict[str, list[list[HeadId]]]:
    """Control sets for one pool: as many heads, none of them in any pool.

    `heads` are those of the pool, `pooled` those of all pools. `random` holds `draws` different
    sets, or as many as there are, with the pool's number of heads in every layer; what a layer
    cannot give comes from the nearest layers, lower ones first. `norm` holds one set: the heads
    with the largest mean output norm. Where the model has too few heads outside the pools, both
    lists are empty: there is no such control. So is `norm` where the output of some head is not
    known.

    Raises:
        InputError: the scores table lacks a column.
    """
    require(scores, "scores", [*KEYS, "output_norm"])
    barred = {*heads, *pooled}
    free = {
        layer: [(layer, head) for head in range(n_heads) if (layer, head) not in barred]
        for layer in sorted(set(scores["layer"].tolist()))
    }
    if sum(map(len, free.values())) < len(heads):
        return {"random": [], "norm": []}
    names = [head_name(*key) for key in sorted(heads)]
    random: dict[tuple[HeadId, ...], None] = {}  # ordered, each once
    for attempt in range(ATTEMPTS * draws):
        if len(random) < draws:
            generator = derive_generator(seed, "control", *names, attempt)
            random[tuple(_draw(heads, free, generator))] = None
    known = bool(scores["output_norm"].notna().to_numpy().all())
    norm = [_largest_norm(scores, barred, len(heads))] if known else []
    return {"random": [list(one) for one in random], "norm": norm}


def _draw(
    heads: Sequence[HeadId], free: Mapping[int, list[HeadId]], generator: torch.Generator
) -> list[HeadId]:
    left = {
        layer: [keys[index] for index in torch.randperm(len(keys), generator=generator).tolist()]
        for layer, keys in free.items()
    }
    drawn: list[HeadId] = []
    unserved: list[int] = []
    for layer, _ in sorted(heads):
        if left[layer]:
            drawn.append(left[layer].pop())
        else:
            unserved.append(layer)
    # Only now, when every layer has had its own, may one take from its neighbours.
    for layer in unserved:
        _, nearest = min((abs(at - layer), at) for at in left if left[at])
        drawn.append(left[nearest].pop())
    return sorted(drawn)


def _largest_norm(scores: pd.DataFrame, barred: Collection[HeadId], size: int) -> list[HeadId]:
    rows = [row for row in scores.to_dict("records") if head_id(row) not in barred]
    rows.sort(key=lambda row: (-row["output_norm"], head_id(row)))
    return sorted(head_id(row) for row in rows[:size])
