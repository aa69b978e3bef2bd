"""Permutation nulls of the two scores: what would they be if roles said nothing about a head?

Both nulls shuffle roles within an event and keep everything else, so options keep their positions
and lengths. Every shuffle is shared by all heads; a p-value is the share of shuffles (the observed
assignment included) that reach the observed score or more.
"""

from collections.abc import Callable, Sequence

import torch
from einops import einsum
from jaxtyping import Float
from torch import Tensor
from transformer_lens.utilities.statistics import derive_generator

from workbench.errors import InputError

PERMUTATIONS_AT_ONCE = 128


def coarse_null_p(
    routes: Sequence[Float[Tensor, "_ layer head route"]],
    weights: Sequence[Float[Tensor, " _"]],
    *,
    n_permutations: int = 2000,
    seed: int = 0,
) -> Float[Tensor, "layer head"]:
    """p-values of CoarseScore: the relevant and far labels of each event are dealt out anew.

    `routes` and `weights` hold one tensor per event over its options (their number may differ).
    Options of weight 0 (role `other`) take no part. The score is the larger route of the mean
    contrast, in every shuffle as in the observation.
    """
    scored = [weight != 0 for weight in weights]
    values = [array[mask] for array, mask in zip(routes, scored, strict=True)]
    observed = [weight[mask] for weight, mask in zip(weights, scored, strict=True)]

    def shuffled(event: int, count: int, generator: torch.Generator) -> Tensor:
        order = torch.rand(count, len(observed[event]), generator=generator).argsort(dim=1)
        return observed[event][order]

    return _null_p(
        values,
        observed,
        shuffled,
        lambda contrast: contrast.amax(dim=-1),
        n_permutations,
        derive_generator(seed, "coarse null"),
    )


def refine_null_p(
    effects: Sequence[Float[Tensor, "_ layer head"]],
    gold: Sequence[int],
    *,
    n_permutations: int = 2000,
    seed: int = 0,
) -> Float[Tensor, "layer head"]:
    """p-values of RefineScore: in each event any option of gold's cluster may play gold.

    `effects` holds one tensor per event over the options of gold's cluster, each the effect on the
    log-odds of that option against the rest of the cluster; `gold` is the row of the real one.
    """
    observed = [
        torch.nn.functional.one_hot(torch.tensor(row), len(array)).double()
        for array, row in zip(effects, gold, strict=True)
    ]

    def shuffled(event: int, count: int, generator: torch.Generator) -> Tensor:
        size = len(effects[event])
        drawn = torch.randint(0, size, (count,), generator=generator)
        return torch.nn.functional.one_hot(drawn, size).double()

    return _null_p(
        effects,
        observed,
        shuffled,
        lambda effect: effect,
        n_permutations,
        derive_generator(seed, "refine null"),
    )


def _null_p(
    values: Sequence[Tensor],
    observed_weights: Sequence[Tensor],
    shuffled_weights: Callable[[int, int, torch.Generator], Tensor],
    score: Callable[[Tensor], Tensor],
    n_permutations: int,
    generator: torch.Generator,
) -> Float[Tensor, "layer head"]:
    """p = (1 + #{null ≥ observed}) / (1 + n), for a score of the mean over events."""
    if n_permutations < 1:
        raise InputError(f"n_permutations is {n_permutations}, must be at least 1")

    def mean_over_events(weights: Sequence[Tensor]) -> Tensor:
        total = sum(
            einsum(weight, value.double(), "permutation option, option ... -> permutation ...")
            for weight, value in zip(weights, values, strict=True)
        )
        assert isinstance(total, Tensor)
        return total / len(values)

    observed = score(mean_over_events([weight[None] for weight in observed_weights]))
    # A shuffle that deals the same roles must count as reached, whatever the order of summation.
    reached = observed - 1e-9 * observed.abs()
    hits = torch.zeros_like(observed[0])
    for start in range(0, n_permutations, PERMUTATIONS_AT_ONCE):
        count = min(PERMUTATIONS_AT_ONCE, n_permutations - start)
        drawn = [shuffled_weights(event, count, generator) for event in range(len(values))]
        hits += (score(mean_over_events(drawn)) >= reached).sum(dim=0)
    return (1 + hits) / (1 + n_permutations)
