"""The page of one head, and the lines by which prompts are picked."""

from collections.abc import Mapping
from typing import Any

import pandas as pd

from workbench.analysis.looks.look import Looks
from workbench.heads import Head
from workbench.phases import PHASES
from workbench.plots.head_page import head_page
from workbench.prompts.prompt import PromptSet
from workbench.runs.top_events import top_of

TOP_EVENTS = 8
SHOWN = ("id", "event", "half", *(phase.chief for phase in PHASES.values()), "label_swap")
"""What is said of an event on which a head was patched."""


def titles(prompts: PromptSet, baseline: pd.DataFrame | None) -> list[str]:
    """One line an event: its place, gold, and how the model does on it where that is known."""
    known = {}
    if baseline is not None:
        clean = baseline.loc[baseline["variant"] == "clean"]
        known = {(row["id"], row["event"]): row for row in clean.to_dict("records")}
    lines = []
    for event in prompts:
        gold = event.options[event.with_role("gold")[0]].label
        line = f"{event.id} · {event.event}: {gold}"
        row = known.get((event.id, event.event))
        if row is not None:
            line += f" (Focus {row['focus']:.2f}, Confusion {row['confusion']:.2f})"
        lines.append(line)
    return lines


def page(
    looks: Looks,
    head: Head,
    tables: Mapping[str, pd.DataFrame],
    headset: Mapping[str, Any],
    events: pd.DataFrame | None,
) -> str:
    """HTML of what a head does on an event, and of what the tables know of it; without its text.

    `events`, from `top_events`, lead to their prompts.
    """
    entries = headset.get("heads", [])
    entry = next((one for one in entries if (one["layer"], one["head"]) == head), None)
    return head_page(
        looks.look(head),
        effects=tables.get("patching"),
        events=events,
        paths=tables.get("paths"),
        scores=tables.get("scores"),
        entry=entry,
    )


def top_events(
    tables: Mapping[str, pd.DataFrame], head: Head, places: Mapping[tuple[str, int], int]
) -> pd.DataFrame | None:
    """The events on which patching the head does most; None where it was not patched.

    `places` says where events are among the prompts; those that are not there are left out.
    """
    events, baseline = tables.get("patching_events"), tables.get("baseline")
    if events is None or baseline is None:
        return None
    own = events.loc[(events["layer"] == head[0]) & (events["head"] == head[1])]
    if own.empty:
        return None
    positions = "span" if (own["positions"] == "span").any() else own["positions"].iloc[0]
    found = top_of(own, baseline, head, TOP_EVENTS, positions=positions)
    keys = zip(found["id"], found["event"], strict=True)
    found["prompt"] = [places.get(key, -1) for key in keys]
    found["event"] = found["event"].astype(str)  # a name, no number to round
    return found.loc[found["prompt"] >= 0].filter(["prompt", *SHOWN])
