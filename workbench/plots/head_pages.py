"""The pages of single heads in a report: one for every pooled and nominated head, folded.

Each is made of the tables of the run. Text stands on them only where the words of prompts are
handed in.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from markupsafe import Markup

from workbench.heads import head_name
from workbench.measures import MEASURES
from workbench.plots.head_page import attention_block, known_of, render, shade
from workbench.plots.style import ScoreWords, two_digits
from workbench.roles import POOL_WORDS

QUERIES = {"decision": "decision", "gold": "last token of the gold option"}
HALF_WORDS = {"verify": "the held-out half", "all": "all prompts"}

Words = Mapping[tuple[str, int], Sequence[tuple[str, str]]]
"""(id, event) → text and region of each token of its clean prompt."""


def head_pages(
    headset: Mapping[str, Any],
    scores: pd.DataFrame,
    patching: pd.DataFrame,
    paths: pd.DataFrame | None,
    looks: Mapping[str, pd.DataFrame],
    score_titles: ScoreWords | None = None,
    words: Words | None = None,
) -> list[dict[str, Any]]:
    """Pages by layer and head: name, pool, a line on top, and html.

    `looks` holds the tables of the step of that name; without them there are no pages.
    """
    if not looks:
        return []
    entries = {(one["layer"], one["head"]): one for one in headset.get("heads", [])}
    tables = (looks[name] for name in ("looks", "look_events"))
    both = (table[["layer", "head"]].to_numpy(int).tolist() for table in tables)
    pages = []
    for at in sorted({(layer, head) for table in both for layer, head in table}):
        events, rows = _own(looks["look_events"], at), _own(looks["look_rows"], at)
        entry = entries.get(at)
        parts = known_of(
            at, patching, _events(events, words is not None), paths, entry, scores, score_titles
        )
        html = render(
            at,
            spread=_spread(_own(looks["looks"], at)),
            writes=_writes(_own(looks["looks"], at)),
            attention=[] if words is None else _attention(events, rows, words),
            **parts,
        )
        pool = entry["pool"] if entry else ""
        what = f"heads that {POOL_WORDS[pool].what}" if entry else "nominated, in no pool"
        read_out = bool(entry and entry["read_out"])
        pages.append(
            {"name": head_name(*at), "pool": pool, "what": what, "read_out": read_out}
            | {"html": Markup(html)}
        )
    return pages


def _own(table: pd.DataFrame, head: tuple[int, int]) -> pd.DataFrame:
    return table.loc[(table["layer"] == head[0]) & (table["head"] == head[1])]


def _spread(own: pd.DataFrame) -> dict[str, Any] | str:
    """Attention from region to region: the mean over events, and the quartiles around it."""
    rows = own.loc[own["what"] == "attention"]
    if rows.empty:
        return ""
    columns = list(dict.fromkeys(rows["target"]))
    found = {(row["source"], row["target"]): row for row in rows.to_dict("records")}
    lines = []
    for source in dict.fromkeys(rows["source"]):
        cells = []
        for target in columns:
            row = found.get((source, target))
            if row is None:
                cells.append(("–", "", ""))
            else:
                cells.append((two_digits(row["mean"]), shade(row["mean"]), _quartiles(row)))
        lines.append((source, cells))
    n, half = int(rows["n"].max()), rows["half"].iloc[0]
    note = f"clean runs of {n} events of {HALF_WORDS[half]}: mean, and the quartiles below it"
    return {"columns": columns, "rows": lines, "note": note}


def _quartiles(row: Mapping[Any, Any]) -> str:
    return f"{two_digits(row['q25'])} to {two_digits(row['q75'])}"


def _writes(own: pd.DataFrame) -> dict[str, Any] | str:
    rows = own.loc[own["what"] == "logit"].to_dict("records")
    if not rows:
        return ""
    if all(np.isnan(row["mean"]) for row in rows):
        return {"columns": ["not known of this model"], "rows": [], "note": ""}
    order = ["gold", "near", "far", "other"]
    rows.sort(key=lambda row: order.index(row["target"]))
    return {
        "columns": ["options", "mean", "quartiles", "events"],
        "rows": [
            (row["target"], two_digits(row["mean"]), _quartiles(row), int(row["n"])) for row in rows
        ],
        "note": "over the same events, mean over the options of a role",
    }


def _events(events: pd.DataFrame, with_ids: bool) -> pd.DataFrame:
    """Names of measures as the report says them, the one that decides first.

    Ids may name patients: without text an event is a line of the run's prompt file.
    """
    if events.empty:
        return events
    chosen = str(events["chosen"].iloc[0])
    measures = [chosen, *(name for name in events.columns if name in MEASURES and name != chosen)]
    names = {"id": "prompt", "event": "event"} if with_ids else {"line": "line of prompts.jsonl"}
    shown: Any = events[[*names, *measures]].astype(dict.fromkeys(names, str))
    for name in measures:
        shown[name] = [two_digits(value) for value in shown[name]]
    return shown.rename(columns=names | {name: MEASURES[name].title for name in measures})


def _attention(
    events: pd.DataFrame, rows: pd.DataFrame, words: Words
) -> list[tuple[str, Markup | str]]:
    """The clean prompts of the events where it matters most, and where it looks there."""
    blocks = []
    for row in events.to_dict("records"):
        key = str(row["id"]), int(row["event"])
        own = rows.loc[(rows["id"] == row["id"]) & (rows["event"] == row["event"])]
        if own.empty or key not in words:
            continue
        texts, regions = zip(*words[key], strict=True)
        for name, part in own.groupby("query", sort=False):
            weights = np.zeros((1, len(texts)))
            weights[0, part["position"].to_numpy(int)] = part["weight"]
            title = f"prompt {key[0]}, event {key[1]}, from the {QUERIES[str(name)]}"
            blocks.append((title, attention_block(texts, [(str(name), 0)], weights, regions)))
    return blocks
