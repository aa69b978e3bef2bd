"""What the evidence says, in words, and what each of its figures does and does not support."""

from collections.abc import Mapping

import pandas as pd
import plotly.graph_objects as go

from workbench.plots import chains
from workbench.plots import evidence as drawings
from workbench.plots.style import interval, number, where

NOTES = {
    "curves": (
        "How much of Focus, and of the right label's lead inside its cluster, rests on the first "
        "heads of an order: ablated alone (left), or kept while all others are ablated (right).",
        "Ablated heads get their value from the counterfactual prompt, so this speaks of what the "
        "two prompts differ in. Heads that stand in for one another make single ones look idle.",
    ),
    "areas": (
        "One number per order: the area under its curve. For sufficiency more is better, for "
        "necessity less.",
        "Orders whose intervals overlap may still differ: the text above gives paired differences. "
        "Random orders show what an order without knowledge reaches.",
    ),
    "stability": (
        "How often resampled prompts would have chosen each head.",
        "A head below half is a finding about these prompts. Resampling cannot show what another "
        "kind of prompt would choose.",
    ),
    "sample_size": (
        "How the pools of fewer prompts compare with those of the whole selection half.",
        "Subsets overlap with the whole by construction, so the last point is always 1.",
    ),
    "chain": (
        "What the model would answer if its own chain of thought stopped after each step.",
        "The answer is asked for early; whether the model uses the chain in the same way when it "
        "is not interrupted is another question.",
    ),
    "chain_tokens": (
        "The model's own next letter inside its coarse and fine step, over the options alone.",
        "Where the next token is no letter, little probability lies on the options.",
    ),
    "chain_effects": (
        "Which pooled heads act at which stage of the chain.",
        "Only what the variants share is patched: the options, the cue, and the chain as far as it "
        "is the same. Once the chain names the answer, the options matter less.",
    ),
}

TIE = 0.005
"""Areas closer than this are the same, however sure their difference is."""

ENDS = ("cpr_low", "cpr_high")
READOUT_WORDS = {"focus": "Focus", "confusion": "the right label inside its cluster"}


def cards(tables: Mapping[str, pd.DataFrame]) -> dict[str, go.Figure]:
    """The figure of every evidence table that has rows, by name."""
    draw = {
        "curves": drawings.faithfulness_curves,
        "areas": drawings.curve_areas,
        "stability": drawings.selection_stability,
        "sample_size": drawings.prompts_needed,
        "chain": lambda table: chains.chain_trajectories(aligned(table)),
        "chain_effects": chains.chain_effects,
    }
    return {
        name: function(tables[name])
        for name, function in draw.items()
        if name in tables and not tables[name].empty
    }


def aligned(chain: pd.DataFrame) -> pd.DataFrame:
    """Steps counted from the decision's own coarse step, where the chains have one."""
    by_own = where(chain, align="offset")
    return where(chain, align="step") if by_own.empty else by_own


def sentences(tables: Mapping[str, pd.DataFrame], *, pooled: bool = True) -> list[str]:
    """What the tables say, a sentence or two each; `pooled` says whether any head is."""
    if not pooled:
        tables = {name: table for name, table in tables.items() if name != "areas"}
        return [NO_POOL, *sentences(tables)]
    known = {"areas": _areas, "winners_curse": _curse, "turning_points": _turns}
    return [
        text
        for name, words in known.items()
        if name in tables and not tables[name].empty
        for text in words(tables[name])
    ]


NO_POOL = (
    "No head is pooled, so the pools have no order of their own: where a figure names it, heads "
    "are ranked by their score alone."
)


def _areas(areas: pd.DataFrame) -> list[str]:
    """Per readout: the pool's order against the best rival, by the area of sufficiency."""
    texts = []
    for readout, words in READOUT_WORDS.items():
        here = where(areas, kind="sufficiency", readout=readout)
        own = here.loc[here["order"] == "pool"].to_dict("records")
        rivals = here.loc[~here["order"].isin(["pool", "effect"])]
        if not own or rivals.empty:
            continue
        best = rivals.sort_values("cpr", ascending=False).to_dict("records")[0]
        name = drawings.ORDERS.get(best["order"], best["order"])
        lead = {
            "effect": -best["cpr_minus"],
            "low": -best["cpr_minus_high"],
            "high": -best["cpr_minus_low"],
        }
        verdict = "neither is surely ahead"
        if abs(lead["effect"]) < TIE:
            verdict = "a tie"
        elif lead["low"] > 0:
            verdict = "the pool's order wins"
        elif lead["high"] < 0:
            verdict = f"{name} wins"
        texts.append(
            f"Sufficiency for {words}: CPR {interval(own[0], 'cpr', *ENDS)} for the pool's order, "
            f"{interval(best, 'cpr', *ENDS)} for the best rival, {name}; difference "
            f"{interval(lead, 'effect')}: {verdict}."
        )
    return texts


def _curse(curse: pd.DataFrame) -> list[str]:
    gaps = curse["gap"].dropna()
    if gaps.empty:
        return []
    return [
        f"Effects of the {len(gaps)} pooled heads are on average {number(gaps.mean())} larger on "
        f"the selection half than on the held-out one (from {number(gaps.min())} to "
        f"{number(gaps.max())}); every effect in the head set is of the held-out half."
    ]


def _turns(turns: pd.DataFrame) -> list[str]:
    """Where along the chain Focus is there and Confusion is gone."""
    texts = []
    what = {
        "focus": "where mean Focus reaches 90 % of its last value",
        "confusion": "where mean Confusion has lost half of its first value",
        "focus_minus_confusion": "the first less the second",
    }
    axes = {"share": "shares of the chain", "offset": "steps from its own coarse step"}
    for row in turns.to_dict("records"):
        if pd.isna(row["at"]):
            said = f"undefined ({row['note']})"
        else:
            said = interval(row, "at") + (f" ({row['note']})" if row["note"] else "")
        texts.append(
            f"Along {row['source']} chains, in {axes[row['axis']]}: {what[row['what']]}: {said}."
        )
    return texts
