"""Orders of all heads of a model, for faithfulness curves: the pools' own and those of rivals.

Every order is made on the selection half alone, and most differ by readout (Focus, and 1 −
Confusion; see `faithfulness`):

    pool         the pooled heads by their causal effect, then the others by their score
    effect       the same with every patched head in front, pooled or not
    score        CoarseScore; RefineScore
    attribution  size of the first-order effect on the coarse and on the near-miss log-odds, as
                 attribution patching ranks
    output_norm  how much the head writes at the decision
    …            those of other authors, by their names in `RIVALS`
    random 1, …  seeded draws

The causal effect is `coarse_restore` or `refine_reduce` over the span. Ties go to the lower layer,
then the lower head; heads without a value come last.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor
from transformer_lens.utilities.statistics import derive_generator

from workbench.analysis.curves.filter_heads import filter_scores
from workbench.analysis.curves.qr_heads import qr_scores
from workbench.analysis.curves.retrieval_heads import retrieval_scores
from workbench.errors import InputError, require
from workbench.heads import Head
from workbench.models.hooked import HookedModel
from workbench.phases import OF_READOUT, PHASES
from workbench.processes import Spread, in_order
from workbench.prompts.prompt import DecisionEvent, PromptSet

FEW = 16
"""Events for rankings that cost much."""

COLUMNS = ["name", "readout", "layer", "head", "value", "rank"]
"""Columns of the order scores: `rank` 0 is the first head of the order `name` for that readout."""

ATTRIBUTIONS = {"focus": "coarse_attribution_far", "confusion": "refine"}
"""Columns of the scores table, the gradient that of the counterfactual run. RefineScore is itself
such an estimate: only signs differ."""


def read_orders(table: pd.DataFrame) -> dict[str, dict[str, list[Head]]]:
    """Name of an order → readout → all heads, of a table of `order_scores`.

    Orders come in order of first appearance.
    """
    orders: dict[str, dict[str, list[Head]]] = {}
    ranked = table.sort_values("rank", kind="stable")
    for name, readout in table[["name", "readout"]].drop_duplicates().itertuples(index=False):
        part = ranked[(ranked["name"] == name) & (ranked["readout"] == readout)]
        heads = list(zip(part["layer"].tolist(), part["head"].tolist(), strict=True))
        orders.setdefault(name, {})[readout] = heads
    return orders


def rank_heads(table: pd.DataFrame, column: str) -> list[Head]:
    """Heads of a table with a row per layer and head, by falling value of a column.

    Ties go to the lower layer, then the lower head; heads without a value come last.

    Raises:
        InputError: a column is missing, or a head has two rows.
    """
    require(table, "scores", ["layer", "head", column])
    if table.duplicated(["layer", "head"]).any():
        raise InputError("scores table has two rows of one head; give one half, or one measure")
    ordered = table.sort_values(["layer", "head"]).sort_values(
        column, ascending=False, kind="stable", na_position="last"
    )
    return list(zip(ordered["layer"].tolist(), ordered["head"].tolist(), strict=True))


def order_scores(
    model: HookedModel,
    prompts: PromptSet,
    baseline: pd.DataFrame,
    scores: pd.DataFrame,
    patching: pd.DataFrame,
    pooled: Sequence[Head],
    *,
    n_random: int = 2,
    n_events: int = FEW,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
    say: Callable[[str], None] | None = None,
    spread: Spread = in_order,
) -> pd.DataFrame:
    """What every order ranks heads by; one row per order, readout and head, columns `COLUMNS`.

    `scores` is the scores table, made on the selection half; `pooled` the heads of all pools. Of
    `patching` the rows of that half over the span are used, of `prompts` its valid pairs; rivals
    that cost much get the first `n_events` of them. In the orders `pool` and `effect`, the
    value of a head in front is its causal effect, that of another its score. Several processes
    `spread` the events of rivals.

    Raises:
        InputError: a table lacks a column or a head, a pooled head has no causal effect, or no
            event of the selection half is a valid pair.
    """
    every = _every_head(model)
    _check_tables(scores, patching, every)
    for head in pooled:
        model.check_head(*head)
    events = _valid_pairs(prompts, baseline)
    rivals = rival_scores(
        model, events, n_events=n_events, progress=progress, say=say, spread=spread
    )
    indexed = scores.set_index(["layer", "head"]).reindex(every)
    frames = []
    for readout, phase in OF_READOUT.items():
        score = indexed[phase.name].to_numpy(float)
        effect = _effects(patching, phase.chief, every)
        front = np.array([head in set(pooled) for head in every])
        if np.isnan(effect[front]).any():
            raise InputError(
                f"patching table has no {phase.chief!r} over the span, in half 'choose', for "
                "some pooled head"
            )
        measured = ~np.isnan(effect)
        values: dict[str, tuple[np.ndarray, np.ndarray]] = {
            "pool": (np.where(front, effect, score), front),
            "effect": (np.where(measured, effect, score), measured),
        }
        single = {
            "score": score,
            "attribution": np.abs(indexed[ATTRIBUTIONS[readout]].to_numpy(float)),
            "output_norm": indexed["output_norm"].to_numpy(float),
        }
        single |= {
            name: by[readout].numpy().ravel() for name, by in rivals.items() if readout in by
        }
        if np.isnan(single["output_norm"]).any():  # not known in this model
            del single["output_norm"]
        for draw in range(1, n_random + 1):
            # The same draw for every readout.
            generator = derive_generator(seed, "order", draw)
            single[f"random {draw}"] = torch.rand(len(every), generator=generator).numpy()
        values |= {name: (value, np.ones(len(every), bool)) for name, value in single.items()}
        frames += [_ranked(name, readout, every, *pair) for name, pair in values.items()]
    return pd.concat(frames, ignore_index=True)


def _every_head(model: HookedModel) -> list[Head]:
    info = model.info
    return [(layer, head) for layer in range(info.n_layers) for head in range(info.n_heads)]


def _check_tables(scores: pd.DataFrame, patching: pd.DataFrame, every: Sequence[Head]) -> None:
    needed = ["layer", "head", "output_norm", *PHASES, *ATTRIBUTIONS.values()]
    effects = ["layer", "head", "positions", "measure", "half", "effect"]
    require(scores, "scores", needed)
    require(patching, "patching", effects)
    heads = list(zip(scores["layer"].tolist(), scores["head"].tolist(), strict=True))
    if sorted(heads) != list(every):
        raise InputError(
            f"scores table has {len(heads)} rows; it must have one for each of the model's "
            f"{len(every)} heads"
        )


def _valid_pairs(prompts: PromptSet, baseline: pd.DataFrame) -> dict[str, list[DecisionEvent]]:
    """Valid pairs of the selection half, by readout."""
    rows = baseline[(baseline["half"] == "choose") & (baseline["variant"] == "clean")]
    events: dict[str, list[DecisionEvent]] = {}
    for readout, phase in OF_READOUT.items():
        counting = rows[rows[phase.valid].astype(bool)]
        keys = set(zip(counting["id"], counting["event"], strict=True))
        events[readout] = [event for event in prompts if (event.id, event.event) in keys]
    if not any(events.values()):
        raise InputError("no event of the selection half is a valid pair; heads cannot be ordered")
    return events


class Rival(NamedTuple):
    """A ranking of heads by other authors.

    Attributes:
        scores: value of every head; takes the model, events, a readout, `progress` and `spread`.
        by_readout: whether the value differs by readout; otherwise it is made once, of all events.
        few: whether the first events are enough, as each costs many forwards.
    """

    scores: Callable[..., Float[Tensor, "layer head"]]
    by_readout: bool = True
    few: bool = False


def rival_scores(
    model: HookedModel,
    events: Mapping[str, Sequence[DecisionEvent]],
    *,
    n_events: int = FEW,
    progress: Callable[[int, int], None] | None = None,
    say: Callable[[str], None] | None = None,
    settings: Mapping[str, Mapping[str, Any]] | None = None,
    spread: Spread = in_order,
) -> dict[str, dict[str, Float[Tensor, "layer head"]]]:
    """Name of a ranking of `RIVALS` → readout → value of every head, the highest first.

    `events` are valid pairs by readout; a readout without any has no ranking that differs by it.
    Rankings that cost much get the first `n_events`. One whose definition the model or the prompts
    do not allow is left out; `say` is told which, and why. `settings` are more arguments of some.
    Several processes `spread` the events.
    """
    jobs: list[tuple[str, str | None, list[DecisionEvent]]] = []
    for name, rival in RIVALS.items():
        wanted = events if rival.by_readout else {None: _distinct(events)}
        for readout, of in wanted.items():
            jobs.append((name, readout, list(of[:n_events] if rival.few else of)))
    whole = sum(len(of) for *_, of in jobs)
    before = 0
    found: dict[str, dict[str, Tensor]] = {}
    for name, readout, of in jobs:
        if of:
            share = _part(progress, before, len(of), whole)
            before += len(of)
            given = (settings or {}).get(name, {})
            try:
                more = {"progress": share, "spread": spread, **given}
                value = RIVALS[name].scores(model, of, readout, **more)
            except InputError as error:
                if say is not None:
                    say(f"ranking {name} left out: {error}")
                continue
            readouts = [*events] if readout is None else [readout]
            found.setdefault(name, {}).update(dict.fromkeys(readouts, value))
    return found


def _part(
    progress: Callable[[int, int], None] | None, before: int, share: int, whole: int
) -> Callable[[int, int], None] | None:
    """Progress of one loop, as its share of several."""
    if progress is None:
        return None
    return lambda done, total: progress(before + round(share * done / total), whole)


def _distinct(events: Mapping[str, Sequence[DecisionEvent]]) -> list[DecisionEvent]:
    return list({(e.id, e.event): e for of in events.values() for e in of}.values())


def _effects(patching: pd.DataFrame, measure: str, every: Sequence[Head]) -> np.ndarray:
    """A causal effect of each head on the selection half; NaN where it was not patched."""
    rows = patching[
        (patching["half"] == "choose")
        & (patching["positions"] == "span")
        & (patching["measure"] == measure)
    ]
    return rows.set_index(["layer", "head"])["effect"].reindex(every).to_numpy(float)


def _ranked(
    name: str, readout: str, every: Sequence[Head], value: np.ndarray, front: np.ndarray
) -> pd.DataFrame:
    """Heads in front before the others, both by falling value."""
    order = np.lexsort((-value, ~front))  # stable, and NaN sorts last
    rank = np.empty(len(order), dtype=int)
    rank[order] = np.arange(len(order))
    layers, heads = zip(*every, strict=True)
    columns = {"layer": layers, "head": heads, "value": value, "rank": rank}
    return pd.DataFrame(columns).assign(name=name, readout=readout).reindex(columns=COLUMNS)


def _retrieval(model: HookedModel, events: Sequence[DecisionEvent], _: Any, **more: Any) -> Tensor:
    return retrieval_scores(model, events, **more)


RIVALS: dict[str, Rival] = {
    "filter_head": Rival(filter_scores, few=True),
    "qr_head": Rival(qr_scores),
    "retrieval_head": Rival(_retrieval, by_readout=False, few=True),
}
"""Rankings of other authors by name, for faithfulness and cumulative curves; add to it."""
