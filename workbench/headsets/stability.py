"""Would other prompts have chosen the same heads?

1. `selection_stability`: how often the pooling rule chooses each head when its prompts are
   resampled.
2. `sample_size_curve`: how the pools of fewer prompts compare with those of all.
3. `winners_curse`: how much smaller an effect is on the held-out half.

The first two apply the whole rule of `pool_heads` again and again: permutation p-values of both
scores, false discovery rate over all heads, and intervals of the effects over the prompts at hand.
Scores and patched values of every event are made once, so no model is run.
"""

import math
from collections.abc import Iterator, Sequence
from itertools import compress

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformer_lens.utilities.statistics import derive_generator

from workbench.analysis.patching.effects import Terms, effect_intervals, measure_terms
from workbench.analysis.scores.nulls import RoleNull, null_p, null_q
from workbench.analysis.scores.scores import EventScores, score_nulls
from workbench.analysis.statistics import resample_counts
from workbench.errors import InputError, require
from workbench.headsets.pooling import KEYS, RULE_DIFFERENCES, RULE_MEASURES, HeadId, pool_heads
from workbench.headsets.thresholds import Thresholds
from workbench.measures import MEASURES
from workbench.phases import PHASES
from workbench.roles import HEAD_POOLS, POOL_WORDS

STABILITY_COLUMNS = ["pool", "layer", "head", "share", "n_resamples"]
CURVE_COLUMNS = ["n_prompts", "pool", "overlap", "size", "empty", "n_subsets"]
CURSE_COLUMNS = [*KEYS, "pool", "measure", "effect_choose", "effect_verify"]
CURSE_COLUMNS += ["low_verify", "high_verify", "gap"]

Pools = dict[str, frozenset[HeadId]]


def selection_stability(
    scores: Sequence[EventScores],
    prompt_ids: Sequence[str],
    events: pd.DataFrame,
    baseline: pd.DataFrame,
    *,
    thresholds: Thresholds | None = None,
    passing: pd.DataFrame | None = None,
    n_resamples: int = 200,
    n_permutations: int = 1000,
    n_inner: int = 500,
    seed: int = 0,
) -> pd.DataFrame:
    """Share of bootstrap resamples of the prompts in which the rule would pool each head.

    `scores` and `prompt_ids` are those of the selection half, one per event;
    `events` and `baseline` may hold other prompts too, which are left out. One row per pool and
    head that was chosen at least once, the most often chosen first: pool, layer, head, share (0 to
    1), n_resamples.

    In a resample, `n_permutations` (raised to 20 per head) and `n_inner` resamples for the
    intervals are fewer than the defaults of a run: shares near 0 and 1 do not need them. `passing`
    is as `pool_heads` takes it, the same in every resample. A prompt that is drawn twice keeps one
    shuffle of its roles, but counts as two in the interval, so a share errs on the generous side:
    it says how firm a choice is, it is no p-value.

    Raises:
        InputError: no resamples, a column is missing, or prompts that the baseline lacks.
    """
    chooser = _Chooser(scores, prompt_ids, events, baseline, thresholds, passing)
    n_prompts = len(chooser.prompts)
    _check_least("n_resamples", n_resamples)
    counts = resample_counts(n_prompts, n_resamples, derive_generator(seed, "stability"))
    chosen = list(chooser.pools(counts, n_permutations, n_inner, seed))
    rows = [
        (pool, *head, sum(head in pools[pool] for pools in chosen) / n_resamples, n_resamples)
        for pool in HEAD_POOLS
        for head in sorted(set().union(*(pools[pool] for pools in chosen)))
    ]
    table = pd.DataFrame(rows, columns=STABILITY_COLUMNS)
    return table.sort_values(
        ["pool", "share", *KEYS], ascending=[True, False, True, True], ignore_index=True
    )


def sample_size_curve(
    scores: Sequence[EventScores],
    prompt_ids: Sequence[str],
    events: pd.DataFrame,
    baseline: pd.DataFrame,
    sizes: Sequence[int],
    *,
    thresholds: Thresholds | None = None,
    passing: pd.DataFrame | None = None,
    n_subsets: int = 50,
    n_permutations: int = 1000,
    n_inner: int = 500,
    seed: int = 0,
) -> pd.DataFrame:
    """Pools of random subsets of these prompts, compared with those of all of them.

    One row per size and pool. `overlap`: mean over subsets of the Jaccard index with the pool of
    all prompts (heads in both / heads in either), NaN where that pool is empty; `size`: mean number
    of heads; `empty`: share of subsets that pool no head. Subsets are drawn without replacement,
    and overlap by more the larger they are: at the full size the overlap is 1 whatever the
    prompts. Other arguments as in `selection_stability`.

    Raises:
        InputError: as there, no size, or a size below 1 or above the number of prompts.
    """
    chooser = _Chooser(scores, prompt_ids, events, baseline, thresholds, passing)
    n_prompts = len(chooser.prompts)
    _check_least("n_subsets", n_subsets)
    wrong = [size for size in sizes if not 1 <= size <= n_prompts]
    if wrong or not sizes:
        raise InputError(
            f"sizes {list(sizes)} must be numbers of prompts from 1 to {n_prompts}, at least one"
        )
    every = torch.ones(1, n_prompts, dtype=torch.int64)
    [whole] = chooser.pools(every, n_permutations, n_inner, seed)
    rows = []
    for size in sizes:
        generator = derive_generator(seed, "sample size", size)
        counts = torch.zeros(n_subsets, n_prompts, dtype=torch.int64)
        for row in counts:
            row[torch.randperm(n_prompts, generator=generator)[:size]] = 1
        found = list(chooser.pools(counts, n_permutations, n_inner, seed))
        for pool in HEAD_POOLS:
            heads = [pools[pool] for pools in found]
            rows.append(
                {
                    "n_prompts": size,
                    "pool": pool,
                    "overlap": float(np.mean([_jaccard(some, whole[pool]) for some in heads])),
                    "size": float(np.mean([len(some) for some in heads])),
                    "empty": float(np.mean([not some for some in heads])),
                    "n_subsets": n_subsets,
                }
            )
    return pd.DataFrame(rows, columns=CURVE_COLUMNS)


def winners_curse(patching: pd.DataFrame, pooled: pd.DataFrame) -> pd.DataFrame:
    """Effect of every pooled head over the span, on the selection and the held-out half.

    The measure is that of its pool. Heads are chosen for large effects, so the selection half shows
    them too large. `gap` is effect_choose − effect_verify; `low_verify` and `high_verify` are the
    honest interval. One row per row of `pooled` (the frame of `pool_heads`); a number that
    `patching` lacks is NaN.

    Raises:
        InputError: a table lacks a column.
    """
    require(patching, "patching", [*KEYS, "positions", "measure", "half", "effect", "low", "high"])
    require(pooled, "pooled", [*KEYS, "pool"])
    span = patching[patching["positions"] == "span"]
    told = {name: words.measure for name, words in POOL_WORDS.items()}
    table = pooled[[*KEYS, "pool"]].assign(measure=[told[pool] for pool in pooled["pool"]])
    for half in ("choose", "verify"):
        own = span.loc[span["half"] == half, [*KEYS, "measure", "effect", "low", "high"]]
        own = own.rename(columns={name: f"{name}_{half}" for name in ("effect", "low", "high")})
        table = table.merge(own, on=[*KEYS, "measure"], how="left")
    table["gap"] = table["effect_choose"] - table["effect_verify"]
    return table.reindex(columns=CURSE_COLUMNS)


class _Chooser:
    """The pooling rule over any multiset of the prompts; everything it needs, aligned once."""

    def __init__(
        self,
        scores: Sequence[EventScores],
        prompt_ids: Sequence[str],
        events: pd.DataFrame,
        baseline: pd.DataFrame,
        thresholds: Thresholds | None,
        passing: pd.DataFrame | None,
    ) -> None:
        if len(scores) != len(prompt_ids) or not scores:
            raise InputError(
                f"{len(prompt_ids)} prompt ids for the scores of {len(scores)} events; each event "
                "needs its prompt id, and there must be at least one"
            )
        values = {MEASURES[name].value for name in RULE_MEASURES}
        require(events, "patching results", [*KEYS, "positions", "run", "id", "event", *values])
        valid = [phase.valid for phase in PHASES.values()]
        require(baseline, "baseline", ["id", "event", "variant", *valid, *values])
        self.prompts = list(dict.fromkeys(prompt_ids))
        self.thresholds = thresholds
        self.passing = passing
        self.nulls = score_nulls(scores, prompt_ids)
        n_layers, n_heads = scores[0].output_norm.shape
        self.heads = pd.DataFrame(
            {"layer": np.repeat(range(n_layers), n_heads), "head": [*range(n_heads)] * n_layers}
        )
        self._align(events, baseline)

    def _align(self, events: pd.DataFrame, baseline: pd.DataFrame) -> None:
        """Patched values of the span in rows like those of the baseline, targets in columns."""
        base = baseline[baseline["id"].isin(self.prompts)]
        missing = set(self.prompts) - set(base["id"])
        if missing:
            raise InputError(f"the baseline table has no row of prompt {min(missing)!r}")
        base = base.pivot(index=["id", "event"], columns="variant")
        part = events.loc[(events["positions"] == "span") & events["id"].isin(self.prompts)]
        if part.empty:
            raise InputError("the patching results hold no span patch of the selection half")
        self.targets = part.groupby(KEYS, sort=True).size().index.to_frame(index=False)
        self.terms = {name: measure_terms(part, base, MEASURES[name]) for name in RULE_MEASURES}
        ids = base.index.get_level_values("id")
        self.rows = [torch.from_numpy(np.flatnonzero(ids == name)) for name in self.prompts]

    def pools(
        self, counts: Int[Tensor, "sample prompt"], n_permutations: int, n_inner: int, seed: int
    ) -> Iterator[Pools]:
        """Heads of each pool in every sample, given how often each prompt is in it."""
        _check_least("n_inner", n_inner)
        q = {
            f"{name}_q": _q_values(null, counts.double(), n_permutations, seed)
            for name, null in self.nulls.items()
            if name in PHASES
        }
        for sample, row in enumerate(counts):
            scores = self.heads.assign(**{name: value[sample] for name, value in q.items()})
            patching = self._patching(row, n_inner, seed)
            pooled = pool_heads(scores, patching, self.thresholds, self.passing)
            heads = list(zip(pooled["layer"].tolist(), pooled["head"].tolist(), strict=True))
            yield {name: frozenset(compress(heads, pooled["pool"] == name)) for name in HEAD_POOLS}

    def _patching(self, counts: Int[Tensor, " prompt"], n_inner: int, seed: int) -> pd.DataFrame:
        """Effects of one sample as the rows of a patching table that the rule reads."""
        copies = [(at, copy) for at, n in enumerate(counts.tolist()) for copy in range(n)]
        rows = torch.cat([self.rows[at] for at, _ in copies])
        ids = [f"{at} {copy}" for at, copy in copies for _ in self.rows[at]]
        terms = {name: Terms(*(array[rows] for array in one)) for name, one in self.terms.items()}
        intervals = effect_intervals(terms, ids, n_resamples=n_inner, seed=seed)
        return pd.concat(
            [
                self.targets.assign(
                    positions="span",
                    half="choose",
                    measure=name,
                    effect=intervals[name].estimate.numpy(),
                    low=intervals[name].low.numpy(),
                    high=intervals[name].high.numpy(),
                )
                for name in (*RULE_MEASURES, *RULE_DIFFERENCES)
            ],
            ignore_index=True,
        )


def _q_values(
    null: RoleNull, counts: Float[Tensor, "sample prompt"], n_permutations: int, seed: int
) -> Float[np.ndarray, "sample head"]:
    p = null_p(null, counts, n_permutations=n_permutations, seed=seed)
    return null_q(null, p, counts).flatten(1).numpy()


def _jaccard(heads: frozenset[HeadId], whole: frozenset[HeadId]) -> float:
    return len(heads & whole) / len(heads | whole) if whole else math.nan


def _check_least(name: str, value: int) -> None:
    if value < 1:
        raise InputError(f"{name} is {value}, must be at least 1")
