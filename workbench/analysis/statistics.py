"""Uncertainty over prompts: cluster bootstrap, false discovery rate, and the two halves of a set.

Several decision events may come from one prompt and are then not independent, so the bootstrap
draws prompts, not events. A resample is a vector of counts, one per prompt; the statistic is a
function of count-weighted means, which turns the resampling of all heads at once into one matrix
product per array.

Intervals are studentised (bootstrap-t, Efron 1979; DiCiccio and Efron 1996): what is resampled is
the deviation over its own standard error, which keeps its coverage where few prompts carry most of
an effect. The standard error is that of the linearised statistic (infinitesimal jackknife), from
its gradient at the means. `workbench coverage` simulates how often intervals hold the true value.
"""

from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, Int
from scipy.stats import false_discovery_control
from torch import Tensor
from transformer_lens.utilities.statistics import derive_generator

from workbench.errors import InputError
from workbench.phases import MIN_PROMPTS
from workbench.progress import pulse

CONFIDENCE = 0.95
TAILS = [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2]
CELLS_AT_ONCE = 1024
"""Cells (say, heads) per matrix product: 2,000 resamples of them are 16 MB in float64."""
NUMBERS_AT_ONCE = 2**22
"""Influences (cell × resample × prompt) held together: 32 MB in float64."""
LEAST_HALF = 0.4
"""Share of the prompts that the smaller half must have when families are kept together."""
LEAST_ERROR = 0.25
"""A resample's standard error counts as at least this share of the sample's own: one without the
few prompts that carry an effect would have none at all, and an interval without end."""


class Interval(NamedTuple):
    """An estimate and the ends of its interval, each of the statistic's shape."""

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


def split_half(
    prompt_ids: Sequence[str], seed: int = 0, families: Mapping[str, Hashable] | None = None
) -> Halves:
    """Split the distinct prompt ids at random; the selection half gets the odd one.

    Prompts of one family (`PromptSet.families`) go to the same half, so that no label that chose a
    head is met again when the head is verified. Where the halves would then be too unequal, because
    a family holds most prompts, each prompt goes by itself (`families_in_both`). The split depends
    on the set of ids, the families and the seed, not on the order or number of events.

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
    if families is not None:
        groups: dict[Hashable, list[str]] = {}
        for name in shuffled:
            groups.setdefault(families[name], []).append(name)
        halves: tuple[list[str], list[str]] = [], []
        for group in sorted(groups.values(), key=len, reverse=True):  # stable, so as shuffled
            halves[len(halves[0]) > len(halves[1])].extend(group)
        if len(halves[1]) >= LEAST_HALF * len(distinct):
            return Halves(*map(frozenset, sorted(halves, key=len, reverse=True)))
    middle = (len(shuffled) + 1) // 2
    return Halves(frozenset(shuffled[:middle]), frozenset(shuffled[middle:]))


def deal_more(
    halves: Halves, prompt_ids: Sequence[str], seed: int, families: Mapping[str, Hashable]
) -> Halves:
    """The halves with more prompts: every prompt stays in its half, and the others are dealt.

    A new prompt goes to the half in which its family lies. Other families are dealt at random, the
    largest first, each to the smaller half; where the halves would then be too unequal, and for a
    family that lies in both, each new prompt goes by itself.
    """
    new = sorted(set(prompt_ids) - halves.choose - halves.verify)
    generator = derive_generator(seed, "halves", len(halves.choose) + len(halves.verify))
    order = torch.randperm(len(new), generator=generator).tolist()
    groups: dict[Hashable, list[str]] = {}
    for index in order:
        groups.setdefault(families[new[index]], []).append(new[index])
    homes = [{families[name] for name in half} for half in halves]

    def dealt(each: Sequence[Sequence[str]], keep: bool) -> Halves:
        both = [list(half) for half in halves]
        for group in each:
            at_home = [at for at in (0, 1) if families[group[0]] in homes[at]]
            smaller = int(len(both[0]) > len(both[1]))
            both[at_home[0] if keep and len(at_home) == 1 else smaller].extend(group)
        return Halves(*map(frozenset, both))

    by_size = sorted(groups.values(), key=len, reverse=True)  # stable, so as shuffled
    known = [group for group in by_size if sum(families[group[0]] in home for home in homes) == 1]
    split = [
        [name]
        for group in by_size
        if all(families[group[0]] in home for home in homes)
        for name in group
    ]
    fresh = [group for group in by_size if not any(families[group[0]] in home for home in homes)]
    found = dealt([*known, *fresh, *split], keep=True)
    if min(map(len, found)) < LEAST_HALF * sum(map(len, found)):
        found = dealt([[name] for group in by_size for name in group], keep=False)
    return found


def families_in_both(halves: Halves, families: Mapping[str, Hashable]) -> int:
    """Number of families that have prompts in either half."""
    return len(set.intersection(*({families[name] for name in half} for half in halves)))


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
    studentised: bool = True,
) -> Interval:
    """Studentised 95 % interval of a function of means, resampling prompts with replacement.

    `statistic` gets one tensor "resample *cell" of weighted means per array in `values`, and
    returns one value per resample and cell; it may drop trailing axes of the cells but not mix
    the first one, which is processed in slices. All arrays must have the same first cell axis
    (if any), and see the same resamples, so differences and ratios are paired. `labels` names the
    random stream next to `seed`. Resamples in which the statistic is NaN are left out.

    A statistic that jumps has no gradient and so no standard error: with `studentised` off, the
    ends are percentiles of the resamples. Fewer than `MIN_PROMPTS` prompts give no interval: the
    ends are NaN.

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
    prompt = prompt_numbers(prompt_ids)
    n_events = torch.bincount(prompt).double()
    few = len(n_events) < MIN_PROMPTS
    generator = derive_generator(seed, *labels)
    sample = _Sample.of(n_events, 0 if few else n_resamples, generator)
    sums = [_prompt_sums(array, prompt) for array in values]
    if sums[0].ndim == 1:
        return sample.interval(statistic, sums, studentised)
    n_rows, rest = sums[0].shape[1], sums[0].shape[2:].numel()
    step = max(1, CELLS_AT_ONCE // rest)
    slices = [slice(start, start + step) for start in range(0, n_rows, step)]
    parts = [
        sample.interval(statistic, [array[:, part] for array in sums], studentised)
        for part in slices
    ]
    return Interval(*(torch.cat(fields) for fields in zip(*parts, strict=True)))


def _prompt_sums(
    array: Float[Tensor, " event *cell"], prompt: Int[Tensor, " event"]
) -> Float[Tensor, " prompt *cell"]:
    sums = torch.zeros(int(prompt.max()) + 1, *array.shape[1:], dtype=torch.float64)
    return sums.index_add_(0, prompt, array.double())


class _Sample(NamedTuple):
    """How often each prompt counts: once each in the first row, as drawn in those below."""

    counts: Float[Tensor, "resample prompt"]
    n_events: Float[Tensor, " prompt"]
    total: Float[Tensor, " resample"]

    @classmethod
    def of(
        cls, n_events: Float[Tensor, " prompt"], n_resamples: int, generator: torch.Generator
    ) -> "_Sample":
        drawn = resample_counts(len(n_events), n_resamples, generator)
        counts = torch.cat([torch.ones(1, len(n_events)), drawn]).double()
        return cls(counts, n_events, counts @ n_events)

    def interval(
        self, statistic: Callable[..., Tensor], sums: Sequence[Tensor], studentised: bool
    ) -> Interval:
        """The estimate is the first row of the statistic, its resamples are the others."""
        means = [
            torch.tensordot(self.counts, one, dims=1)
            / self.total.reshape(-1, *[1] * (one.ndim - 1))
            for one in sums
        ]
        if len(self.counts) == 1:
            estimate = statistic(*means)[0]
            none = torch.full_like(estimate, torch.nan)
            return Interval(estimate, none, none.clone())
        draws, gradients = _with_gradients(statistic, means, studentised)
        estimate = draws[0]
        pulse("intervals", estimate.numel())
        if not studentised:
            return Interval(estimate, *_quantiles(draws[1:]))
        error = self._errors(sums, means, gradients, estimate.numel()).reshape(draws.shape)
        apart = (draws[1:] - estimate) / torch.maximum(error[1:], LEAST_ERROR * error[0])
        # 0 / 0 where all prompts say the same; other NaN are resamples without a value.
        apart = apart.masked_fill((draws[1:] == estimate) & apart.isnan(), 0)
        low, high = _quantiles(apart)
        return Interval(estimate, estimate - high * error[0], estimate - low * error[0])

    def _errors(
        self,
        sums: Sequence[Tensor],
        means: Sequence[Tensor],
        gradients: Sequence[Tensor],
        n_cells: int,
    ) -> Float[Tensor, "resample cell"]:
        """Standard error of the linearised statistic in every resample, up to a common factor.

        The influence of a prompt is Σ gradient · (its sum − its events · mean) over the number of
        events, summed over arrays and over the axes that the statistic drops.
        """
        by_cell = [
            torch.cat([one.reshape(len(one), n_cells, -1) for one in arrays], dim=-1)
            for arrays in (sums, means, gradients)
        ]
        own, mean, gradient = by_cell
        common = (gradient * mean).sum(dim=-1, keepdim=True)
        slopes = torch.cat([gradient, -common], dim=-1)
        own = torch.cat([own, self.n_events[:, None, None].expand(-1, n_cells, 1)], dim=-1)
        step = max(1, NUMBERS_AT_ONCE // self.counts.numel())
        variance = torch.empty(len(self.counts), n_cells, dtype=torch.float64)
        for start in range(0, n_cells, step):
            part = slice(start, start + step)
            influence = slopes[:, part].transpose(0, 1) @ own[:, part].permute(1, 2, 0)
            variance[:, part] = (influence.square_() * self.counts).sum(dim=-1).T
        return variance.sqrt() / self.total[:, None]


def _with_gradients(
    statistic: Callable[..., Tensor], means: Sequence[Tensor], wanted: bool
) -> tuple[Tensor, list[Tensor]]:
    """The statistic of every resample, and its gradient with respect to each array of means.

    A resample's value depends on its own means alone, so one sum has the gradients of all.
    """
    if not wanted:
        return statistic(*means), []
    with torch.enable_grad():
        given = [one.detach().requires_grad_() for one in means]
        draws = statistic(*given)
        found = torch.autograd.grad(draws.sum(), given, allow_unused=True)
    gradients = [
        torch.zeros_like(one) if gradient is None else gradient
        for one, gradient in zip(means, found, strict=True)
    ]
    return draws.detach(), gradients


def _quantiles(draws: Float[Tensor, "*any"]) -> tuple[Tensor, Tensor]:
    # NumPy, because torch.quantile refuses large inputs; nanquantile is far slower and warns on
    # columns that are NaN throughout, so it only sees the columns with some NaN.
    drawn = draws.numpy()
    ends = np.asarray(np.quantile(drawn, TAILS, axis=0))
    some = np.isnan(drawn).any(axis=0) & ~np.isnan(drawn).all(axis=0)
    if some.any():
        ends[:, some] = np.nanquantile(drawn[:, some], TAILS, axis=0)
    low, high = torch.from_numpy(ends)
    return low, high


def resample_weights(
    prompt_ids: Sequence[str], n_resamples: int, seed: int, *labels: object
) -> Float[Tensor, "resample event"]:
    """Weights of events that sum to 1: all prompts once, then the resamples that `bootstrap` sees.

    For functions of the resamples that are no interval of `bootstrap`.
    """
    prompt = prompt_numbers(prompt_ids)
    sample = _Sample.of(
        torch.bincount(prompt).double(), n_resamples, derive_generator(seed, *labels)
    )
    return sample.counts[:, prompt] / sample.total[:, None]


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
