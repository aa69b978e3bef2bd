"""One's own samples, checked before anything is trained on them."""

import json
from collections.abc import Mapping, Sequence
from hashlib import sha256
from typing import Any

from workbench.distill.config import DistillationConfig
from workbench.distill.examples.stream import Collator
from workbench.distill.reading.batches import completed
from workbench.errors import InputError
from workbench.progress import Reporter


def own_examples(
    examples: Sequence[Mapping[str, Any]],
    config: DistillationConfig,
    n_tokens: int,
    reporter: Reporter,
) -> list[dict[str, Any]]:
    """The samples that are shorter than the context; `reporter` says how many are not.

    Raises:
        InputError: none is, one holds a token that is none, or they lack what a term needs.
    """
    kept = [dict(one) for one in examples if len(one["ids"]) < config.context]
    left = len(examples) - len(kept)
    if not kept:
        why = f", all {left} have {config.context} tokens or more (context)" if left else ""
        raise InputError(f"there are no examples to train on{why}")
    if left:
        reporter.say(
            f"{left:,} of {len(examples):,} examples have {config.context} tokens or more, and are "
            "left out"
        )
    most = max(max(one["ids"]) for one in kept)
    if most >= n_tokens:
        raise InputError(
            f"examples hold token {most}, teacher and student have ids 0 to {n_tokens - 1}; make "
            "them with the teacher's tokenizer"
        )
    completed(Collator()(kept[:1]), config.loss.batch_keys)
    return kept


def samples_sha256(samples: Sequence[Mapping[str, Any]]) -> str:
    """Hash of what a student is trained on."""
    return sha256(json.dumps(samples, sort_keys=True).encode()).hexdigest()
