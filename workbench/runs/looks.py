"""The step behind the head pages of the report: what pooled and nominated heads do on events.

One clean run of every valid pair of the held-out half (of all events where it has none). Tables:

    looks        layer, head, what, source, target, mean, q25, q75, n, half: over events, with
                 quartiles; "attention" is the mean mass from a region of the prompt to another,
                 "logit" what the head adds straight to the logits of options, mean over a role's
    look_events  layer, head, id, event, line (of the prompt file, from 1), chosen (the measure that
                 decides), then measures: the events on which the head does most
    look_rows    layer, head, id, event, query, position, weight: where the decision looks on the
                 first of these, and on the very first where the gold option's last token does

Numbers only: no text, no token of a prompt, no label.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from workbench.analysis.looks.look import Looks
from workbench.errors import InputError
from workbench.heads import Head, head_name
from workbench.headsets.headset import HeadSet
from workbench.phases import valid_pairs
from workbench.prompts.prompt import DecisionEvent
from workbench.runs.patch import heads_of, nominate
from workbench.runs.rows import fill_parts
from workbench.runs.steps import HEADSET, Made
from workbench.runs.subject import Parts, Subject, Tables
from workbench.runs.top_events import top_of

MOST_HEADS, NOMINATED = 48, 12
"""Pages; where all heads are patched, those that each score would have nominated count."""
TOP_EVENTS, TEXT_EVENTS, LEAST_WEIGHT = 5, 3, 0.004
"""Events on a page; those whose attention is kept; the least weight of a token that is."""
SOURCES = ("decision", "evidence", "gold", "near", "far")
MEASURES = ("coarse_restore", "coarse_disrupt", "refine_reduce", "refine_boost_abs", "label_swap")

LOOKS = ["layer", "head", "what", "source", "target", "mean", "q25", "q75", "n", "half"]
EVENTS = ["layer", "head", "id", "event", "line", "chosen", *MEASURES]
ROWS = ["layer", "head", "id", "event", "query", "position", "weight"]
_KEYS = ["layer", "head", "id", "event"]
_LONG = [*_KEYS, "what", "source", "target", "value"]


def looks(subject: Subject, tables: Tables, parts: Parts) -> Made:
    """What heads with a page do on the events, by one clean run of each."""
    baseline = tables["baseline"]
    held_out = valid_pairs(subject.held_out, baseline)
    events = held_out or valid_pairs(subject.prompts, baseline)
    heads = heads_with_page(tables) if events else []
    line = {(one.id, one.event): at for at, one in enumerate(subject.prompts, start=1)}
    top = _top(tables, heads, events)
    top["line"] = [line[key] for key in zip(top["id"], top["event"], strict=True)]
    wanted = _first(top)
    try:
        with subject.reporter.step(f"looks of {len(heads)} heads", len(events)) as advance:

            def fill(number: int) -> bool:
                if number not in parts:
                    seen = Looks.of(subject.model, events[number], most_bytes=0)
                    made = _long(seen, events[number], heads, wanted)
                    subject.together.check()
                    parts[number] = made
                return True

            count = len(events) if heads else 0
            fill_parts(fill, count, parts, advance, together=subject.together)
    except InputError as error:
        subject.reporter.say(f"looks: pages of heads have no attention, since {error}")
        parts.clear()
    every = pd.concat(parts.values(), ignore_index=True) if parts else pd.DataFrame(columns=_LONG)
    rows = every.loc[every["what"] == "row"].rename(columns={"source": "query", "value": "weight"})
    rows = rows.assign(position=rows["target"].astype(int)).reindex(columns=ROWS)
    half = "verify" if held_out else "all"
    made = {
        "looks": _over_events(every).assign(half=half)[LOOKS],
        "look_events": top,
        "look_rows": rows,
    }
    return Made(made, {"events": len(events), "heads": len(heads)})


def heads_with_page(tables: Tables) -> list[Head]:
    """Pooled heads, then nominated ones by their largest chief effect, `MOST_HEADS` at most."""
    found: HeadSet = tables[HEADSET]
    pooled = sorted({(one.layer, one.head) for one in found.heads})
    patching, scores = tables["patching"], tables["scores"]
    other = patching.loc[patching["group"] == "nominated"]
    if other.empty and len(patching):  # all heads were patched, none of them chosen
        chosen = set(nominate(scores, NOMINATED))
        keep = [at in chosen for at in heads_of(patching)]
        other = patching.loc[keep]
    chief = other.loc[other["measure"].isin(["coarse_restore_margin", "refine_reduce_margin"])]
    size = chief.assign(size=chief["effect"].abs()).groupby(["layer", "head"])["size"].max()
    ranked = [at for at in size.sort_values(ascending=False).index if at not in set(pooled)]
    return [*pooled, *ranked][: max(MOST_HEADS, len(pooled))]


def _top(tables: Tables, heads: Sequence[Head], events: Sequence[DecisionEvent]) -> pd.DataFrame:
    keys = pd.DataFrame([(one.id, one.event) for one in events], columns=["id", "event"])
    patched, base = (
        tables[name].merge(keys, on=["id", "event"]) for name in ("patching_events", "baseline")
    )
    there = set(heads_of(patched.loc[patched["positions"] == "span"]))
    frames = []
    for layer, head in heads:
        if (layer, head) in there:
            own = top_of(patched, base, (layer, head), TOP_EVENTS)
            own = own.assign(layer=layer, head=head, chosen=own.columns[3])
            frames.append(own.reindex(columns=EVENTS))
    return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame(columns=EVENTS)


def _first(top: pd.DataFrame) -> dict[tuple[str, str, int], tuple[str, ...]]:
    """(head, id, event) → the queries whose attention is kept."""
    wanted = {}
    for _, rows in top.groupby(["layer", "head"], sort=False):
        for rank, row in enumerate(rows.head(TEXT_EVENTS).to_dict("records")):
            key = head_name(row["layer"], row["head"]), row["id"], row["event"]
            wanted[key] = ("decision",) if rank else ("decision", "gold")
    return wanted


def _long(
    seen: Looks,
    event: DecisionEvent,
    heads: Sequence[Head],
    wanted: Mapping[tuple[str, str, int], Sequence[str]],
) -> pd.DataFrame:
    """What the heads do on one event; of "row", source is the token that looks, target a token."""
    rows = []
    gold = event.options[event.with_role("gold")[0]].span[1] - 1
    place = {"decision": len(event.clean) - 1, "gold": gold}
    for at in heads:
        one = seen.look(at)
        key = (*at, event.id, event.event)
        for source in one.summary.index.intersection(SOURCES):
            masses: Any = one.summary.loc[source]
            for target, mass in masses.items():
                rows.append((*key, "attention", source, target, float(mass)))
        logits: Any = one.options.groupby("role")["logit"].mean()
        for role, logit in logits.items():
            rows.append((*key, "logit", "decision", role, float(logit)))
        for query in wanted.get((one.name, event.id, event.event), ()):
            weights = seen.row(at, place[query])
            for token in (weights >= LEAST_WEIGHT).nonzero()[0]:
                rows.append((*key, "row", query, str(token), float(weights[token])))
    return pd.DataFrame(rows, columns=_LONG)


def _over_events(every: pd.DataFrame) -> pd.DataFrame:
    """Means and quartiles over events."""
    part = every.loc[every["what"] != "row"]
    if part.empty:
        return pd.DataFrame(columns=LOOKS[:-1])
    by = ["layer", "head", "what", "source", "target"]
    values = part.groupby(by, sort=False)["value"]
    table = pd.DataFrame(
        {
            "mean": values.mean(),
            "q25": values.quantile(0.25),
            "q75": values.quantile(0.75),
            "n": values.size(),
        }
    )
    return table.reset_index()
