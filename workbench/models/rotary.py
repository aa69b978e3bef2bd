"""Rotary embeddings that depend on how long the whole sequence is.

Beyond its original length, a model with "longrope" (Phi-3 and others) rotates every position by
other frequencies. In one batch, transformers goes by the longest sequence, so sequences on both
sides of that length must not share a forward, nor a prefix.
"""

from typing import Any


def switches(config: Any) -> frozenset[int]:
    """Lengths beyond which all positions are rotated otherwise; most models have none."""
    parameters = getattr(config, "rope_parameters", None) or {}
    kinds = [parameters, *(kind for kind in parameters.values() if isinstance(kind, dict))]
    return frozenset(
        kind["original_max_position_embeddings"]
        for kind in kinds
        if not kind.keys().isdisjoint(("long_factor", "long_mscale"))
    )
