"""Rows of single events that are kept, so that what was patched once is not patched again.

A row is known by what was patched (`name`: "2-1", of a set "2-1 2-3", of a path "2-1 > 4-6 q"),
where, in which run, and on which event. No setting of a summary decides what it holds: more
resamples, another rule of pooling, more heads or more prompts take the rows that are there.
"""

from collections.abc import Callable, Collection, Iterator, Mapping, MutableMapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from workbench.analysis.patching.patching import sweep_event
from workbench.heads import Head, head_name
from workbench.models.hooked import HookedModel
from workbench.processes import Alone
from workbench.progress import Advance
from workbench.prompts.prompt import DecisionEvent

KEYS = ["name", "positions", "run"]

Make = Callable[[DecisionEvent, list[int], list[str]], pd.DataFrame]
"""(event, which of the names, positions) → rows whose `target` counts from 0 among these."""


@dataclass(frozen=True)
class Swept:
    """Rows of all events: those asked for, by `target`, and those to keep, by `name`."""

    asked: pd.DataFrame
    kept: pd.DataFrame


def sweep_rows(
    events: Sequence[DecisionEvent],
    names: Sequence[str],
    positions: Sequence[str],
    runs_of: Callable[[DecisionEvent], Collection[str]],
    make: Make,
    *,
    before: pd.DataFrame,
    parts: MutableMapping[int | str, pd.DataFrame],
    advance: Advance,
    together: Alone = Alone(),  # noqa: B008  (nothing of it changes)
    everywhere: bool = False,
) -> Swept:
    """Rows of every event, name, place and run; those in `before` and `parts` are not made again.

    Args:
        events: what is patched, in order.
        names: of what is patched, each once.
        positions: where.
        runs_of: names of the patched runs that an event is wanted in.
        make: patches some of the names on one event.
        before: rows that an earlier sweep kept, with `KEYS`, id and event.
        parts: takes each event's new rows by its number, as soon as they are made.
        advance: called with events done and all events.
        together: the processes that share the events.
        everywhere: whether all of them need the rows, as in `Spread`.
    """
    there = _by_event(before)

    def known(event: DecisionEvent) -> list[pd.DataFrame]:
        return [there[event.id, event.event]] if (event.id, event.event) in there else []

    def fill(number: int) -> bool:
        event = events[number]
        own = parts.get(number, pd.DataFrame())
        own = own if _is_of(own, event) else pd.DataFrame()
        have = [*known(event), *([own] if len(own) else [])]
        for places, missing in _missing(have, names, positions, list(runs_of(event))):
            made = make(event, missing, places)
            made = made.assign(name=[names[missing[at]] for at in made["target"]])
            own = pd.concat([own, made.drop(columns="target")], ignore_index=True)
            together.check()
            parts[number] = own
        return len(own) > 0

    filled = fill_parts(fill, len(events), parts, advance, together=together, everywhere=everywhere)
    frames = []
    for number, event in enumerate(events):
        rows = [*known(event), *([parts[number]] if filled[number] else [])]
        frames += [pd.concat(rows, ignore_index=True).assign(number=number)] if rows else []
    kept = pd.concat(frames, ignore_index=True) if frames else pd.DataFrame()
    return Swept(_asked(kept, events, names, positions, runs_of), _kept(kept, before, events))


def fill_parts(
    fill: Callable[[int], bool],
    count: int,
    parts: MutableMapping[int | str, pd.DataFrame],
    advance: Advance,
    *,
    together: Alone,
    everywhere: bool = False,
) -> list[bool]:
    """Fill the parts of so many events, each process its own; says which there are afterwards.

    `fill` puts what it makes of an event into `parts` by its number, and says whether there is any.
    """

    def own(numbers: Sequence[int]) -> Iterator[bool]:
        return (fill(number) for number in numbers)

    filled = together.spread(own, range(count), advance, everywhere=everywhere)
    wanted = [number for number, there in enumerate(filled) if there]
    # A file system of a network shows a while later what another machine has written.
    together.wait(lambda: all(number in parts for number in wanted), "what others have written")
    return filled


def sweep_sets(
    model: HookedModel,
    events: Sequence[DecisionEvent],
    groups: Sequence[Sequence[Head]],
    positions: Sequence[str],
    runs_of: Callable[[DecisionEvent], Collection[str]],
    **given: Any,
) -> Swept:
    """Rows of every event and set of heads, each patched as one; other arguments as there.

    Two groups of the same heads are patched once, and both have rows.
    """

    sets = [tuple(sorted(group)) for group in groups]
    once = list(dict.fromkeys(sets))

    def patched(event: DecisionEvent, which: list[int], places: list[str]) -> pd.DataFrame:
        chosen = [once[at] for at in which]
        return sweep_event(model, event, chosen, places, runs=runs_of(event))

    names = [" ".join(head_name(*at) for at in one) for one in once]
    swept = sweep_rows(events, names, positions, runs_of, patched, **given)
    targets = pd.DataFrame(
        [(once.index(one), at) for at, one in enumerate(sets)], columns=["target", "asked"]
    )
    asked = swept.asked.merge(targets, on="target").drop(columns="target")
    return Swept(asked.rename(columns={"asked": "target"}), swept.kept)


def _by_event(rows: pd.DataFrame) -> Mapping[tuple[str, int], pd.DataFrame]:
    if rows.empty:
        return {}
    return {(str(key[0]), int(key[1])): part for key, part in rows.groupby(["id", "event"])}  # type: ignore[index]


def _is_of(rows: pd.DataFrame, event: DecisionEvent) -> bool:
    """Whether a part is that of this event: other prompts may have been counted before."""
    named = rows.empty or not {*KEYS, "id", "event"} <= set(rows.columns)
    return not named and (rows["id"].iloc[0], int(rows["event"].iloc[0])) == (event.id, event.event)


def _missing(
    known: Sequence[pd.DataFrame],
    names: Sequence[str],
    positions: Sequence[str],
    runs: Sequence[str],
) -> Iterator[tuple[list[str], list[int]]]:
    """Places with the names to patch there; places that lack the same are taken together."""
    have: dict[tuple[str, str], set[str]] = {}
    for rows in known:
        for key, part in rows.groupby(["positions", "run"])["name"]:
            have.setdefault(key, set()).update(part)  # type: ignore[arg-type]  # both are texts
    lacking: dict[tuple[int, ...], list[str]] = {}
    for place in positions:
        done = [have.get((place, run), set()) for run in runs]
        missing = tuple(at for at, name in enumerate(names) if any(name not in x for x in done))
        if missing:
            lacking.setdefault(missing, []).append(place)
    for missing, places in lacking.items():
        yield places, list(missing)


def _asked(
    rows: pd.DataFrame,
    events: Sequence[DecisionEvent],
    names: Sequence[str],
    positions: Sequence[str],
    runs_of: Callable[[DecisionEvent], Collection[str]],
) -> pd.DataFrame:
    """Rows that were asked for, once each, in the order of events, positions, runs and names."""
    if rows.empty:
        return rows
    order = {
        "target": {name: at for at, name in enumerate(names)},
        "place": {name: at for at, name in enumerate(positions)},
        "at_run": {
            (number, run): at
            for number, event in enumerate(events)
            for at, run in enumerate(runs_of(event))
        },
    }
    runs = list(zip(rows["number"], rows["run"], strict=True))
    rows = rows.assign(
        target=rows["name"].map(order["target"]),
        place=rows["positions"].map(order["place"]),
        at_run=[order["at_run"].get(key) for key in runs],
    )
    by = ["number", "place", "at_run", "target"]
    rows = pd.DataFrame(rows.dropna(subset=by).drop_duplicates(by))
    rows = rows.astype(dict.fromkeys(by, "int64"))
    return rows.sort_values(by, ignore_index=True).drop(columns=["number", "place", "at_run"])


def _kept(
    rows: pd.DataFrame, before: pd.DataFrame, events: Sequence[DecisionEvent]
) -> pd.DataFrame:
    """All rows there are, also of events that are not asked for now."""
    if len(before):
        now = {(event.id, event.event) for event in events}
        others = [key not in now for key in zip(before["id"], before["event"], strict=True)]
        rows = pd.concat([rows, before.loc[others]], ignore_index=True)
    return rows.drop(columns="number", errors="ignore")
