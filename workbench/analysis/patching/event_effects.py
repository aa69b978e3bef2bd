"""What heads do on single events: the causal measures, one event at a time.

Of one event a measure is its numerator over its denominator (see `effects`), with no interval. It
is NaN where the event is no valid pair for it.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from workbench.analysis.patching.effects import measure_terms
from workbench.analysis.patching.patching import baseline, check_positions, sweep_event
from workbench.analysis.statistics import Halves
from workbench.errors import InputError
from workbench.heads import Head, as_head, head_name
from workbench.measures import MEASURES
from workbench.models.hooked import HookedModel
from workbench.phases import PHASES
from workbench.progress import Reporter
from workbench.prompts.prompt import DecisionEvent, PromptSet, as_event

SHOWN = tuple(name for name, measure in MEASURES.items() if not measure.absolute)
"""Measures of single events; the boost as a difference, since clean Confusion may be near 0."""
KEYS = ["layer", "head", "id", "event"]


def event_effects(events: pd.DataFrame, baseline: pd.DataFrame) -> pd.DataFrame:
    """Effects of heads event by event, from patching results of one choice of positions.

    Columns: layer, head, id, event, then the measures. `events` are rows of `patching_events`,
    `baseline` is the baseline table.
    """
    base = baseline.pivot(index=["id", "event"], columns="variant")
    heads = events.groupby(["layer", "head"], sort=True).size().index.to_frame(index=False)
    measures = {}
    for name in SHOWN:
        measure = MEASURES[name]
        if measure.value in events and measure.value in base:
            terms = measure_terms(events, base, measure)
            with np.errstate(divide="ignore", invalid="ignore"):
                values = (terms.numerator / terms.denominator).numpy()
            measures[name] = np.where(terms.counts.numpy(), values, np.nan).ravel()
    ids = base.index.to_frame(index=False)
    frame: Any = ids.merge(heads, how="cross").assign(**measures)[[*KEYS, *measures]]
    return frame.dropna(how="all", subset=list(measures)).reset_index(drop=True)


def patch_event(
    model: HookedModel,
    event: DecisionEvent,
    heads: Sequence[Head | str] | str = "all",
    *,
    positions: str = "span",
) -> pd.DataFrame:
    """What patching each head does on one event: a row a head, a column a measure.

    Columns: layer, head, then the measures; those of a phase are NaN where the event is no valid
    pair for it. The largest effect on either phase comes first.

    Args:
        model: the model.
        event: the event, with its counterfactuals.
        heads: names such as "3-0", or (layer, head); "3-0,4-6" is a list, too; all unless given.
        positions: where heads are patched: "span" (the aligned suffix) or "decision".

    Raises:
        InputError: the event is a valid pair for no phase, a head the model lacks or that is
            listed twice, or other positions.
    """
    check_positions([positions])
    info = model.info
    every = [(layer, head) for layer in range(info.n_layers) for head in range(info.n_heads)]
    named = heads.split(",") if isinstance(heads, str) else heads
    chosen = every if heads == "all" else [as_head(one) for one in named]
    if twice := [at for at in chosen if chosen.count(at) > 1]:
        raise InputError(f"head {head_name(*twice[0])} is listed twice")
    one = PromptSet("event", (as_event(event),))
    base = baseline(model, one, Halves(frozenset({event.id}), frozenset()))
    _check_valid(event, base)
    with Reporter().between(f"patching {len(chosen)} heads"):
        runs = sweep_event(model, event, [[head] for head in chosen], [positions])
    names = pd.DataFrame(chosen, columns=["layer", "head"])
    table = event_effects(runs.join(names, on="target"), base).drop(columns=["id", "event"])
    chiefs = [phase.chief for phase in PHASES.values()]
    order = table[chiefs].abs().max(axis="columns").sort_values(ascending=False, kind="stable")
    return table.loc[order.index].reset_index(drop=True)


def _check_valid(event: DecisionEvent, base: pd.DataFrame) -> None:
    clean = base.loc[base["variant"] == "clean"].iloc[0]
    if any(clean[phase.valid] for phase in PHASES.values()):
        return
    far, near = (base.loc[base["variant"] == name].iloc[0] for name in ("far", "near"))
    raise InputError(
        f"prompt {event.id!r} event {event.event} is a valid pair for no phase, so no effect is "
        f"defined: clean Focus {clean['focus']:.2f} (0.5 or more), clean Confusion "
        f"{clean['confusion']:.2f} (0.5 or less), Focus far {far['focus']:.2f}, Confusion near "
        f"{near['confusion']:.2f} (each 0.2 off its clean value)"
    )
