"""Causal effects of heads, from per-event patching results and the unpatched baseline.

Every measure is a mean over a mean, taken over its valid pairs (F Focus, C Confusion):

    coarse_restore    (F_patched − F_far) / (F_clean − F_far)    far run, patched with clean
    coarse_disrupt    (F_clean − F_patched) / F_clean            clean run, patched with far
    refine_reduce     (C_near − C_patched) / C_near              near run, patched with clean
    refine_boost      (C_patched − C_clean) / C_clean            clean run, patched with near
    refine_boost_abs  C_patched − C_clean                        clean run, patched with near
    cluster_restore   (F_patched − F_far) / (F_clean − F_far)    far run, patched with near
    label_swap        p(near label) − p(gold), patched           far run, patched with near

Each stands there again in log-odds, as `<measure>_margin`: the change towards the better over what
the counterfactual takes away. `label_swap_margin` is the change of the near label's log-odds
against gold, over its change from the far to the near run.
`reduce_minus_restore` is refine_reduce − coarse_restore on the same resamples of prompts; other
differences are in `measures.DIFFERENCES`.

Over fewer than `MIN_PROMPTS` prompts there is no interval: its ends are NaN, and no head can be
pooled on it. The same holds of a share of log-odds that the counterfactual hardly moves: their mean
change must lie above `MIN_MOVED`, with its whole interval, or the share is one of nothing.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from workbench.analysis.statistics import Interval, bootstrap, prompt_numbers, ratio_of_means
from workbench.errors import InputError, require
from workbench.measures import DIFFERENCES, MEASURES, PASSING, Measure, margin_name
from workbench.phases import MARGIN, MIN_MOVED, MIN_PROMPTS, OF_READOUT, PHASES

HALVES = ("choose", "verify", "all")


class Terms(NamedTuple):
    """Numerator and denominator of a measure per event and target; both 0 where it does not count.

    A ratio of means then ranges over the valid pairs alone, in every resample of prompts.
    """

    numerator: Float[Tensor, "event target"]
    denominator: Float[Tensor, "event target"]
    counts: Bool[Tensor, "event target"]


def causal_effects(
    events: pd.DataFrame,
    baseline: pd.DataFrame,
    *,
    by: Sequence[str] = ("layer", "head", "group"),
    halves: Sequence[str] = HALVES,
    measures: Mapping[str, Measure] = MEASURES,
    n_resamples: int = 2000,
    seed: int = 0,
) -> pd.DataFrame:
    """Effects with 95 % intervals over prompts, per target × positions × measure × half.

    `events` are rows of `patching_events`, or of `sweep_event` with other columns `by` that name
    what was patched; `baseline` is the baseline table. `n` events counted, `n_excluded` of the
    half did not or were not patched; where none counts the effect is NaN. Of a difference, n is the
    smaller of the two measures' n. Where fewer than `MIN_PROMPTS` prompts have a valid pair, `low`
    and `high` are NaN; the effect stays. Tables without the columns of margins give no margins.

    Raises:
        InputError: columns missing, a half that is unknown, or the same result twice.
    """
    _check(events, baseline, by, halves)
    rows = []
    for half in halves:
        base = baseline if half == "all" else baseline[baseline["half"] == half]
        if base.empty:
            raise InputError(f"the baseline has no event in half {half!r}")
        base = base.pivot(index=["id", "event"], columns="variant")
        for positions, part in events.groupby("positions", sort=True):
            # Same order as the codes of `measure_terms`: both come from sorted groups.
            targets = part.groupby(list(by), sort=True).size().index.to_frame(index=False)
            for measure, interval, counts in _measures(part, base, by, measures, n_resamples, seed):
                n = counts.numpy()
                columns = {"positions": positions, "measure": measure, "half": half}
                columns |= {key: end.numpy() for key, end in interval._asdict().items()}
                rows.append(targets.assign(**columns, n=n, n_excluded=len(base) - n))
    table = pd.concat(rows, ignore_index=True).rename(columns={"estimate": "effect"})
    last = ["group"] if "group" in by else []
    return table.reindex(columns=[name for name in table.columns if name not in last] + last)


def _measures(
    part: pd.DataFrame,
    base: pd.DataFrame,
    by: Sequence[str],
    measures: Mapping[str, Measure],
    n_resamples: int,
    seed: int,
) -> Iterator[tuple[str, Interval, Int[Tensor, " target"]]]:
    """Name, interval and number of valid pairs of every measure, for one half and positions."""
    ids = [str(prompt_id) for prompt_id in base.index.get_level_values("id")]
    terms = {
        name: measure_terms(part, base, measure, by)
        for name, measure in measures.items()
        if measure.value in part and measure.value in base
    }
    intervals = effect_intervals(terms, ids, n_resamples=n_resamples, seed=seed)
    events = {name: one.counts.sum(dim=0) for name, one in terms.items()}
    for name, interval in intervals.items():
        yield name, interval, events[name] if name in events else _least(events, name)


def effect_intervals(
    terms: Mapping[str, Terms], prompt_ids: Sequence[str], *, n_resamples: int = 2000, seed: int = 0
) -> dict[str, Interval]:
    """Effect and 95 % interval over prompts of each measure in `terms`, one value per target.

    With two measures comes their difference, if it is one of `DIFFERENCES`. `prompt_ids` names the
    prompt of each event. The ends are NaN where fewer than `MIN_PROMPTS` prompts count, or where
    the counterfactual moves the margin that is shared out by no more than `MIN_MOVED`.
    """

    def resample(statistic: Callable[..., Tensor], *values: Tensor) -> Interval:
        # One stream for all, so that every head and measure sees the same resamples of prompts.
        return bootstrap(
            statistic,
            *values,
            prompt_ids=prompt_ids,
            n_resamples=n_resamples,
            seed=seed,
            labels=["causal effects"],
        )

    found = {name: resample(ratio_of_means, *one[:2]) for name, one in terms.items()}
    void = {}
    for name, one in terms.items():
        void[name] = _prompts_with_valid_pairs(one.counts, prompt_ids) < MIN_PROMPTS
        if (MEASURES | PASSING)[name].shares_margin:
            moved = resample(ratio_of_means, *_distinct(one.denominator, one.counts.double()))
            void[name] = void[name] | ~(moved.low > MIN_MOVED)
    for name, (of, less) in DIFFERENCES.items():
        if of in terms and less in terms:
            found[name] = resample(difference_of_ratios, *terms[of][:2], *terms[less][:2])
            void[name] = void[of] | void[less]
    for name, interval in found.items():
        ends = (end.masked_fill(void[name], torch.nan) for end in (interval.low, interval.high))
        found[name] = Interval(interval.estimate, *ends)
    return found


def moved_margins(
    baseline: pd.DataFrame, half: str, *, n_resamples: int = 2000, seed: int = 0
) -> list[str]:
    """Phases whose counterfactual moves their margin by more than `MIN_MOVED`, in one half.

    Of the others no share gets an interval in `causal_effects` with the same seed, whatever is
    patched.
    """
    base = baseline[baseline["half"] == half].pivot(index=["id", "event"], columns="variant")
    ids = [str(prompt_id) for prompt_id in base.index.get_level_values("id")]
    found = []
    for name, phase in PHASES.items():
        column = MARGIN[phase.readout]
        valid = torch.tensor(base[phase.valid, "clean"].to_numpy(bool))[:, None]
        lost = base[column, "clean"] - base[column, phase.counterfactual]
        lost = torch.tensor(lost.to_numpy(float))[:, None] * valid
        measure = margin_name(phase.chief)
        terms = {measure: Terms(lost, lost, valid)}
        interval = effect_intervals(terms, ids, n_resamples=n_resamples, seed=seed)[measure]
        if not interval.low.isnan().any():
            found.append(name)
    return found


def _distinct(*values: Float[Tensor, "event target"]) -> list[Float[Tensor, "event column"]]:
    """One column of each, where all targets have the same; most often they do."""
    same = all(bool((array == array[:, :1]).all()) for array in values)
    return [array[:, :1] if same else array for array in values]


def _least(counts: Mapping[str, Int[Tensor, " target"]], name: str) -> Int[Tensor, " target"]:
    """The smaller count of a difference's two measures."""
    of, less = DIFFERENCES[name]
    return torch.minimum(counts[of], counts[less])


def _prompts_with_valid_pairs(
    counts: Bool[Tensor, "event target"], prompt_ids: Sequence[str]
) -> Int[Tensor, " target"]:
    """Number of prompts with at least one valid pair, per target."""
    prompt = prompt_numbers(prompt_ids)
    events = torch.zeros(len(prompt), counts.shape[1], dtype=torch.int64)
    return (events.index_add_(0, prompt, counts.long()) > 0).sum(dim=0)


def difference_of_ratios(
    numerator: Float[Tensor, "*any"],
    denominator: Float[Tensor, "*any"],
    other_numerator: Float[Tensor, "*any"],
    other_denominator: Float[Tensor, "*any"],
) -> Float[Tensor, "*any"]:
    """Mean over mean less another mean over mean, for `bootstrap`."""
    ratio = ratio_of_means(numerator, denominator)
    return ratio - ratio_of_means(other_numerator, other_denominator)


def measure_terms(
    part: pd.DataFrame, base: pd.DataFrame, measure: Measure, by: Sequence[str] = ("layer", "head")
) -> Terms:
    """Terms of one measure: events in the order of `base`, targets in that of sorted groups `by`.

    `part` holds patching results of one choice of positions; `base` the baseline, pivoted to one
    row per (id, event) and columns (value, variant).
    """
    targets = part.groupby(list(by), sort=True).ngroup()
    patched = part.assign(code=targets)[part["run"] == measure.run]
    patched = patched.pivot(index=["id", "event"], columns="code", values=measure.value)
    patched = patched.reindex(index=base.index, columns=range(targets.max() + 1)).to_numpy(float)

    def unpatched(variant: str) -> np.ndarray:
        return base[measure.value, variant].to_numpy(float)[:, None]

    scale = np.ones((len(base), 1))
    if measure.scale:
        scale = unpatched(measure.scale[0]) - sum(unpatched(name) for name in measure.scale[1:])
    counts = ~np.isnan(patched)
    if measure.only_valid_pairs:
        for column in measure.counts:
            counts &= base[column, "clean"].to_numpy(bool)[:, None]
    start = 0.0 if measure.start is None else unpatched(measure.start)
    effect = measure.sign * (patched - start)
    return Terms(
        torch.from_numpy(np.where(counts, effect, 0.0)),
        torch.from_numpy(np.where(counts, scale, 0.0)),
        torch.from_numpy(counts),
    )


def _check(
    events: pd.DataFrame, baseline: pd.DataFrame, by: Sequence[str], halves: Sequence[str]
) -> None:
    key = [*by, "positions", "run", "id", "event"]
    valid = [phase.valid for phase in PHASES.values()]
    for name, table, columns in (
        ("patching results", events, [*key, *OF_READOUT]),
        ("baseline", baseline, ["id", "event", "half", "variant", *valid]),
    ):
        require(table, name, columns)
        if table.empty:
            raise InputError(f"the {name} table is empty")
    if events.duplicated(key).any():
        first = events[events.duplicated(key)].iloc[0]
        raise InputError(
            "the patching results hold the same run twice: "
            + ", ".join(f"{name} {first[name]}" for name in key)
        )
    unknown = [half for half in halves if half not in HALVES]
    if unknown:
        raise InputError(f"half {unknown[0]!r} is not one of {', '.join(HALVES)}")
