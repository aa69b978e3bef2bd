"""For which events of a run a head matters."""

from pathlib import Path

import numpy as np
import pandas as pd

from workbench.analysis.patching.event_effects import event_effects
from workbench.errors import InputError
from workbench.heads import Head, as_head, head_name
from workbench.measures import MEASURES
from workbench.phases import PHASES
from workbench.runs.folder import RunFolder
from workbench.runs.pipeline import FoundHeads
from workbench.runs.session import OpenRun


def top_events(
    run: str | Path | OpenRun | FoundHeads,
    head: Head | str,
    n: int = 5,
    *,
    measure: str | None = None,
    positions: str = "span",
) -> pd.DataFrame:
    """The events on which patching a head does most, the largest effect first.

    Columns: id, event, half, the measure, and the other measures. An event that is no valid pair
    for a measure has none; noising is measured on the held-out half alone.

    Args:
        run: a run folder, an open run, or what `find_heads` returned.
        head: "3-0" or (3, 0).
        n: how many events.
        measure: which measure decides, as in the table of effects; unless given, the chief one of
            the phase on which the head has the larger effect.
        positions: where the head was patched: "span" or "decision".

    Raises:
        InputError: the run has no such patched head, or the measure is unknown.
    """
    events, baseline = (_table(run, name) for name in ("patching_events", "baseline"))
    return top_of(events, baseline, as_head(head), n, measure=measure, positions=positions)


def top_of(
    events: pd.DataFrame,
    baseline: pd.DataFrame,
    head: Head,
    n: int,
    *,
    measure: str | None = None,
    positions: str = "span",
) -> pd.DataFrame:
    """`top_events` from the tables of a run."""
    own = events.loc[(events["layer"] == head[0]) & (events["head"] == head[1])]
    own = own.loc[own["positions"] == positions]
    if own.empty:
        names = events[["layer", "head"]].drop_duplicates().itertuples(index=False)
        there = ", ".join(sorted(head_name(*one) for one in names)) or "none"
        raise InputError(
            f"head {head_name(*head)} was not patched at positions {positions!r} in this run; "
            f"patched heads: {there}"
        )
    effects = event_effects(own, baseline)
    measures = [name for name in effects.columns if name in MEASURES]
    chiefs = [phase.chief for phase in PHASES.values() if phase.chief in measures]
    if measure is None:
        measure = max(chiefs, key=lambda name: abs(effects[name].fillna(0).mean()))
    if measure not in measures:
        raise InputError(f"measure {measure!r} is not one of {', '.join(measures)}")
    halves = baseline.drop_duplicates(["id", "event"])[["id", "event", "half"]]
    effects = effects.merge(halves, on=["id", "event"], how="left")
    ranked = effects.dropna(subset=[measure])
    order = np.argsort(-ranked[measure].abs().to_numpy(float), kind="stable")
    ranked = ranked.iloc[order]
    columns = ["id", "event", "half", measure, *(name for name in measures if name != measure)]
    return ranked[columns].head(n).reset_index(drop=True)


def _table(run: str | Path | OpenRun | FoundHeads, name: str) -> pd.DataFrame:
    if isinstance(run, FoundHeads):
        return getattr(run, name)
    return (
        run.read(name) if isinstance(run, OpenRun) else RunFolder.open(Path(run)).read_table(name)
    )
