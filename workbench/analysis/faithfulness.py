"""How much of a readout rests on the first heads of an order: necessity and sufficiency curves.

The clean prompt is run with sets of heads resample-ablated: over the whole span, their `hook_z` is
that of the counterfactual run. One readout per counterfactual, on the events that count for it:

    focus      Focus, heads ablated with far
    confusion  1 − Confusion = p(gold | its cluster), heads ablated with near

and two curves per order of all heads:

    necessity    the first k heads are ablated: a good order falls early
    sufficiency  all but the first k are ablated: a good order rises early

Faithfulness of a curve's point is f(k) = (m(k) − m(∅)) / (m(M) − m(∅)), where m(M) is the mean of
the clean run and m(∅) the mean with all heads ablated. Over the share k / n_heads of the model's
heads, by the trapezoidal rule, for sufficiency:

    cpr   area under f (the circuit performance ratio): higher is better
    cmd   area between f and 1 (the circuit-model distance), ∫ |1 − f|: lower is better

These are the definitions of MIB (Mueller et al. 2025, arXiv 2504.13151), with three differences:
the components are heads, not edges; the measure is a probability, not a logit difference; and the
area begins at share 0, where f is 0 by definition, not at 0.1 %. For necessity, MIB has no such
area. Here f(k) is what remains after the first k heads are gone; `cpr` is the area under it and
`cmd` its area from 0, ∫ |f|: both lower is better, and they are equal where f is nowhere negative.
"""

from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from workbench.analysis.patching import RUNS, EventCache
from workbench.analysis.readout import Roles, focus_confusion, widen
from workbench.analysis.statistics import Interval, bootstrap, mean_statistic
from workbench.errors import InputError
from workbench.models.forked import patch_heads
from workbench.models.hooked import Head, HookedModel
from workbench.models.trunk import Trunk
from workbench.prompts.prompt import DecisionEvent, PromptSet, Variant

READOUTS = {
    "focus": ("clean_with_far", "counts_far"),
    "confusion": ("clean_with_near", "counts_near"),
}
"""Readout → the patched run that it is read from, and the baseline column of events that count."""
KINDS = ("necessity", "sufficiency")

Orders = Mapping[str, Mapping[str, Sequence[Head]]]
"""Name of an order → readout → all heads of the model, the first ones first."""

EVENT_COLUMNS = ["target", "readout", "id", "event", "value"]
"""Columns of `curve_event`; `target` counts the sets of the readout."""
CURVES = ["order", "kind", "readout", "k", "share", "value", "low", "high"]
CURVES += ["faithfulness", "faithfulness_low", "faithfulness_high", "n"]
"""Columns of the curves: `value` is the mean readout, `low` and `high` the ends of its interval."""
AREAS = ["order", "kind", "readout", "cpr", "cpr_low", "cpr_high", "cmd", "cmd_low", "cmd_high"]
AREAS += ["cpr_minus", "cpr_minus_low", "cpr_minus_high", "minus", "n"]
"""Columns of the areas: `cpr_minus` is the order's cpr less that of the order named in `minus`."""

CLEAN, ABLATED = 0, 1
"""Targets of the set without heads and of the set of all heads."""
_STEPS = (1, 2, 3, 5, 8, 12)


class Faithfulness(NamedTuple):
    """The two tables, one row per order × kind × readout (× k)."""

    curves: pd.DataFrame
    areas: pd.DataFrame


class Plan(NamedTuple):
    """What is to be run: sets of ablated heads per readout, each once, and what needs which.

    `points` has one row per point of a curve (order, kind, readout, k, target); `target` is the
    index of the heads ablated there in `sets[readout]`. The first set has no heads (the clean run,
    known from the baseline), the second one has all.
    """

    sets: dict[str, list[tuple[Head, ...]]]
    points: pd.DataFrame
    n_heads: int


def default_sizes(n_heads: int) -> list[int]:
    """0, 1, 2, 3, 5, 8, 12, 20, 30, 50, 80, … and all."""
    sizes = {0, *_STEPS, n_heads}
    scale = 10
    while scale < n_heads:
        sizes |= {scale * step for step in (2, 3, 5, 8, 12)}
        scale *= 10
    return sorted(size for size in sizes if size <= n_heads)


def plan_curves(model: HookedModel, orders: Orders, sizes: Sequence[int] | None = None) -> Plan:
    """Every set of heads that the curves need; sets that several orders share are there once.

    Sizes 0 and all are added where they are missing: faithfulness is measured against them.

    Raises:
        InputError: no order, an unknown readout, an order that does not hold every head of the
            model once, or a size outside the model.
    """
    n_layers, n_heads = model.info.n_layers, model.info.n_heads
    every = tuple((layer, head) for layer in range(n_layers) for head in range(n_heads))
    chosen = _check_sizes(sizes, len(every))
    if not any(orders.values()):
        raise InputError("no order of heads to draw curves for")
    sets: dict[str, list[tuple[Head, ...]]] = {}
    rows = []
    for readout in READOUTS:
        wanted = {name: by[readout] for name, by in orders.items() if readout in by}
        if not wanted:
            continue
        index: dict[tuple[Head, ...], int] = {(): CLEAN, every: ABLATED}
        for name, order in wanted.items():
            _check_order(name, readout, order, every)
            for kind in KINDS:
                for k in chosen:
                    ablated = order[:k] if kind == "necessity" else order[k:]
                    target = index.setdefault(tuple(sorted(ablated)), len(index))
                    rows.append((name, kind, readout, k, target))
        sets[readout] = list(index)
    unknown = {readout for by in orders.values() for readout in by} - set(READOUTS)
    if unknown:
        raise InputError(f"readout {min(unknown)!r} is not one of {', '.join(READOUTS)}")
    points = pd.DataFrame(rows, columns=["order", "kind", "readout", "k", "target"])
    return Plan(sets, points, len(every))


def _check_sizes(sizes: Sequence[int] | None, n_heads: int) -> list[int]:
    chosen = default_sizes(n_heads) if sizes is None else sorted({0, n_heads, *sizes})
    wrong = [size for size in chosen if not 0 <= size <= n_heads]
    if wrong:
        raise InputError(f"size {wrong[0]} is outside the model, which has {n_heads} heads in all")
    return chosen


def _check_order(name: str, readout: str, order: Sequence[Head], every: Collection[Head]) -> None:
    if len(order) != len(every) or set(order) != set(every):
        raise InputError(
            f"order {name!r} of readout {readout!r} has {len(order)} heads, {len(set(order))} of "
            f"them different; it must hold each of the model's {len(every)} heads once"
        )


def curve_event(
    model: HookedModel,
    event: DecisionEvent,
    sets: Mapping[str, Sequence[Sequence[Head]]],
    cache: EventCache | None = None,
) -> pd.DataFrame:
    """The readouts of one event with every set of heads ablated; columns `EVENT_COLUMNS`.

    `sets` are those of a `Plan`, for the readouts that this event counts for; a set without heads
    is left out. Without `cache` the three variants are run first.

    Raises:
        InputError: no set to ablate, or a head that the model lacks.
    """
    if not any(group for groups in sets.values() for group in groups):
        raise InputError(f"prompt {event.id!r} event {event.event}: no set of heads to ablate")
    cache = cache or EventCache.of(model, event, ("span",))
    frames = []
    for readout, groups in sets.items():
        targets = [target for target, group in enumerate(groups) if group]
        source = RUNS[READOUTS[readout][0]][1]
        logits = _ablated(model, event, cache, source, [groups[target] for target in targets])
        focus, confusion = focus_confusion(widen(logits), Roles.of(event))
        value = (focus if readout == "focus" else 1 - confusion).cpu().double().numpy()
        columns = {"target": targets, "readout": readout, "id": event.id, "event": event.event}
        frames.append(pd.DataFrame({**columns, "value": value}, columns=EVENT_COLUMNS))
    return pd.concat(frames, ignore_index=True)


def _ablated(
    model: HookedModel,
    event: DecisionEvent,
    cache: EventCache,
    source: Variant,
    groups: Sequence[Sequence[Head]],
) -> Float[Tensor, "group option"]:
    """Option logits of the clean run with each group's heads replaced by those of `source`.

    Below the lowest layer that keeps a head, the span is that of the counterfactual run: such
    groups start from its residual stream, one layer below, and from the clean run's keys before it.
    """
    z, n_layers = cache.source(source, "span"), model.info.n_layers
    bases = {False: cache.bases["clean"], True: _joined(cache, source)}
    keeps = [_lowest_kept(group, n_layers, model.info.n_heads) for group in groups]
    late = [bases[True] is not None and lowest >= 2 for lowest in keeps]
    logits = torch.zeros(len(groups), len(event.options), dtype=torch.float64)
    for joined, base in bases.items():
        rows = [index for index, one in enumerate(late) if one == joined]
        if rows and base is not None:
            parts = [
                [head for head in groups[row] if not joined or head[0] >= keeps[row] - 1]
                for row in rows
            ]
            found = patch_heads(model, base, z, parts, tokens=event.option_tokens)
            logits[rows] = found.to(logits)
    return logits


def _lowest_kept(group: Sequence[Head], n_layers: int, n_heads: int) -> int:
    """The first layer whose heads are not all in the group."""
    ablated = Counter(layer for layer, _ in set(group))
    return next((layer for layer in range(n_layers) if ablated[layer] < n_heads), n_layers)


def _joined(cache: EventCache, source: Variant) -> Trunk | None:
    """The clean run with all heads ablated: its own keys before the span, then the other run.

    None where they differ in more than the heads' outputs: embeddings of absolute positions.
    """
    clean, other = cache.bases["clean"], cache.bases[source]
    if not (isinstance(clean, Trunk) and isinstance(other, Trunk)):
        return None
    if not torch.equal(clean.residuals[0], other.residuals[0]):
        return None
    return replace(other, tokens=clean.tokens, keys=clean.keys, values=clean.values)


def wanted_sets(plan: Plan, event: DecisionEvent, baseline: pd.DataFrame) -> dict[str, list[Any]]:
    """The plan's sets of those readouts that an event counts for; empty where it counts for none.

    Raises:
        InputError: the event is not in the baseline.
    """
    rows = baseline.loc[(baseline["id"] == event.id) & (baseline["event"] == event.event)]
    if rows.empty:
        raise InputError(f"prompt {event.id!r} event {event.event} is not in the baseline table")
    return {
        readout: list(sets)
        for readout, sets in plan.sets.items()
        if bool(rows[READOUTS[readout][1]].iloc[0])
    }


def faithfulness_curves(
    model: HookedModel,
    prompts: PromptSet,
    baseline: pd.DataFrame,
    orders: Orders,
    *,
    sizes: Sequence[int] | None = None,
    halves: Sequence[str] = ("verify",),
    reference: str = "pool",
    n_resamples: int = 2000,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> Faithfulness:
    """Necessity and sufficiency curves of orders of heads, and their areas.

    Only events of the named halves ("choose", "verify", "all") that count for a readout are run.
    `reference` is the order that others are compared with; the first one where it is missing.

    Raises:
        InputError: as `plan_curves`, or no event of these halves counts.
    """
    plan = plan_curves(model, orders, sizes)
    half_of = baseline.drop_duplicates(["id", "event"]).set_index(["id", "event"])["half"]
    jobs = []
    for event in prompts:
        if "all" in halves or half_of.loc[(event.id, event.event)] in halves:
            sets = wanted_sets(plan, event, baseline)
            jobs += [(event, sets)] if sets else []
    if not jobs:
        raise InputError(f"no event in half {' or '.join(halves)} counts for a readout")
    frames = []
    for done, (event, sets) in enumerate(jobs, start=1):
        frames.append(curve_event(model, event, sets))
        if progress is not None:
            progress(done, len(jobs))
    return faithfulness_tables(
        pd.concat(frames, ignore_index=True),
        plan,
        baseline,
        reference=reference,
        n_resamples=n_resamples,
        seed=seed,
    )


def faithfulness_tables(
    events: pd.DataFrame,
    plan: Plan,
    baseline: pd.DataFrame,
    *,
    reference: str = "pool",
    n_resamples: int = 2000,
    seed: int = 0,
) -> Faithfulness:
    """Curves and areas with 95 % intervals over prompts, from the rows of `curve_event`.

    All orders and sizes see the same resamples of prompts, so `cpr_minus` is a paired difference.
    `n` is the number of events. Where the clean mean equals that of all heads ablated, faithfulness
    and areas are NaN.

    Raises:
        InputError: a set of the plan was not run on an event, or an event is not in the baseline.
    """
    curves, areas = [], []
    for readout in plan.sets:
        part = events.loc[events["readout"] == readout]
        if part.empty:
            continue
        values = _event_values(part, plan, baseline, readout)
        points = plan.points.loc[plan.points["readout"] == readout]
        names = points.reindex(columns=["order", "kind"]).drop_duplicates(ignore_index=True)
        sizes = sorted(points["k"].unique().tolist())
        shape = (len(values), len(names), len(sizes))
        measured = torch.from_numpy(values.to_numpy()[:, points["target"].to_numpy()])
        resample = partial(
            bootstrap,
            prompt_ids=[str(name) for name in values.index.get_level_values("id")],
            n_resamples=n_resamples,
            seed=seed,
            labels=["faithfulness"],
        )
        arrays = _Arrays.of(measured.reshape(shape), values, names, reference)
        curves.append(_curves(resample, arrays, names, sizes, plan.n_heads, readout))
        areas.append(_areas(resample, arrays, names, sizes, plan.n_heads, readout))
    if not curves:
        raise InputError("the faithfulness events table is empty")
    return Faithfulness(
        pd.concat(curves, ignore_index=True).reindex(columns=CURVES),
        pd.concat(areas, ignore_index=True).reindex(columns=AREAS),
    )


def _event_values(
    part: pd.DataFrame, plan: Plan, baseline: pd.DataFrame, readout: str
) -> pd.DataFrame:
    """One row per event, one column per set of the plan; the clean run is that of the baseline."""
    if part.duplicated(["target", "id", "event"]).any():
        raise InputError(f"the faithfulness events table holds a set of {readout!r} twice")
    values = part.pivot(index=["id", "event"], columns="target", values="value")
    clean = baseline[baseline["variant"] == "clean"].set_index(["id", "event"])[readout]
    clean = clean if readout == "focus" else 1 - clean
    values = values.reindex(columns=range(len(plan.sets[readout])))
    values[CLEAN] = clean.reindex(values.index)
    if values.isna().to_numpy().any():
        raise InputError(
            f"the faithfulness events table lacks a set of {readout!r} on some event, or the "
            "baseline lacks the event; run the missing events first"
        )
    return values


class _Arrays(NamedTuple):
    """What the bootstrap resamples, all of one shape."""

    measured: Float[Tensor, "event curve size"]
    nothing: Float[Tensor, "event curve size"]
    clean: Float[Tensor, "event curve size"]
    other: Float[Tensor, "event curve size"]
    reference: str

    @classmethod
    def of(
        cls, measured: Tensor, values: pd.DataFrame, names: pd.DataFrame, reference: str
    ) -> "_Arrays":
        def for_each(column: int) -> Tensor:
            one = torch.tensor(values[column].to_numpy(float))
            return one[:, None, None].expand_as(measured)

        if reference not in set(names["order"]):
            reference = str(names["order"].iloc[0])
        keys = list(zip(names["order"], names["kind"], strict=True))
        other = measured[:, [keys.index((reference, kind)) for _, kind in keys]]
        return cls(measured, for_each(ABLATED), for_each(CLEAN), other, reference)


def _faithfulness(measured: Tensor, nothing: Tensor, clean: Tensor) -> Tensor:
    """(m(k) − m(∅)) / (m(M) − m(∅)), of means."""
    scale = clean - nothing
    return torch.where(scale == 0, torch.nan, (measured - nothing) / scale)


def _curves(
    resample: Callable[..., Interval],
    arrays: _Arrays,
    names: pd.DataFrame,
    sizes: Sequence[int],
    n_heads: int,
    readout: str,
) -> pd.DataFrame:
    value = resample(mean_statistic, arrays.measured)
    faithful = resample(_faithfulness, *arrays[:3])
    columns = {"value": value.estimate, "low": value.low, "high": value.high}
    columns |= {"faithfulness": faithful.estimate}
    columns |= {"faithfulness_low": faithful.low, "faithfulness_high": faithful.high}
    table = names.loc[names.index.repeat(len(sizes))].reset_index(drop=True)
    k = np.tile(np.array(sizes), len(names))
    flat = {name: array.numpy().ravel() for name, array in columns.items()}
    return table.assign(readout=readout, k=k, share=k / n_heads, n=len(arrays.clean), **flat)


def _areas(
    resample: Callable[..., Interval],
    arrays: _Arrays,
    names: pd.DataFrame,
    sizes: Sequence[int],
    n_heads: int,
    readout: str,
) -> pd.DataFrame:
    share = torch.tensor(sizes, dtype=torch.float64) / n_heads
    # What a perfect order has: everything that it keeps suffices, nothing is left without it.
    ideal = torch.tensor([kind == "sufficiency" for kind in names["kind"]]).double()[:, None]

    def area(f: Tensor) -> Tensor:
        return torch.trapezoid(f, share, dim=-1)

    def ratio(measured: Tensor, nothing: Tensor, clean: Tensor) -> Tensor:
        return area(_faithfulness(measured, nothing, clean))

    def distance(measured: Tensor, nothing: Tensor, clean: Tensor, target: Tensor) -> Tensor:
        return area((target - _faithfulness(measured, nothing, clean)).abs())

    def difference(measured: Tensor, nothing: Tensor, clean: Tensor, other: Tensor) -> Tensor:
        return ratio(measured, nothing, clean) - ratio(other, nothing, clean)

    found = {
        "cpr": resample(ratio, *arrays[:3]),
        "cmd": resample(distance, *arrays[:3], ideal.expand_as(arrays.clean)),
        "cpr_minus": resample(difference, *arrays[:4]),
    }
    columns: dict[str, np.ndarray] = {}
    for name, interval in found.items():
        columns |= {name: interval.estimate.numpy()}
        columns |= {f"{name}_low": interval.low.numpy(), f"{name}_high": interval.high.numpy()}
    return names.assign(readout=readout, minus=arrays.reference, n=len(arrays.clean), **columns)
