"""Faithfulness curves and their areas, with intervals, from the ablated readouts of events.

What the curves and areas are is told in `faithfulness`, which makes the readouts.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from workbench.analysis.curves.faithfulness import ABLATED, CLEAN, Plan
from workbench.analysis.statistics import Interval, bootstrap, mean_statistic
from workbench.errors import InputError
from workbench.phases import OF_READOUT

CURVES = ["order", "kind", "readout", "k", "share", "value", "low", "high"]
CURVES += ["faithfulness", "faithfulness_low", "faithfulness_high", "n"]
"""Columns of the curves: `value` is the mean readout, `low` and `high` the ends of its interval."""
AREAS = ["order", "kind", "readout", "cpr", "cpr_low", "cpr_high", "cmd", "cmd_low", "cmd_high"]
AREAS += ["cpr_minus", "cpr_minus_low", "cpr_minus_high", "minus", "n"]
"""Columns of the areas: `cpr_minus` is the order's cpr less that of the order named in `minus`."""


class Faithfulness(NamedTuple):
    """The two tables, one row per order × kind × readout (× k)."""

    curves: pd.DataFrame
    areas: pd.DataFrame


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
    clean = OF_READOUT[readout].good(clean)
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
