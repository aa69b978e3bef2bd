"""How much of a readout rests on the first heads of an order: necessity and sufficiency curves.

The clean prompt is run with sets of heads resample-ablated: over the whole span, their `hook_z` is
that of the counterfactual run. One readout per counterfactual, on its valid pairs:

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
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from workbench.analysis.patching.patching import EventCache
from workbench.analysis.readout import Roles, good_readout, widen
from workbench.errors import InputError
from workbench.heads import Head
from workbench.models.forked import patch_heads
from workbench.models.hooked import HookedModel
from workbench.models.prefix import Prefix
from workbench.phases import OF_READOUT
from workbench.prompts.prompt import DecisionEvent, Variant

KINDS = ("necessity", "sufficiency")

Orders = Mapping[str, Mapping[str, Sequence[Head]]]
"""Name of an order → readout → all heads of the model, the first ones first."""

EVENT_COLUMNS = ["target", "readout", "id", "event", "value"]
"""Columns of `curve_event`; `target` counts the sets of the readout."""
CLEAN, ABLATED = 0, 1
"""Targets of the set without heads and of the set of all heads."""
_STEPS = (1, 2, 3, 5, 8, 12)
EVERY_SIZE = 200
"""Models of so many heads get a point for every size."""


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
    """Every size up to `EVERY_SIZE` heads; of more 0, 1, 2, 3, 5, 8, 12, 20, 30, 50, 80, … and all.

    A gap in which a curve jumps counts as a slope: from 30 to 48 of 48 heads it lent 0.19 to orders
    that had nothing before.
    """
    if n_heads <= EVERY_SIZE:
        return list(range(n_heads + 1))
    sizes = {0, *_STEPS, n_heads}
    scale = 10
    while scale < n_heads:
        sizes |= {scale * step for step in (2, 3, 5, 8, 12)}
        scale *= 10
    return sorted(size for size in sizes if size <= n_heads)


def plan_curves(
    model: HookedModel,
    orders: Orders,
    sizes: Sequence[int] | None = None,
    kinds: Sequence[str] = KINDS,
) -> Plan:
    """Every set of heads that the curves need; sets that several orders share are there once.

    A kind is "sufficiency", of which all but the first k heads make the set, or any other word, of
    which the first k do. Sizes 0 and all are added where they are missing: faithfulness is measured
    against them.

    Raises:
        InputError: no order, an unknown readout, an order that does not hold every head of the
            model once, or a size outside the model.
    """
    n_layers, n_heads = model.info.n_layers, model.info.n_heads
    every = tuple((layer, head) for layer in range(n_layers) for head in range(n_heads))
    chosen = check_sizes(sizes, len(every))
    if not any(orders.values()):
        raise InputError("no order of heads to draw curves for")
    sets: dict[str, list[tuple[Head, ...]]] = {}
    rows = []
    for readout in OF_READOUT:
        wanted = {name: by[readout] for name, by in orders.items() if readout in by}
        if not wanted:
            continue
        index: dict[tuple[Head, ...], int] = {(): CLEAN, every: ABLATED}
        for name, order in wanted.items():
            _check_order(name, readout, order, every)
            for kind in kinds:
                for k in chosen:
                    ablated = order[k:] if kind == "sufficiency" else order[:k]
                    target = index.setdefault(tuple(sorted(ablated)), len(index))
                    rows.append((name, kind, readout, k, target))
        sets[readout] = list(index)
    unknown = {readout for by in orders.values() for readout in by} - set(OF_READOUT)
    if unknown:
        raise InputError(f"readout {min(unknown)!r} is not one of {', '.join(OF_READOUT)}")
    points = pd.DataFrame(rows, columns=["order", "kind", "readout", "k", "target"])
    return Plan(sets, points, len(every))


def check_sizes(sizes: Sequence[int] | None, n_heads: int) -> list[int]:
    """Sizes with none and all, the default ones unless given; an `InputError` outside the model."""
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

    `sets` are those of a `Plan`, for the readouts of which this event is a valid pair; a set
    without heads is left out. Without `cache` the three variants are run first.

    Raises:
        InputError: no set to ablate, or a head that the model lacks.
    """
    if not any(group for groups in sets.values() for group in groups):
        raise InputError(f"prompt {event.id!r} event {event.event}: no set of heads to ablate")
    cache = cache or EventCache.of(model, event, ("span",))
    frames = []
    for readout, groups in sets.items():
        targets = [target for target, group in enumerate(groups) if group]
        source = OF_READOUT[readout].counterfactual
        logits = _ablated(model, event, cache, source, [groups[target] for target in targets])
        value = good_readout(widen(logits), Roles.of(event), readout).cpu().double().numpy()
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


def _joined(cache: EventCache, source: Variant) -> Prefix | None:
    """The clean run with all heads ablated: its own keys before the span, then the other run.

    None where they differ in more than the heads' outputs: embeddings of absolute positions.
    """
    clean, other = cache.bases["clean"], cache.bases[source]
    if not (isinstance(clean, Prefix) and isinstance(other, Prefix)):
        return None
    if not torch.equal(clean.residuals[0], other.residuals[0]):
        return None
    return replace(other, tokens=clean.tokens, keys=clean.keys, values=clean.values)


def wanted_sets(plan: Plan, event: DecisionEvent, baseline: pd.DataFrame) -> dict[str, list[Any]]:
    """The plan's sets of those readouts of which an event is a valid pair; empty without any.

    Raises:
        InputError: the event is not in the baseline.
    """
    rows = baseline.loc[(baseline["id"] == event.id) & (baseline["event"] == event.event)]
    if rows.empty:
        raise InputError(f"prompt {event.id!r} event {event.event} is not in the baseline table")
    return {
        readout: list(sets)
        for readout, sets in plan.sets.items()
        if bool(rows[OF_READOUT[readout].valid].iloc[0])
    }
