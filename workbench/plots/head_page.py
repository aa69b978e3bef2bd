"""One head's page: what it does on an event, or over the events of a run, as HTML.

The same page stands in a report, in a notebook and in the explorer. It is made of plain tables, and
its styles come with it. Text of a prompt is on it only where its words were handed in.
"""

import json
from collections.abc import Mapping, Sequence
from functools import cache
from itertools import groupby
from typing import Any

import numpy as np
import pandas as pd
from jinja2 import Template
from markupsafe import Markup

from workbench.heads import head_name
from workbench.markup import ROLE_COLOUR, Piece, text
from workbench.measures import MEASURES
from workbench.plots.page import environment
from workbench.plots.style import (
    POSITIONS,
    ScoreWords,
    interval,
    number,
    score_names,
    score_words,
    two_digits,
)
from workbench.roles import POOL_WORDS

ATTENTION = "#7b3fa0"
"""Behind a token, as strong as it is looked at."""
HALVES = ("verify", "all", "choose")
"""The half whose effects are shown is the first of these that is there."""
HALF_WORDS = {"verify": "held-out half", "all": "all prompts", "choose": "selection half"}
MOST_PATHS, LEAST_PATH = 6, 0.005
"""Paths shown of a phase, and the smallest effect that is worth a row."""


def head_page(
    look: Any,
    *,
    words: Sequence[str] | None = None,
    effects: pd.DataFrame | None = None,
    events: pd.DataFrame | None = None,
    paths: pd.DataFrame | None = None,
    entry: Mapping[str, Any] | None = None,
    scores: pd.DataFrame | None = None,
    score_titles: ScoreWords | None = None,
    query: str = "decision",
) -> str:
    """HTML of what a head does on one event; parts that nothing is given for are left out.

    Args:
        look: the head on the event, as `analysis.looks` finds it (its `Look`).
        words: the text of each token of the clean prompt; without it the page holds no text.
        effects: rows of a `patching` table; those of other heads are left out.
        events: what the head does event by event, as `top_events` gives it; shown in this order. A
            column prompt says where each event is among the prompts, for whoever follows a click.
        paths: rows of a `paths` table, of which those from and to this head are shown.
        entry: the head as its head set writes it.
        scores: rows of a `scores` table.
        score_titles: titles and units of scores.
        query: name of the token whose attention is shown first, one of `look.queries`.
    """
    head = look.layer, look.head
    attention = []
    if words is not None:
        seen = look.queries, look.weights, look.regions
        attention.append(("", attention_block(words, *seen, query)))
    return render(
        head,
        where=f"prompt {look.id}, event {look.event}",
        notes=look.notes,
        attention=attention,
        summary=_matrix(look.summary),
        options=_options(look.options),
        **known_of(head, effects, events, paths, entry, scores, score_titles),
    )


def render(head: tuple[int, int], **parts: Any) -> str:
    """The page from its parts, see `head_page.html.jinja`; those left out are not shown."""
    empty: dict[str, Any] = dict.fromkeys(
        ("where", "pool", "attention", "summary", "spread", "options", "writes", "effects"), ""
    )
    empty |= dict.fromkeys(("scores", "events", "paths", "facts", "notes", "half"), "")
    return _template().render(**{**empty, **parts}, name=head_name(*head), roles=ROLE_COLOUR)


@cache
def _template() -> Template:
    return environment({"number": number}).get_template("head_page.html.jinja")


def known_of(
    head: tuple[int, int],
    effects: pd.DataFrame | None = None,
    events: pd.DataFrame | None = None,
    paths: pd.DataFrame | None = None,
    entry: Mapping[str, Any] | None = None,
    scores: pd.DataFrame | None = None,
    score_titles: ScoreWords | None = None,
) -> dict[str, Any]:
    """Parts of a page that a run knows of a head, whatever event it is looked at on."""
    known: dict[str, Any] = {}
    if entry:
        known |= {"pool": entry["pool"], "facts": _facts(entry)}
        known["effects"], known["half"] = _of_entry(entry), HALF_WORDS["verify"]
    if effects is not None and len(own := _own(effects, head)):
        half = next((one for one in HALVES if "half" in own and one in set(own["half"])), "")
        own = own.loc[own["half"] == half] if half else own
        known["effects"], known["half"] = _measured(own), HALF_WORDS.get(half, "")
    if scores is not None and len(own := _own(scores, head)):
        known["scores"] = _scored(own.iloc[0].to_dict(), score_titles)
    if events is not None and len(events):
        shown = events.drop(columns=["layer", "head", "prompt"], errors="ignore")
        prompts = list(events["prompt"]) if "prompt" in events else []
        known["events"] = _table(shown) | {"prompts": prompts}
    if paths is not None and len(paths):
        known["paths"] = _paths(paths, head)
    return known


def attention_block(
    words: Sequence[str],
    queries: Sequence[tuple[str, int]],
    weights: np.ndarray,
    regions: Sequence[str],
    query: str = "decision",
) -> Markup:
    """A prompt's text, coloured by how much one token looks at each; the tokens to choose from.

    Without JavaScript it shows that of `query`. Full colour is the largest weight behind the first
    token, which many heads look at when they have nothing else to do.
    """
    names = [name for name, _ in queries]
    at = names.index(query) if query in names else 0
    row = weights[at]
    top, several = full_colour(row), len(queries) > 1
    pieces = [
        Piece(
            word,
            ATTENTION,
            min(float(weight) / top, 1.0),
            ROLE_COLOUR.get(region, ""),
            f"{weight:.3f}" + f" on token {place}, {region}" * several,
        )
        for place, (word, weight, region) in enumerate(zip(words, row, regions, strict=True))
    ]
    if not several:
        pieces = _short(pieces, row)
    thousandths = [[round(1000 * float(x)) for x in one] for one in weights]
    choices = list(zip(names, (place for _, place in queries), strict=True))
    return Markup(
        environment({})
        .get_template("attention.html.jinja")
        .render(
            text=Markup(text(pieces)),
            rows=json.dumps(thousandths, separators=(",", ":")),
            places=json.dumps([place for _, place in queries]),
            choices=choices,
            chosen=at,
            top=number(top),
            roles=ROLE_COLOUR,
            colour=ATTENTION,
        )
    )


def _short(pieces: Sequence[Piece], row: np.ndarray) -> list[Piece]:
    """Where there is no other token to choose, stretches that are not looked at are one piece."""
    made = []
    for (seen, line), group in groupby(
        zip(pieces, row, strict=True), lambda one: (bool(one[1] > 0), one[0].line)
    ):
        own = [piece for piece, _ in group]
        if seen:
            made += own
        else:
            made.append(Piece("".join(piece.text for piece in own), line=line))
    return made


def full_colour(row: np.ndarray) -> float:
    """The weight of full colour: the largest behind the first token."""
    return max(float(row[1:].max()) if len(row) > 1 else 0.0, 1e-3)


# What is known of a head, as rows of small tables.


def _own(table: pd.DataFrame, head: tuple[int, int]) -> pd.DataFrame:
    return table.loc[(table["layer"] == head[0]) & (table["head"] == head[1])]


def _facts(entry: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The head's row in the head set."""
    named = {
        "weight": "weight in its pool",
        "decision_share": "share of its effect at the decision",
        "passed_share": "share that it only passes on",
        "chosen_share": "share of resamples that choose it",
    }
    facts = [(words, number(entry.get(name))) for name, words in named.items()]
    pool = POOL_WORDS[entry["pool"]]
    facts = [("pool", f"{entry['pool']}: heads that {pool.what}"), *facts]
    facts.append(("read-out head", "yes" if entry["read_out"] else "no"))
    facts.append(("key and value head", str(entry["kv_head"])))
    return [(name, value) for name, value in facts if value != "–"]


def _of_entry(entry: Mapping[str, Any]) -> dict[str, Any]:
    rows = [
        (MEASURES[name].title, [(_ends(effect), effect.get("n", "–"))])
        for name, effect in entry["effects"].items()
        if name in MEASURES and _shown(name)
    ]
    return {"places": [POSITIONS["span"]], "rows": rows}


def _measured(rows: pd.DataFrame) -> dict[str, Any]:
    """Effects by measure and place, with intervals and the events that count."""
    places = [name for name in POSITIONS if name in set(rows["positions"])]
    found = {(row["measure"], row["positions"]): row for row in rows.to_dict("records")}
    shown = [name for name in MEASURES if _shown(name) and any((name, p) in found for p in places)]
    cells = {
        name: [
            (_ends(found[name, place]), int(found[name, place]["n"]))
            if (name, place) in found
            else ("–", "–")
            for place in places
        ]
        for name in shown
    }
    return {
        "places": [POSITIONS[name] for name in places],
        "rows": [(MEASURES[name].title, cells[name]) for name in shown],
    }


def _ends(row: Mapping[Any, Any]) -> str:
    """An effect and the ends of its interval, all with two digits."""
    low, high = two_digits(row["low"]), two_digits(row["high"])
    return two_digits(row["effect"]) + (f" [{low}, {high}]" if (low, high) != ("–", "–") else "")


def _shown(name: str) -> bool:
    """A boost is shown as a difference: as a ratio it is large where clean Confusion is small."""
    return not MEASURES[name].absolute


def _scored(row: Mapping[Any, Any], titles: ScoreWords | None) -> list[dict[str, Any]]:
    return [
        {
            "title": score_words(name, titles)[0],
            "unit": score_words(name, titles)[1],
            "value": interval(row, name, f"{name}_low", f"{name}_high"),
            "q": number(row.get(f"{name}_q")),
        }
        for name in score_names([str(column) for column in row])
    ]


def _paths(paths: pd.DataFrame, head: tuple[int, int]) -> dict[str, Any]:
    """The strongest paths of each phase that end at the head, or start from it.

    A path is there again where somebody asked for it by name.
    """
    values = ("ends", "effect", "low", "high", "n", "n_excluded")
    paths = paths.drop_duplicates([name for name in paths.columns if name not in values])
    name = head_name(*head)
    into = [name in str(heads).split() for heads in paths["dst_heads"]]
    out = (paths["src_layer"] == head[0]) & (paths["src_head"] == head[1])
    found = {}
    for title, own in (("Into it", paths.loc[into]), ("Out of it", paths.loc[out])):
        rows = []
        for measure in ("coarse_restore_margin", "refine_reduce_margin"):
            holds_0 = (own["low"] <= 0) & (own["high"] >= 0)
            large = own["effect"].abs() >= LEAST_PATH
            part = own.loc[(own["measure"] == measure) & large & ~holds_0]
            part = part.reindex(part["effect"].abs().sort_values(ascending=False).index)
            for row in part.head(MOST_PATHS).to_dict("records"):
                start = head_name(row["src_layer"], row["src_head"])
                end = row["dst_heads"] or "the logits"
                rows.append(
                    {
                        "path": f"{start} → {end}",
                        "route": {"q": "query", "k": "key", "v": "value"}.get(row["route"], ""),
                        "measure": MEASURES[measure].title,
                        "effect": _ends(row),
                    }
                )
        found[title] = rows
    return found


def _table(frame: pd.DataFrame) -> dict[str, Any]:
    """Any frame, numbers as the page writes them."""
    rows = [
        [value if isinstance(value, str) else number(value) for value in row]
        for row in frame.itertuples(index=False)
    ]
    return {"columns": [str(name).replace("_", " ") for name in frame.columns], "rows": rows}


def _matrix(summary: pd.DataFrame) -> dict[str, Any]:
    """Attention from × to, each cell with the colour of its share."""
    rows = [
        (str(name), [(two_digits(value), shade(value), "") for value in row])
        for name, row in zip(summary.index, summary.to_numpy(float), strict=True)
    ]
    return {"columns": list(map(str, summary.columns)), "rows": rows}


def shade(value: float) -> str:
    """Colour behind a share of attention."""
    share = 0 if np.isnan(value) else round(255 * 0.6 * min(max(value, 0.0), 1.0))
    return f"{ATTENTION}{share:02x}"


def _options(options: pd.DataFrame) -> dict[str, Any]:
    """The most attended and written ones first by role: gold, near, far, other."""
    order = list(ROLE_COLOUR)
    ranked = options.assign(order=[order.index(role) for role in options["role"]])
    ranked = ranked.sort_values(["order", "logit"], ascending=[True, False], kind="stable")
    names = [name for name in options.columns if name not in ("label", "role")]
    rows = [
        {
            "label": row["label"],
            "role": row["role"],
            "values": [two_digits(row[name]) for name in names],
        }
        for row in ranked.to_dict("records")
    ]
    return {"columns": [name.replace("_", " ") for name in names], "rows": rows}
