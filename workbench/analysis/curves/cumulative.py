"""Cumulative curves: the first heads of an ordering patched together, and how far that leads.

Four curves for each ordering, each of one run patched from another:

    Focus      denoising  the far run, patched from clean
               noising    the clean run, patched from far
    Confusion  denoising  the near run, patched from clean
               noising    the clean run, patched from near

Readouts are Focus, and 1 − Confusion = p(gold | its cluster), and their margins in log-odds. A
point of a curve is *explained* by (m(k) − m(0)) / (m(other) − m(0)): m(k) with k heads patched,
m(other) of the run that is patched from. So every curve starts at 0, 1 is all there is, and a
better ordering rises earlier, in either direction. `z` over the whole span ends at 1. Patched
patterns need not: what they leave is in the values, and MLPs stay as they are.

The *area* under a curve is over the share of heads (axis "share", from none to all), or over
log(1 + k) as a share of log(1 + all) (axis "log"), which weighs the first heads more.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import combinations
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from workbench.analysis.curves.faithfulness import Plan
from workbench.analysis.curves.scenes import Scene
from workbench.analysis.readout import MARGINS, good_readout
from workbench.analysis.statistics import Interval, bootstrap, mean_statistic
from workbench.errors import InputError, require
from workbench.phases import BOTH_WAYS, INTERVENTIONS, OF_READOUT, RUNS, Direction

PAPER_SIZES = (3, 8, 16, 40, 100)
"""Heads patched together in the paper, of `PAPER_HEADS` (80 layers of 64)."""
PAPER_HEADS = 5120
SMALL = 200
"""Models of so many heads get every k."""

KEYS = ["place", "intervention", "direction", "readout"]
EVENT_COLUMNS = [*KEYS, "target", "id", "event", "value", "start", "goal"]
EVENT_COLUMNS += ["margin", "margin_start", "margin_goal", "patched", "wanted"]
"""Of `cumulative_event`: `start` is the run as it is, `goal` the run that is patched from; of the
`wanted` positions those that have a counterpart there are `patched`."""
ENDS = ("", "_low", "_high")
CURVES = [*KEYS, "order", "k", "share"]
CURVES += [f"{name}{end}" for name in ("value", "margin") for end in ENDS]
CURVES += [f"{name}{end}" for name in ("explained", "margin_explained") for end in ENDS]
CURVES += ["n"]
AREAS = [*KEYS, "axis", "order"]
AREAS += [f"{name}{end}" for name in ("area", "margin_area") for end in ENDS] + ["n"]
DIFFERENCES = [*KEYS, "axis", "order", "other"]
DIFFERENCES += [f"{name}{end}" for name in ("difference", "margin_difference") for end in ENDS]
DIFFERENCES += ["n"]
RANDOM = "random"


class Cumulative(NamedTuple):
    """The three tables: points, areas, and differences of areas between orderings."""

    curves: pd.DataFrame
    areas: pd.DataFrame
    differences: pd.DataFrame


def cumulative_sizes(n_heads: int) -> list[int]:
    """Every k on small models; else none, all, the paper's numbers, and its shares of all heads."""
    return list(range(n_heads + 1)) if n_heads <= SMALL else paper_sizes(n_heads)


def paper_sizes(n_heads: int) -> list[int]:
    """None, all, the paper's numbers, and its shares of all heads."""
    shares = {max(1, round(n_heads * k / PAPER_HEADS)) for k in PAPER_SIZES}
    return sorted({0, n_heads, *shares, *(k for k in PAPER_SIZES if k < n_heads)})


def cumulative_event(
    scene: Scene,
    plan: Plan,
    interventions: Sequence[str] = INTERVENTIONS,
    directions: Sequence[Direction] = BOTH_WAYS,
) -> pd.DataFrame:
    """The readouts of one event with every set of the plan patched; columns `EVENT_COLUMNS`.

    Only the readouts of which the event is a valid pair; no row without any.
    """
    frames = []
    for readout, phase in OF_READOUT.items():
        if readout not in plan.sets or not scene.valid[phase.name]:
            continue

        def read(logits: Tensor, readout: str = readout) -> tuple[np.ndarray, np.ndarray]:
            probability = good_readout(logits.double(), scene.roles, readout)
            margin = MARGINS[OF_READOUT[readout].readout](logits.double(), scene.roles)
            return probability.numpy(), margin.numpy()

        for direction in directions:
            run = RUNS[getattr(phase, direction)]
            ends = [read(scene.unpatched[name]) for name in run]
            columns: dict[str, Any] = dict(
                zip(("start", "goal"), (float(value) for value, _ in ends), strict=True)
            )
            names = ("margin_start", "margin_goal")
            columns |= dict(zip(names, (float(margin) for _, margin in ends), strict=True))
            columns |= dict(zip(("patched", "wanted"), scene.positions(run), strict=True))
            for intervention in interventions:
                value, margin = read(scene.patched(run, plan.sets[readout], intervention))
                keys = dict(zip(KEYS, (scene.place, intervention, direction, readout), strict=True))
                frame = pd.DataFrame(
                    {"target": range(len(value)), "value": value, "margin": margin}
                )
                frame = frame.assign(id=scene.event.id, event=scene.event.event, **keys, **columns)
                frames.append(frame.reindex(columns=EVENT_COLUMNS))
    return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame(columns=EVENT_COLUMNS)


def cumulative_tables(
    events: pd.DataFrame, plan: Plan, *, n_resamples: int = 2000, seed: int = 0
) -> Cumulative:
    """Curves, areas and their paired differences, with 95 % intervals over prompts.

    Orderings named "random …" become one, "random": the mean of the draws. All orderings and sizes
    see the same resamples of prompts. `n` is the number of valid pairs.

    Raises:
        InputError: columns missing, no row, or a set of the plan that was not run on an event.
    """
    require(events, "cumulative events", EVENT_COLUMNS)
    if events.empty:
        raise InputError("no event is a valid pair, so there is no cumulative curve")
    made: list[list[pd.DataFrame]] = [[], [], []]
    for key, part in events.groupby(KEYS, sort=False):
        assert isinstance(key, tuple)
        keys = dict(zip(KEYS, key, strict=True))
        panel = _Panel(part, plan, str(keys["readout"]), n_resamples, seed)
        found = (panel.curves(), panel.areas(), panel.differences())
        for tables, table in zip(made, found, strict=True):
            tables.append(table.assign(**keys, n=len(panel.ids)))
    columns = (CURVES, AREAS, DIFFERENCES)
    joined = [
        pd.concat(tables, ignore_index=True).reindex(columns=names)
        for tables, names in zip(made, columns, strict=True)
    ]
    return Cumulative(*joined)


class _Panel:
    """One run patched from another: all orderings, on the same resamples."""

    def __init__(
        self, part: pd.DataFrame, plan: Plan, readout: str, n_resamples: int, seed: int
    ) -> None:
        points = plan.points.loc[plan.points["readout"] == readout].drop_duplicates(["order", "k"])
        self.sizes = sorted(points["k"].unique().tolist())
        self.n_heads = plan.n_heads
        wide = part.pivot(index=["id", "event"], columns="target", values=["value", "margin"])
        ends = part.drop_duplicates(["id", "event"]).set_index(["id", "event"]).reindex(wide.index)
        self.ids = [str(name) for name in wide.index.get_level_values("id")]
        by_order = {
            str(order): rows.sort_values("k")["target"].to_list()
            for order, rows in points.groupby("order", sort=False)
        }
        draws = [name for name in by_order if name.startswith(RANDOM)]
        self.orders = [name for name in by_order if name not in draws] + [RANDOM] * bool(draws)
        self.terms: dict[str, list[Float[Tensor, "event order size"]]] = {}
        for name, prefix in (("value", ""), ("margin", "margin_")):
            measures = pd.DataFrame(wide[name])
            columns = measures.reindex(columns=range(len(plan.sets[readout]))).to_numpy(float)
            if np.isnan(columns).any():
                raise InputError("the cumulative events table lacks a set of heads on some event")
            measured = {order: columns[:, targets] for order, targets in by_order.items()}
            if draws:
                measured[RANDOM] = np.mean([measured[draw] for draw in draws], axis=0)
            stacked = torch.from_numpy(np.stack([measured[order] for order in self.orders], axis=1))
            fixed = [
                torch.tensor(ends[f"{prefix}{end}"].to_numpy(float))[:, None, None]
                for end in ("start", "goal")
            ]
            self.terms[name] = [stacked, *(end.expand_as(stacked) for end in fixed)]
        self.resample = partial(
            bootstrap,
            prompt_ids=self.ids,
            n_resamples=n_resamples,
            seed=seed,
            labels=["cumulative"],
        )

    def curves(self) -> pd.DataFrame:
        columns: dict[str, Any] = {}
        for name, terms in self.terms.items():
            explained = "explained" if name == "value" else "margin_explained"
            columns |= _columns(name, self.resample(mean_statistic, terms[0]))
            columns |= _columns(explained, self.resample(_explained, *terms))
        order = np.repeat(self.orders, len(self.sizes))
        k = np.tile(self.sizes, len(self.orders))
        return pd.DataFrame({"order": order, "k": k, "share": k / self.n_heads, **columns})

    def areas(self) -> pd.DataFrame:
        frames = []
        for axis, area in self._axes():
            columns: dict[str, Any] = {"axis": axis, "order": self.orders}
            for name, terms in self.terms.items():
                title = "area" if name == "value" else "margin_area"
                columns |= _columns(title, self.resample(area, *terms))
            frames.append(pd.DataFrame(columns))
        return pd.concat(frames, ignore_index=True)

    def differences(self) -> pd.DataFrame:
        """Area of each ordering less that of every later one."""
        pairs = list(combinations(range(len(self.orders)), 2))
        if not pairs:
            return pd.DataFrame()
        frames = []
        for axis, area in self._axes():
            one, other = ([self.orders[pair[at]] for pair in pairs] for at in (0, 1))
            columns: dict[str, Any] = {"axis": axis, "order": one, "other": other}
            for name, terms in self.terms.items():
                title = "difference" if name == "value" else "margin_difference"
                chosen = [term[:, [pair[at] for pair in pairs]] for at in (0, 1) for term in terms]

                def less(*means: Tensor, area: Callable[..., Tensor] = area) -> Tensor:
                    return area(*means[:3]) - area(*means[3:])

                columns |= _columns(title, self.resample(less, *chosen))
            frames.append(pd.DataFrame(columns))
        return pd.concat(frames, ignore_index=True)

    def _axes(self) -> Iterator[tuple[str, Callable[..., Tensor]]]:
        k = torch.tensor(self.sizes, dtype=torch.float64)
        for axis, at in (("share", k / self.n_heads), ("log", k.log1p() / np.log1p(self.n_heads))):
            yield axis, lambda *means, at=at: torch.trapezoid(_explained(*means), at, dim=-1)


def _explained(measured: Tensor, start: Tensor, goal: Tensor) -> Tensor:
    """(m(k) − m(0)) / (m(other) − m(0)), of means."""
    way = goal - start
    return torch.where(way == 0, torch.nan, (measured - start) / way)


def _columns(name: str, interval: Interval) -> dict[str, np.ndarray]:
    return {f"{name}{end}": x.numpy().ravel() for end, x in zip(ENDS, interval, strict=True)}
