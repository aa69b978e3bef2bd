"""One run as one HTML file that opens without a network.

Prompt text is in the file only when it was handed to `write_report`.
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from workbench.measures import MEASURES, margin_name
from workbench.phases import PHASES
from workbench.plots import evidence_words, figures, heatmaps
from workbench.plots.head_pages import Words, head_pages
from workbench.plots.page import card, write_page
from workbench.plots.paths import path_graph
from workbench.plots.style import (
    POSITIONS,
    ScoreWords,
    number,
    percent,
    score_names,
    score_words,
    two_digits,
    where,
)
from workbench.roles import POOL_WORDS, POOLED_ENDS

SCORE_NOTE = (
    "Which heads are worth patching.",
    "Observational: a high score nominates a head and proves nothing. The scale differs from score "
    "to score, so colours compare heads within one figure only.",
)
CAUSAL_LIMIT = (
    "Causal for this model and these prompts only. A patched value shows what the head can carry, "
    "not that natural inputs use it so, and heads that replace one another can hide. "
)
PLACE_LIMITS = {
    "decision": "Work done at earlier tokens does not show here.",
    "span": "Grey heads were not patched: that is not an effect of 0.",
}
PATH_NOTE = (
    "Which later head reads what an earlier one writes, by its query, key or value: only that edge "
    "gets the value of the other run, everything else the receiving head reads stays.",
    "Only edges that go straight through the residual stream; what passes through an MLP or a "
    "third head is not in them, so they need not add up to the effect of the whole head (grey).",
)
SHOWN = [name for name, measure in MEASURES.items() if not measure.margin]
"""Columns of tables; a margin stands below its measure."""

OTHER_NOTES = {
    "baseline": (
        "Whether the model does the task, and whether the counterfactuals move it.",
        "No word on heads. Focus is the probability on the clean gold's cluster in all "
        "three variants, so a low value in the far variant is what a good counterfactual gives.",
    ),
    "pools": (
        "Whether the pooled heads do more together than as many random heads of the same layers, "
        "or those with the largest output.",
        "A pool with a large effect is sufficient here, not complete: other heads may matter too.",
    ),
    "halves": (
        "How much of an effect remains on the held-out half, which had no part in selecting heads.",
        "Points below the diagonal are expected, since choosing the largest favours luck.",
    ),
    "trajectory": (
        "Where along the steps the probability gathers on the cluster, and where gold wins in it.",
        "A reading of intermediate states through the model's final output layer, which early "
        "states were not made for: no causal evidence.",
    ),
}


def write_report(
    path: str | Path,
    *,
    title: str,
    manifest: dict[str, Any],
    baseline: pd.DataFrame,
    counts: list[dict[str, Any]],
    scores: pd.DataFrame,
    patching: pd.DataFrame,
    pools: pd.DataFrame,
    headset: dict[str, Any],
    trajectory: pd.DataFrame | None = None,
    paths: pd.DataFrame | None = None,
    evidence: Mapping[str, pd.DataFrame] | None = None,
    prompts: list[dict[str, Any]] | None = None,
    words: ScoreWords | None = None,
    mass: tuple[str, str] = ("", ""),
    looks: Mapping[str, pd.DataFrame] | None = None,
    texts: Words | None = None,
    why_empty: Mapping[str, Sequence[str]] | None = None,
) -> Path:
    """Write the report of a run and return its path; the file is its owner's alone.

    `counts` says per counterfactual how many events are valid pairs and why others are not (rows of
    `event_counts`). `headset` is the head-set file as a dict. `prompts` holds texts as strings or
    {"text": …} under any keys; leave it out where text must stay where it is. `evidence` holds the
    tables of the evidence steps by name, `words` titles and units of scores. `mass` says how much
    of the probability the options hold, and warns where that is too little; `why_empty` explains
    pools without heads, line by line. `looks` holds the tables behind the pages of single heads,
    `texts` the tokens of prompts for them.

    Raises:
        InputError: a table lacks a column that a figure needs.
    """
    pooled = heatmaps.pooled_heads(headset)
    overview = {
        "pools": figures.pool_effects(pools),
        "baseline": figures.focus_confusion(baseline),
        "halves": figures.choose_verify(patching),
    }
    if trajectory is not None:
        overview["trajectory"] = figures.trajectory(trajectory)
    score_maps = heatmaps.score_heatmaps(scores, pooled, words)
    return write_page(
        path,
        "report.html.jinja",
        {"number": number, "two_digits": two_digits},
        private=True,
        title=title,
        model=_model_name(headset, manifest),
        counts=counts,
        mass=mass,
        findings=[
            pool_finding(pool, headset, pools, (why_empty or {}).get(pool, ()))
            for pool in POOL_WORDS
            if pool in PHASES or any(head["pool"] == pool for head in headset.get("heads", []))
        ],
        overview=[card(name, figure, *OTHER_NOTES[name]) for name, figure in overview.items()],
        score_cards=[card(f"score-{name}", one, *SCORE_NOTE) for name, one in score_maps.items()],
        patching_cards=_patching_cards(patching, pooled, scores),
        path_cards=_path_cards(paths, patching, headset),
        evidence_cards=[
            card(f"evidence-{name}", figure, *evidence_words.NOTES[name])
            for name, figure in evidence_words.cards(evidence or {}).items()
        ],
        evidence_sentences=evidence_words.sentences(
            evidence or {}, pooled=bool(headset.get("heads"))
        ),
        score_titles=[score_words(name, words)[0] for name in score_names(scores.columns)],
        effect_titles=[MEASURES[name].title for name in SHOWN],
        heads=head_rows(headset, score_names(scores.columns)),
        head_pages=head_pages(headset, scores, patching, paths, looks or {}, words, texts),
        looked=bool(looks),
        unscored=unscored_heads(headset),
        pool_rows=pool_rows(pools),
        measures=[] if pools.empty else [name for name in SHOWN if name in set(pools["measure"])],
        provenance=flatten(manifest),
        prompts=None if prompts is None else [_prompt_texts(prompt) for prompt in prompts],
    )


def _model_name(headset: Mapping[str, Any], manifest: Mapping[str, Any]) -> str:
    model = headset.get("model") or manifest.get("model") or "unnamed model"
    return str(model.get("name", "unnamed model") if isinstance(model, Mapping) else model)


# Figures and what each of them can and cannot support.


def _patching_cards(
    patching: pd.DataFrame, pooled: Mapping[tuple[int, int], str], scores: pd.DataFrame
) -> list[dict[str, Any]]:
    """From the held-out half where there is one; the shape is that of the score table."""
    if patching.empty:
        return []
    halves = set(patching["half"])
    half = next((name for name in ("verify", "all") if name in halves), "choose")
    shape = max(scores["layer"].tolist()) + 1, max(scores["head"].tolist()) + 1
    drawn = heatmaps.patching_heatmaps(patching, pooled, half=half, shape=shape)
    return [
        card(
            f"{measure}-{place}", figure, MEASURES[measure].note, CAUSAL_LIMIT + PLACE_LIMITS[place]
        )
        for (measure, place), figure in drawn.items()
    ]


def _path_cards(
    paths: pd.DataFrame | None, patching: pd.DataFrame, headset: Mapping[str, Any]
) -> list[dict[str, Any]]:
    """One diagram per phase, when paths were patched; paths asked for by name have their own."""
    if paths is None or paths.empty:
        return []
    pooled, cards = heatmaps.pooled_heads(headset), []
    named = paths.get("ends", pd.Series(POOLED_ENDS, paths.index))
    kinds = sorted(paths.groupby(named), key=lambda kind: kind[0] != POOLED_ENDS)
    for at, (ends, rows) in enumerate(kinds):
        place = rows["positions"].iloc[0]
        for measure in (phase.chief for phase in PHASES.values()):
            figure = path_graph(rows, patching, pooled, measure, place)
            name, note = f"paths-{measure}", PATH_NOTE
            if ends != POOLED_ENDS:
                name = f"{name}-{at}"
                note = (f"Only paths asked for by name: {ends}. {PATH_NOTE[0]}", PATH_NOTE[1])
            cards.append(card(name, figure, *note))
    return cards


# The summary in words.


def pool_finding(
    pool: str, headset: Mapping[str, Any], pools: pd.DataFrame, why: Sequence[str] = ()
) -> dict[str, Any]:
    """What the run found about one pool: its heads, its joint effect in words, and warnings.

    `why` says why it is empty, line by line.
    """
    heads = [head for head in headset.get("heads", []) if head["pool"] == pool]
    names = [f"{head['layer']}-{head['head']}" for head in heads]
    finding: dict[str, Any] = {"pool": pool, "heads": names, "headline": "–", "interval": ""}
    finding["what"] = POOL_WORDS[pool].what
    words = POOL_WORDS[pool]
    unit, phrase = words.share_of, words.finding
    finding |= {"unit": unit, "warnings": [], "controls": "", "why": list(why)}
    if not names:
        return finding | {"text": f"The {pool} pool is empty: no head qualified."}
    unmeasured = finding | {"text": f"The joint effect of the {pool} pool was not measured."}
    if pools.empty:
        return unmeasured
    rows = pools.loc[(pools["pool"] == pool) & (pools["measure"] == words.measure)]
    if words.sign < 0:
        ends = {"effect": -rows["effect"], "low": -rows["high"], "high": -rows["low"]}
        rows = rows.assign(**ends)
    place = "span" if "span" in set(rows["positions"]) else "decision"
    rows = rows.loc[rows["positions"] == place]
    joint = rows.loc[rows["set"] == "pool"].to_dict("records")
    if not joint:
        return unmeasured
    effect = joint[0]
    share = percent(effect["effect"])
    interval = f"[{percent(effect['low'])}, {percent(effect['high'])}]"
    text = (
        f"Patched together {POSITIONS[place]}, the {pool} pool {phrase.format(share)} {interval}, "
        f"over {int(effect['n'])} events of the held-out half."
    )
    if (margin := margin_name(words.measure)) in MEASURES:
        text += _in_log_odds(where(pools, pool=pool, set="pool", measure=margin, positions=place))
    controls, warnings = _against_controls(effect, rows)
    return finding | {
        "headline": share,
        "interval": interval,
        "text": text,
        "controls": controls,
        "warnings": warnings,
    }


def _in_log_odds(rows: pd.DataFrame) -> str:
    """The joint effect on the margin: a probability near 0 or 1 hides what a pool does."""
    if rows.empty or pd.isna(rows["effect"].iloc[0]):
        return ""
    effect = rows.to_dict("records")[0]
    share, *ends = (percent(effect[name]) for name in ("effect", "low", "high"))
    return f" In log-odds, by which heads are pooled: {share} [{', '.join(ends)}]."


def _against_controls(effect: Mapping[Any, Any], rows: pd.DataFrame) -> tuple[str, list[str]]:
    """The controls in words, and what a reader must not overlook about the effect."""
    warnings = []
    if not effect["low"] > 0:
        warnings.append("The interval includes 0 or lies below it: no effect is shown.")
    parts = []
    random = rows.loc[rows["set"] == "random", "effect"]
    if len(random):
        spread = f"{percent(random.min())} to {percent(random.max())} over {len(random)} draws"
        parts.append(f"random heads of the same layers: {percent(random.mean())} ({spread})")
        if not effect["low"] > random.max():
            warnings.append("The interval does not clear the best random draw.")
    for norm in rows.loc[rows["set"] == "norm"].to_dict("records"):
        ends = f"[{percent(norm['low'])}, {percent(norm['high'])}]"
        parts.append(f"heads with the largest output: {percent(norm['effect'])} {ends}")
        if not effect["low"] > norm["high"]:
            warnings.append("The interval overlaps that of the heads with the largest output.")
    if not parts:
        return "No control was measured.", [*warnings, "Without controls the effect says little."]
    return "For comparison, as many " + "; as many ".join(parts) + ".", warnings


# Tables.


def unscored_heads(headset: Mapping[str, Any]) -> list[str]:
    """Pooled heads that no score named: they are in a pool by what they do alone."""
    limit = headset.get("method", {}).get("thresholds", {}).get("false_discovery_rate")
    if limit is None:
        return []
    return [
        f"{head['layer']}-{head['head']}"
        for head in headset.get("heads", [])
        if not any(
            (q := head["scores"].get(phase.q)) is not None and q <= limit
            for phase in PHASES.values()
        )
    ]


def head_rows(headset: Mapping[str, Any], scores: Iterable[str]) -> list[dict[str, Any]]:
    """Pooled heads, by pool and then by weight, with what is known of each."""
    names = list(scores)
    order = list(POOL_WORDS)
    heads = sorted(
        headset.get("heads", []), key=lambda head: (order.index(head["pool"]), -head["weight"])
    )
    return [
        {
            **head,
            "scores": [(head["scores"].get(x), head["scores"].get(f"{x}_q")) for x in names],
            "effects": [
                (head["effects"].get(name, {}), head["effects"].get(margin_name(name), {}))
                for name in SHOWN
            ],
        }
        for head in heads
    ]


def pool_rows(pools: pd.DataFrame) -> list[dict[str, Any]]:
    """One row per pool, place and set, with the effects by measure; random draws become one row."""
    rows: list[dict[str, Any]] = []
    if pools.empty:
        return rows
    for key, part in pools.groupby(["pool", "positions", "set"], sort=False):
        pool, place, kind = map(str, key)  # type: ignore[arg-type]
        effects = {}
        for measure, here in part.groupby("measure"):
            first = here.iloc[0]
            low, high = (
                (here["effect"].min(), here["effect"].max())
                if kind == "random"
                else (first["low"], first["high"])
            )
            effects[measure] = {"effect": here["effect"].mean(), "low": low, "high": high}
            effects[measure]["n"] = int(first["n"])
        names = {"pool": "pool", "norm": "largest output"}
        name = names.get(kind, f"random, mean and range of {part['draw'].nunique()} draws")
        heads = part["heads"].iloc[0] if kind != "random" else ""
        rows.append({"pool": pool, "positions": place, "set": name, "heads": heads})
        rows[-1]["effects"] = effects
    return rows


def flatten(tree: Any, name: str = "") -> list[tuple[str, str]]:
    """Nested dicts as (dotted name, text) pairs; a list of plain values becomes one text."""
    if isinstance(tree, Mapping):
        nested: Iterable[tuple[str, Any]] = ((str(key), value) for key, value in tree.items())
    elif isinstance(tree, list | tuple) and any(isinstance(x, Mapping | list) for x in tree):
        nested = ((str(index), value) for index, value in enumerate(tree))
    elif isinstance(tree, list | tuple):
        return [(name, " ".join(map(str, tree)))]
    else:
        return [(name, "–" if tree is None else str(tree))]
    return [pair for key, value in nested for pair in flatten(value, f"{name}.{key}".lstrip("."))]


def _prompt_texts(prompt: Mapping[str, Any]) -> dict[str, Any]:
    """Name of a prompt and its texts by key; token ids and other numbers are left out."""
    texts = []
    for key, value in prompt.items():
        text = value.get("text") if isinstance(value, Mapping) else value
        if isinstance(text, str) and key != "id":
            texts.append((key, text))
    return {"id": str(prompt.get("id", "")), "event": prompt.get("event"), "texts": texts}
