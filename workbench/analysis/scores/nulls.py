"""Permutation nulls of the two scores: what would they be if roles said nothing about a head?

Roles are dealt out anew and everything else is kept, so options keep their positions and lengths.
Every shuffle is shared by all heads; a p-value is the share of shuffles (the observed assignment
included) that reach the observed score or more.

Events of one prompt look at the same options and are not independent: roles are dealt out by
prompt, so that their dependence is part of the null. Shuffles of different prompts are
independent.
"""

import math
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from einops import einsum
from jaxtyping import Float
from torch import Tensor
from transformer_lens.utilities.statistics import derive_generator

from workbench.analysis.statistics import false_discovery_q, prompt_numbers
from workbench.errors import InputError
from workbench.progress import pulse

PERMUTATIONS_AT_ONCE = 128
NUMBERS_AT_ONCE = 2**24
"""Largest tensor of a null, in float64 numbers (128 MB)."""
FLOOR = 0.01
"""Share of a score's scale below which a head does not stand out, whatever the shuffles say."""
SMALLEST_Q = 0.05
"""There are as many permutations as let a single head of all reach this q value."""


class RoleValues(NamedTuple):
    """What a score says of one event, whichever option (or family of options) has the part.

    `weights` are 1 for the one that has it and 0 for the others; a null deals them out anew.
    `options` names the rows, so that events of one prompt can be told to have the same ones.
    """

    values: Float[Tensor, "option layer head *route"]
    weights: Float[Tensor, " option"]
    options: tuple[str, ...]

    @classmethod
    def of(
        cls, values: Float[Tensor, "option layer head *route"], has: int, *names: str
    ) -> "RoleValues":
        """Row `has` has the part."""
        weights = torch.zeros(len(names), dtype=torch.float64)
        weights[has] = 1
        return cls(values, weights, names)

    @property
    def own(self) -> Float[Tensor, "layer head *route"]:
        """The value with the roles as they are."""
        return torch.tensordot(self.weights, self.values, dims=1)


@dataclass(frozen=True)
class RoutedValues:
    """Routes of a score whose parts are dealt out apart, among rows of their own."""

    parts: tuple[RoleValues, ...]

    @property
    def own(self) -> Float[Tensor, "layer head route"]:
        """The routes of all parts, in order."""
        return torch.cat([part.own for part in self.parts], dim=-1)


@dataclass(frozen=True)
class RoleNull:
    """Sums over each prompt's events, as observed and under shuffled roles.

    Attributes:
        observed: per prompt, the sum over its events.
        events: number of events per prompt.
        draw: (count, generator) → the same sums under `count` shuffles.
        score: mean over events, per cell → one number per head.
        stream: names the random stream next to a seed.
        scale: the largest score that there can be; the largest of the sample's heads unless given.
    """

    observed: Float[Tensor, " prompt *cell"]
    events: Float[Tensor, " prompt"]
    draw: Callable[[int, torch.Generator], Float[Tensor, "permutation prompt *cell"]]
    score: Callable[[Tensor], Tensor]
    stream: str
    scale: float | None = None


def enough_permutations(n_permutations: int, n_heads: int) -> int:
    """At least `n_permutations`, and enough for q = 0.05 of a single head among `n_heads`.

    The smallest p-value of n permutations is 1 / (n + 1); Benjamini and Hochberg (1995) multiply
    it by the number of heads when no other head is as small.

    Raises:
        InputError: `n_permutations` below 1.
    """
    if n_permutations < 1:
        raise InputError(f"n_permutations is {n_permutations}, must be at least 1")
    return max(n_permutations, math.ceil(n_heads / SMALLEST_Q))


def coarse_null(events: Sequence[RoleValues | RoutedValues], prompt_ids: Sequence[str]) -> RoleNull:
    """The null of CoarseScore: in each event any family of options may be the relevant one.

    Options of one family are attended alike, so relevance is dealt out by family. Rows of the
    values are families (or stretches of the note), each the contrast with itself as the relevant
    one. The score is the larger route, in every shuffle as in the observation.

    Raises:
        InputError: not one prompt id per event, or no event.
    """
    routes = [event.parts if isinstance(event, RoutedValues) else (event,) for event in events]
    nulls = [_dealt(part, prompt_ids) for part in zip(*routes, strict=True)] or [_dealt([], [])]
    return RoleNull(
        torch.cat([null.observed for null in nulls], dim=-1),
        nulls[0].events,
        lambda count, generator: torch.cat([null.draw(count, generator) for null in nulls], dim=-1),
        lambda mean: mean.amax(dim=-1),
        "coarse null",
        1.0,
    )


def refine_null(events: Sequence[RoleValues], prompt_ids: Sequence[str]) -> RoleNull:
    """The null of RefineScore: in each event any option of gold's cluster may play gold.

    Rows of the values are the options of gold's cluster, each the effect on the log-odds of that
    option against the rest.

    Raises:
        InputError: not one prompt id per event, or no event.
    """
    return replace(_dealt(events, prompt_ids), stream="refine null")


def size_null(events: Sequence[RoleValues], prompt_ids: Sequence[str]) -> RoleNull:
    """The null of an effect that is as likely up as down; the score is its size, the larger route.

    Rows of the values are the effect and minus the effect: signs are flipped by prompt.

    Raises:
        InputError: not one prompt id per event, or no event.
    """
    dealt = _dealt(events, prompt_ids)
    return replace(dealt, score=lambda mean: mean.abs().amax(dim=-1), stream="size null")


def _dealt(events: Sequence[RoleValues], prompt_ids: Sequence[str]) -> RoleNull:
    """A part is dealt out anew among the rows of each event; the weight of who has it is 1.

    A shuffle ranks all rows of a prompt by name. In every event of the prompt the row that ranks
    first gets the part. Thus each is drawn uniformly, and the same rows get the same draw. Two
    cases need more. Several rows have the part, each in its own event of the same rows: they become
    the first, the second, and so on. Or they would have it in the same rows but are left out in the
    events of one another: they share one rank, which ties their events a little more than chance
    would, on the safe side.
    """
    _check(events, prompt_ids)
    values = [event.values.double() for event in events]
    holder = [int(event.weights.argmax()) for event in events]
    rows: list[list[Hashable]] = [list(event.options) for event in events]
    prompt = prompt_numbers(prompt_ids).tolist()
    of_prompt = [
        [event for event, number in enumerate(prompt) if number == index]
        for index in range(max(prompt) + 1)
    ]
    for members in of_prompt:
        _share_ranks(rows, holder, members)
    position: list[dict[Hashable, int]] = [
        {name: at for at, name in enumerate(dict.fromkeys(n for e in members for n in rows[e]))}
        for members in of_prompt
    ]
    place = _places(prompt, rows, holder)

    def draw(count: int, generator: torch.Generator) -> Tensor:
        total = torch.zeros(count, len(of_prompt), *values[0].shape[1:], dtype=torch.float64)
        for index, members in enumerate(of_prompt):
            rank = torch.rand(count, len(position[index]), generator=generator)
            for event in members:
                columns = [position[index][name] for name in rows[event]]
                order = rank[:, columns].argsort(dim=1)
                total[:, index] += values[event][order[:, place[event]]]
        return total

    observed = torch.zeros(len(of_prompt), *values[0].shape[1:], dtype=torch.float64)
    for index, value, row in zip(prompt, values, holder, strict=True):
        observed[index] += value[row]
    return RoleNull(observed, _events_of(prompt), draw, lambda mean: mean, "")


def _share_ranks(rows: list[list[Hashable]], gold: Sequence[int], events: Sequence[int]) -> None:
    """Give the golds of overlapping clusters one name, unless they are near for one another."""
    groups: list[list[int]] = []
    for event in events:
        touching = [
            group for group in groups if any(set(rows[event]) & set(rows[other]) for other in group)
        ]
        groups = [group for group in groups if group not in touching]
        groups.append([*(other for group in touching for other in group), event])
    for group in groups:
        near = {name for event in group for at, name in enumerate(rows[event]) if at != gold[event]}
        shared = min(group)
        for event in group:
            if rows[event][gold[event]] not in near:
                rows[event][gold[event]] = ("gold", shared)


def _places(
    prompt: Sequence[int], rows: Sequence[Sequence[Hashable]], gold: Sequence[int]
) -> list[int]:
    """Per event, how many other options were gold of the same cluster of the prompt before."""
    golds: dict[Hashable, list[Hashable]] = {}
    places = []
    for number, names, row in zip(prompt, rows, gold, strict=True):
        seen = golds.setdefault((number, frozenset(names)), [])
        if names[row] not in seen:
            seen.append(names[row])
        places.append(seen.index(names[row]))
    return places


def null_p(
    null: RoleNull,
    counts: Float[Tensor, "sample prompt"] | None = None,
    *,
    n_permutations: int = 2000,
    seed: int = 0,
) -> Float[Tensor, "sample layer head"]:
    """p = (1 + #{null ≥ observed}) / (1 + n) of every head, for the score of the mean over events.

    `counts` says how often each prompt is in each sample (once in a single one, unless given); a
    prompt that occurs twice has the same shuffle twice, and all samples see the same shuffles.
    `n_permutations` is a minimum, see `enough_permutations`.

    Raises:
        InputError: `n_permutations` below 1.
    """
    counts = torch.ones(1, len(null.events)) if counts is None else counts
    weights = counts.double() * null.events
    weights = counts.double() / weights.sum(dim=1, keepdim=True)

    def score(sums: Tensor, weights: Tensor) -> Tensor:
        return null.score(
            einsum(weights, sums, "sample prompt, draw prompt ... -> sample draw ...")
        )

    observed = score(null.observed[None], weights)
    # A shuffle that deals the same roles must count as reached, whatever the order of summation.
    reached = observed - 1e-9 * observed.abs()
    n_permutations = enough_permutations(n_permutations, observed[0, 0].numel())
    fitting = NUMBERS_AT_ONCE // null.observed.numel()
    at_once = max(1, min(PERMUTATIONS_AT_ONCE, fitting))
    step = max(1, NUMBERS_AT_ONCE // (at_once * null.observed[0].numel()))
    generator = derive_generator(seed, null.stream)
    hits = torch.zeros_like(observed[:, 0])
    for start in range(0, n_permutations, at_once):
        drawn = null.draw(min(at_once, n_permutations - start), generator)
        for first in range(0, len(weights), step):
            part = slice(first, first + step)
            hits[part] += (score(drawn, weights[part]) >= reached[part]).sum(dim=1)
        pulse("shuffles", len(drawn))
    return (1 + hits) / (1 + n_permutations)


def null_q(
    null: RoleNull,
    p_values: Float[Tensor, "sample layer head"],
    counts: Float[Tensor, "sample prompt"] | None = None,
) -> Float[Tensor, "sample layer head"]:
    """Benjamini-Hochberg q of `null_p` over all heads; 1 for a score below `FLOOR` of its scale.

    Rounding noise ranks above its shuffles as easily as anything else. `counts` as there.
    """
    counts = torch.ones(1, len(null.events)) if counts is None else counts
    sums = einsum(counts.double(), null.observed, "sample prompt, prompt ... -> sample ...")
    events = (counts.double() @ null.events).reshape(-1, *[1] * (sums.ndim - 1))
    found = null.score(sums / events)
    scale = null.scale or found.flatten(1).amax(dim=1)[:, None, None]
    q = torch.stack([false_discovery_q(sample) for sample in p_values])
    return q.masked_fill(found < FLOOR * scale, 1.0)


def _events_of(prompt: Sequence[int]) -> Float[Tensor, " prompt"]:
    return torch.bincount(torch.tensor(prompt)).double()


def _check(events: Sequence[RoleValues], prompt_ids: Sequence[str]) -> None:
    if len(events) != len(prompt_ids) or not events:
        raise InputError(
            f"a null needs a prompt id per event, at least one event; got {len(events)} events, "
            f"{len(prompt_ids)} prompt ids"
        )
