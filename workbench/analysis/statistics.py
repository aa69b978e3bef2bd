"""Uncertainty over prompts: cluster bootstrap, false discovery rate, and the two halves of a set.

Several decision events may come from one prompt and are then not independent, so the bootstrap
draws prompts, not events. A resample is a vector of counts, one per prompt; the statistic is a
function of count-weighted means, which turns the resampling of all heads at once into one matrix
product per array.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, Int
from scipy.stats import false_discovery_control
from torch import Tensor
from transformer_lens.utilities.statistics import derive_generator

from workbench.errors import InputError
from workbench.progress import pulse

CONFIDENCE = 0.95
CELLS_AT_ONCE = 2048
"""Cells (say, heads) per matrix product: 2,000 resamples of them are 32 MB in float64."""


class Interval(NamedTuple):
    """An estimate and the ends of its percentile interval, each of the statistic's shape."""

    estimate: Float[Tensor, "*cell"]
    low: Float[Tensor, "*cell"]
    high: Float[Tensor, "*cell"]


class Halves(NamedTuple):
    """Prompt ids of the selection half and of the held-out half; disjoint."""

    choose: frozenset[str]
    verify: frozenset[str]

    def of(self, prompt_id: str) -> str:
        """Name of the half that holds this prompt: "choose" or "verify".

        Raises:
            InputError: the prompt is in neither.
        """
        for name, ids in zip(self._fields, self, strict=True):
            if prompt_id in ids:
                return name
        raise InputError(f"prompt {prompt_id!r} is in neither half of the prompts")


def split_half(prompt_ids: Sequence[str], seed: int = 0) -> Halves:
    """Split the distinct prompt ids at random; the selection half gets the odd one.

    The split depends on the set of ids and the seed, not on the order or number of events.

    Raises:
        InputError: fewer than two distinct prompts.
    """
    distinct = sorted(set(prompt_ids))
    if len(distinct) < 2:
        raise InputError(
            f"{len(distinct)} distinct prompt(s) cannot be split into a selection and a "
            "held-out half; give at least 2"
        )
    order = torch.randperm(len(distinct), generator=derive_generator(seed, "halves")).tolist()
    shuffled = [distinct[index] for index in order]
    middle = (len(shuffled) + 1) // 2
    return Halves(frozenset(shuffled[:middle]), frozenset(shuffled[middle:]))


def mean_statistic(means: Float[Tensor, "*any"]) -> Float[Tensor, "*any"]:
    """The mean itself, for `bootstrap`."""
    return means


def ratio_of_means(
    numerator: Float[Tensor, "*any"], denominator: Float[Tensor, "*any"]
) -> Float[Tensor, "*any"]:
    """Mean over mean, for `bootstrap`; NaN where the denominator is 0 (no valid pair)."""
    return torch.where(denominator == 0, torch.nan, numerator / denominator)


def bootstrap(
    statistic: Callable[..., Tensor],
    *values: Float[Tensor, " event *cell"],
    prompt_ids: Sequence[str],
    n_resamples: int = 2000,
    seed: int = 0,
    labels: Sequence[object] = (),
) -> Interval:
    """Percentile 95 % interval of a function of means, resampling prompts with replacement.

    `statistic` gets one tensor "resample *cell" of weighted means per array in `values`, and
    returns one value per resample and cell; it may drop trailing axes of the cells but not mix
    the first one, which is processed in slices. All arrays must have the same first cell axis
    (if any), and see the same resamples, so differences and ratios are paired. `labels` names the
    random stream next to `seed`. Resamples in which the statistic is NaN are left out of the
    percentiles.

    Raises:
        InputError: `n_resamples` below 1, or as many prompt ids as events are not given.
    """
    if n_resamples < 1:
        raise InputError(f"n_resamples is {n_resamples}, must be at least 1")
    if any(len(array) != len(prompt_ids) for array in values) or not prompt_ids:
        raise InputError(
            f"{len(prompt_ids)} prompt ids for arrays of {[len(array) for array in values]} "
            "events; each event needs its prompt id"
        )
    weights = _resample_weights(prompt_ids, n_resamples, derive_generator(seed, *labels))
    if values[0].ndim == 1:
        return _interval(statistic, weights, values)
    n_rows, rest = values[0].shape[1], values[0].shape[2:].numel()
    step = max(1, CELLS_AT_ONCE // rest)
    slices = [slice(start, start + step) for start in range(0, n_rows, step)]
    parts = [_interval(statistic, weights, [array[:, part] for array in values]) for part in slices]
    return Interval(*(torch.cat(fields) for fields in zip(*parts, strict=True)))


def _interval(
    statistic: Callable[..., Tensor],
    weights: Float[Tensor, "resample event"],
    values: Sequence[Tensor],
) -> Interval:
    """Estimate in the first row of the weighted means (all prompts once), resamples below it."""
    means = [torch.tensordot(weights, array.to(weights.dtype), dims=1) for array in values]
    draws = statistic(*means)
    tails = [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2]
    low, high = (torch.from_numpy(np.asarray(end)) for end in _quantiles(draws[1:].numpy(), tails))
    pulse("intervals", draws[0].numel())
    return Interval(draws[0], low, high)


def _quantiles(draws: np.ndarray, tails: list[float]) -> np.ndarray:
    # NumPy, because torch.quantile refuses large inputs; nanquantile is far slower and warns on
    # columns that are NaN throughout, so it only sees the columns with some NaN.
    ends = np.quantile(draws, tails, axis=0)
    some = np.isnan(draws).any(axis=0) & ~np.isnan(draws).all(axis=0)
    if some.any():
        ends[:, some] = np.nanquantile(draws[:, some], tails, axis=0)
    return ends


def _resample_weights(
    prompt_ids: Sequence[str], n_resamples: int, generator: torch.Generator
) -> Float[Tensor, "resample event"]:
    """Rows of event weights that sum to 1: first every prompt once, then the resamples."""
    prompt = prompt_numbers(prompt_ids)
    n_prompts = int(prompt.max()) + 1
    counts = resample_counts(n_prompts, n_resamples, generator)
    weights = torch.cat([torch.ones(1, n_prompts), counts]).double()[:, prompt]
    return weights / weights.sum(dim=1, keepdim=True)


def prompt_numbers(prompt_ids: Sequence[str]) -> Int[Tensor, " event"]:
    """Number of each event's prompt, in order of first appearance."""
    return torch.from_numpy(pd.Index(prompt_ids, dtype=object).factorize()[0])


def resample_counts(
    n_prompts: int, n_resamples: int, generator: torch.Generator
) -> Int[Tensor, "resample prompt"]:
    """How often each prompt is drawn in each resample of as many prompts."""
    drawn = torch.randint(0, n_prompts, (n_resamples, n_prompts), generator=generator)
    counts = torch.zeros(n_resamples, n_prompts, dtype=torch.int64)
    return counts.scatter_add_(1, drawn, torch.ones_like(drawn))


def false_discovery_q(p_values: Float[Tensor, "*cell"]) -> Float[Tensor, "*cell"]:
    """Benjamini-Hochberg adjusted p-values over all cells."""
    adjusted = false_discovery_control(p_values.double().numpy().ravel(), method="bh")
    return torch.from_numpy(adjusted).reshape(p_values.shape)
