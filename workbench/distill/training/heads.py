"""A student's heads matched with the teacher's, and all that can be refused beforehand."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from transformers import PreTrainedModel

from workbench.distill.config import DistillationConfig
from workbench.distill.examples.stream import Collator, DistillationStream
from workbench.distill.given import no_heads
from workbench.distill.matching.files import check_weights, load, save
from workbench.distill.matching.head_map import HeadMap, Pools, check_pools, match_by_depth
from workbench.distill.matching.pair import control_map, pair_heads
from workbench.distill.reading.batches import completed
from workbench.distill.reading.parts import attention_modules, final_norm, shape_of
from workbench.distill.training.folder import HEADMAP
from workbench.errors import InputError
from workbench.headsets.headset import HeadSet

Examples = DistillationStream | list[dict[str, Any]]

MATCHING_SIZE = 16
"""Examples on which heads are matched by attention or by ablation effect."""


def check_heads(
    teacher: PreTrainedModel,
    student: PreTrainedModel,
    pools: Pools | None,
    config: DistillationConfig,
    scores: pd.DataFrame | None,
    digest: str,
) -> None:
    """All that can be refused before traces are drawn and the folder is claimed.

    Raises:
        InputError: no heads where terms need them, or of one pool only, of other weights than the
            teacher's, or of a model that cannot be read.
    """
    loss = config.loss
    if loss.taught_pools or loss.by_ablation:
        if pools is None:
            raise InputError(no_heads(config))
        if isinstance(pools, HeadSet):
            check_weights("head set", pools.model.weights_sha256, digest)
        missing = sorted(loss.taught_pools - check_pools(pools, shape_of(teacher)).keys())
        if missing:
            raise InputError(
                f"loss terms {loss.of_pool(missing[0])} need heads of the {missing[0]} pool, the "
                f"head set has none; {loss.without(missing[0])}"
            )
    if loss.taught_pools and pools is not None:
        shapes = shape_of(teacher), shape_of(student)
        control_map(match_by_depth(pools, *shapes), config.heads, scores, config.seed)
    for model in (teacher, student):
        if loss.needs_teacher:
            attention_modules(model)
        if loss.reads_option_logits:
            final_norm(model)


def matched_heads(
    out: Path,
    teacher: PreTrainedModel,
    student: PreTrainedModel,
    pools: Pools | None,
    config: DistillationConfig,
    stream: Examples,
    scores: pd.DataFrame | None,
    keep: bool = True,
) -> HeadMap | None:
    """Matched heads: those of the folder if training began there, else new ones.

    Raises:
        InputError: the folder's are damaged or of other models, or what matching refuses.
    """
    if not config.loss.taught_pools:
        return None
    path = out / HEADMAP
    if path.is_file():
        try:
            return load(path, shape_of(teacher), shape_of(student))
        except InputError as error:
            raise InputError(f"{error}; delete it, and the heads are matched again") from None
    found = pair_heads(teacher, student, pools, config, first_batch(stream, config), scores)
    if keep:
        save(found, path)
    return found


def first_batch(stream: Examples, config: DistillationConfig) -> Mapping[str, torch.Tensor]:
    """The batch on which heads are matched."""
    batch = Collator()([stream[i % len(stream)] for i in range(MATCHING_SIZE)])
    return completed(batch, config.loss.batch_keys)
