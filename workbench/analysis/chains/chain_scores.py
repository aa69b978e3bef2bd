"""`coarse_chain` and `refine_chain` of every head, as the paper writes them and guarded.

    coarse_chain = mean over early queries of κ(attention row) · cos(write, anchors)
    refine_chain = mean over late queries of
                   (QK to the chain's own true shortlist − QK to near misses) · <write, ∇ margin>

(Saha Roy, Wallace and Aslam, arXiv 2606.06840.) Guarded: attention sinks are taken out and rows
renormalised; the size of the write, as a share of the stream's, weighs the cosine; attention shares
stand for QK. The anchors' vector is that of the evidence plus the mean of the relevant families'
vectors; see `head_parts` for what the model gives. In chains with several decisions each counts
once in `refine_chain`.

Nulls deal out roles by family. *Coarse*: other families of the prompt are the relevant ones, as
many of them; the evidence stays. *Refine*: in each decision another label of the family is the gold
one, the same in all that a prompt reads of it. Kurtosis has no role in it, and no null.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from einops import einsum
from jaxtyping import Float
from torch import Tensor

from workbench.analysis.chains.head_parts import EARLY, LATE
from workbench.analysis.chains.reading import ChainReading
from workbench.analysis.scores.nulls import RoleNull, RoleValues, null_p, refine_null
from workbench.analysis.statistics import (
    Interval,
    bootstrap,
    false_discovery_q,
    mean_statistic,
    prompt_numbers,
)
from workbench.errors import InputError

CHAIN_SCORES = ("coarse_chain", "coarse_chain_guarded", "refine_chain", "refine_chain_guarded")
"""Scores that rank heads; the other columns are their parts."""


@dataclass(frozen=True)
class _Early:
    """One chain's early parts: the products with each group's vector, and the vectors' products."""

    products: Float[Tensor, "group layer head"]
    gram: Float[Tensor, "layer group group"]
    relevant: tuple[int, ...]

    def of(self, relevant: Float[Tensor, "draw family"]) -> Float[Tensor, "draw layer head"]:
        """The part if these families were the relevant ones."""
        weights = relevant / relevant.sum(dim=1, keepdim=True).clamp(min=1)
        weights = torch.cat([torch.ones(len(weights), 1, dtype=weights.dtype), weights], dim=1)
        along = einsum(weights, self.products, "draw group, group layer head -> draw layer head")
        size = einsum(weights, self.gram, weights, "draw a, layer a b, draw b -> draw layer")
        return along / size.clamp(min=1e-30).sqrt()[..., None]

    @property
    def roles(self) -> Float[Tensor, " family"]:
        """1 for each relevant family."""
        roles = torch.zeros(len(self.products) - 1, dtype=torch.float64)
        roles[list(self.relevant)] = 1
        return roles


def chain_scores(
    readings: Sequence[ChainReading],
    parts: Sequence[pd.DataFrame],
    *,
    n_resamples: int = 2000,
    n_permutations: int = 2000,
    seed: int = 0,
) -> pd.DataFrame:
    """A row per layer and head, from what `chain_parts` says of each reading.

    Columns: layer, head; for each of `CHAIN_SCORES` and of the parts write_cosine, write_share,
    qk_shortlist, qk_near and ov_margin the mean, `_low` and `_high` (95 % over prompts), `_p` and
    `_q` (one-sided permutation null by family, Benjamini-Hochberg over all heads); kurtosis and
    kurtosis_guarded with their intervals; n (chains with early queries), n_refine (chains with
    late queries after a shortlist) and n_decisions. What no chain has is NaN.

    Raises:
        InputError: not one table of parts per reading, or no chain.
    """
    if len(readings) != len(parts) or not parts:
        raise InputError(f"{len(readings)} chains and {len(parts)} tables of parts of them")
    ids = [reading.id for reading in readings]
    heads = pd.concat([table.loc[table["head"] >= 0, ["layer", "head"]] for table in parts])
    if heads.empty:
        raise InputError("no chain has an early token, or a late one after a shortlist")
    n_layers, n_heads = (heads.to_numpy(int).max(axis=0) + 1).tolist()
    shape = n_layers, n_heads
    layer, head = np.indices(shape)
    columns: dict[str, Any] = {"layer": layer, "head": head}

    def add(name: str, values: Tensor, prompts: Sequence[str]) -> None:
        found = bootstrap(
            mean_statistic,
            values,
            prompt_ids=prompts,
            n_resamples=n_resamples,
            seed=seed,
            labels=[name],
        )
        for field, end in zip(Interval._fields, ("", "_low", "_high"), strict=True):
            columns[name + end] = getattr(found, field)

    def test(name: str, null: RoleNull, values: Sequence[Tensor]) -> None:
        p = null_p(null, n_permutations=n_permutations, seed=seed)[0]
        # What is not known in some role (a window that hides the shortlist) beats no shuffle.
        known = torch.stack([value.isfinite().all(dim=0) for value in values]).all(dim=0)
        p = torch.where(known, p, 1.0)
        columns[f"{name}_p"] = p
        columns[f"{name}_q"] = false_discovery_q(p)

    early = [at for at, table in enumerate(parts) if "kurtosis" in set(table["part"])]
    for name in ("kurtosis", "kurtosis_guarded"):
        if early:
            values = [_grid(parts[at], name, shape)[0, 0] for at in early]
            add(name, torch.stack(values), [ids[at] for at in early])
    for name in EARLY if early else ():
        chains = [_early(readings[at], parts[at], name, shape) for at in early]
        observed = torch.stack([one.of(one.roles[None])[0] for one in chains])
        add(name, observed, [ids[at] for at in early])
        null = _coarse_null(chains, observed, [ids[at] for at in early], name)
        test(name, null, [one.products for one in chains])
    decided = [
        (at, group)
        for at, table in enumerate(parts)
        for group in sorted(set(table.loc[table["part"] == LATE[0], "group"].tolist()))
    ]
    prompts = [ids[at] for at, _ in decided]
    for name in LATE if decided else ():
        events = [_late(readings[at], parts[at], name, group, shape) for at, group in decided]
        add(name, torch.stack([event.own for event in events]), prompts)
        test(name, refine_null(events, prompts), [event.values for event in events])
    for name in (*EARLY, *LATE):
        for end in ("", "_low", "_high", "_p", "_q"):
            columns.setdefault(name + end, np.nan)
    flat = {name: np.broadcast_to(value, shape).ravel() for name, value in columns.items()}
    return pd.DataFrame(flat).assign(
        n=len(early), n_refine=len(set(prompts)), n_decisions=len(decided)
    )


def _grid(
    table: pd.DataFrame, part: str, shape: tuple[int, int]
) -> Float[Tensor, "group member layer head"]:
    """One part of a chain; its groups and members count from 0."""
    rows = table.loc[table["part"] == part]
    n_heads = 1 if part == "gram" else shape[1]
    n_groups, n_members = (rows[["group", "member"]].to_numpy(int).max(axis=0) + 1).tolist()
    size = (n_groups, n_members, shape[0], n_heads)
    values = torch.full(size, torch.nan, dtype=torch.float64)
    axes = ("group", "member", "layer", "head")
    at = tuple(torch.from_numpy(rows[name].to_numpy(int).clip(min=0)) for name in axes)
    values[at] = torch.from_numpy(rows["value"].to_numpy(float, copy=True))
    return values


def _early(reading: ChainReading, table: pd.DataFrame, part: str, shape: tuple[int, int]) -> _Early:
    gram = _grid(table, "gram", shape)[..., 0].movedim(-1, 0)
    return _Early(_grid(table, part, shape)[:, 0], gram, reading.relevant)


def _late(
    reading: ChainReading, table: pd.DataFrame, part: str, group: int, shape: tuple[int, int]
) -> RoleValues:
    members = reading.members(reading.decisions[group])
    values = _grid(table.loc[table["group"] == group], part, shape)[group]
    weights = torch.zeros(len(values), dtype=torch.float64)
    weights[0] = 1
    return RoleValues(values, weights, tuple(reading.labels[at].label for at in members))


def _coarse_null(
    chains: Sequence[_Early],
    observed: Float[Tensor, "chain layer head"],
    prompt_ids: Sequence[str],
    part: str,
) -> RoleNull:
    """Which families are relevant is dealt out anew, as many of them; each chain by itself."""
    prompt = prompt_numbers(prompt_ids)
    n_prompts = int(prompt.max()) + 1

    def summed(values: Tensor, axis: int) -> Tensor:
        size = [*values.shape[:axis], n_prompts, *values.shape[axis + 1 :]]
        return torch.zeros(size, dtype=torch.float64).index_add_(axis, prompt, values)

    def draw(count: int, generator: torch.Generator) -> Tensor:
        dealt = []
        for one in chains:
            keys = torch.rand(count, len(one.roles), generator=generator)
            dealt.append(one.of(one.roles[keys.argsort(dim=1)]))
        return summed(torch.stack(dealt, dim=1), 1)

    keep: Callable[[Tensor], Tensor] = lambda mean: mean  # noqa: E731
    events = torch.bincount(prompt).double()
    return RoleNull(summed(observed, 0), events, draw, keep, f"{part} null")
