"""Pairing the heads of two loaded models: by the pools, by control heads, by ablation effect."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import partial
from typing import Any

import pandas as pd
from torch import Tensor
from transformers import PreTrainedModel

from workbench.distill.config import CopiedLayers, DistillationConfig, Heads, StudentShape, plain
from workbench.distill.matching.ablation import ablation_effects, match_by_ablation
from workbench.distill.matching.distances import attention_distances
from workbench.distill.matching.head_map import (
    HeadMap,
    Pools,
    match_by_attention,
    match_by_depth,
    match_copied,
    swap_teacher,
)
from workbench.distill.reading.parts import shape_of
from workbench.distill.reading.positions import Marks
from workbench.errors import InputError
from workbench.heads import Head
from workbench.headsets.controls import controls
from workbench.phases import POOLS, Pool

Batch = Mapping[str, Tensor]


def pair_heads(
    teacher: PreTrainedModel,
    student: PreTrainedModel,
    pools: Pools | None,
    config: DistillationConfig,
    batch: Batch,
    scores: pd.DataFrame | None = None,
) -> HeadMap:
    """The head map of a distillation: matched as `config.matching` says, for `config.heads`.

    `batch` is looked at where heads are matched by attention, `scores` (layer, head, output_norm)
    where control heads are asked for.

    Raises:
        InputError: no pools, or what matching and `control_map` refuse.
    """
    if pools is None:
        names = config.loss.about_heads
        raise InputError(f"{names} need the teacher's pooled heads: give a head set")
    theirs, ours = shape_of(teacher), shape_of(student)
    auto, wanted = config.matching == "auto", config.student
    if _by_depth(config):
        found = match_by_depth(pools, theirs, ours)
    else:
        rows = Marks.of(batch, config.loss.rows).rows
        compare = partial(attention_distances, teacher, student, batch=batch, rows=rows)
        if auto and isinstance(wanted, CopiedLayers) and wanted.from_ is None:
            found = match_copied(pools, wanted.of(theirs.n_layers), compare, theirs, ours)
        else:
            found = match_by_attention(pools, compare, theirs, ours)
    return control_map(found, config.heads, scores, config.seed)


def _by_depth(config: DistillationConfig) -> bool:
    """Whether heads are matched by their places alone."""
    new = isinstance(config.student, StudentShape)
    return config.matching == "depth" or (config.matching == "auto" and new)


def paired_by(config: DistillationConfig, weights: str | None) -> dict[str, Any]:
    """What decides which heads are paired, besides teacher, pools, examples and both shapes.

    `weights` is the hash of the student's, None for those of a new one or of the teacher.
    """
    found: dict[str, Any] = {}
    pooled, wanted = bool(config.loss.taught_pools), config.student
    if pooled:
        found["matching"] = "depth" if _by_depth(config) else "attention"
        if config.heads == "random":
            found["seed"] = config.seed
    if config.loss.by_ablation or (pooled and not _by_depth(config)):
        found["student"] = weights
        if isinstance(wanted, StudentShape):
            found |= {"student": plain(asdict(wanted)), "seed": config.seed}
        if isinstance(wanted, CopiedLayers):
            found["layers"] = plain(wanted.layers)
    return found


def control_map(
    headmap: HeadMap, heads: Heads, scores: pd.DataFrame | None = None, seed: int = 0
) -> HeadMap:
    """The same student heads, learning from control heads of the teacher.

    Args:
        headmap: of the pools.
        heads: "pools" for the map itself, "random" for heads of the same layers, "norm" for those
            of the largest output; never a pooled head, nor one in two pools.
        scores: a run's scores table (layer, head, output_norm), to choose controls by.
        seed: of the random heads.

    Raises:
        InputError: controls without a scores table, or too few heads outside the pools.
    """
    if heads == "pools":
        return headmap
    if scores is None:
        raise InputError(f"{heads} heads need the scores table of a run, to be chosen by")
    pooled = [pair.teacher for pair in headmap.pairs]
    drawn: dict[Pool, Sequence[Head]] = {}
    for pool in POOLS:
        own = [pair.teacher for pair in headmap.in_pool(pool)]
        taken = [*pooled, *(head for one in drawn.values() for head in one)]
        if own:
            n_heads = headmap.teacher.n_heads
            found = controls(own, scores, n_heads, seed, 1, pooled=taken)[heads]
            if not found:
                raise InputError(
                    f"too few heads of known output outside the {pool} pool for {heads} ones"
                )
            drawn[pool] = found[0]
    return swap_teacher(headmap, drawn)


def pair_by_ablation(
    teacher: PreTrainedModel, student: PreTrainedModel, n: int, batches: Sequence[Batch]
) -> tuple[tuple[Head, Head], ...]:
    """(teacher head, student head) of `n` pairs of like ablation effect; see `ablation`."""
    theirs, ours = (ablation_effects(model, batches) for model in (teacher, student))
    return match_by_ablation(theirs, ours, n)
