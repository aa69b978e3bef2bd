"""What the paper reports beside what was found, row by row, and whether the direction agrees."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from workbench.heads import head_name
from workbench.phases import OF_READOUT
from workbench.studies import reported
from workbench.studies.ranked_chains import leaders as ranked_by

COLUMNS = ["what", "paper", "ours", "low", "high", "agrees", "note"]
PAPER_ORDER = "paper chain"
"""Name of the ordering by the paper's scores as written, in cumulative curves."""
SIGNIFICANT = 0.05
SMALLEST = 0.02
"""Change along the chain that counts as one."""


def compared(
    scores: pd.DataFrame,
    along: pd.DataFrame,
    stages: pd.DataFrame,
    curves: pd.DataFrame,
    *,
    teacher: str,
) -> pd.DataFrame:
    """Columns: what, paper, ours (numbers), low, high, agrees (of a direction), note.

    Values of another model, text and embedding need not agree; directions may: Focus rises early,
    Confusion falls late, coarse heads lie below refining ones, QK to the shortlist rises over the
    stages, QK to near misses falls, cos(write, gradient) rises, patched patterns move a readout.
    """
    rows: list[dict[str, Any]] = []
    model = along["model"].iloc[0] if len(along) else teacher
    rows += _leaders(scores)
    given = reported.reported_along()
    given = given.loc[given["model"] == given["model"].iloc[0]]
    for record in given.to_dict("records"):
        for quantity in (record["quantity"], str(record["quantity"]).removesuffix("_text")):
            rows.append(_at(along, model, quantity, record))
    for readout, sign in (("focus", 1), ("confusion", -1)):
        names = (f"{readout}_text", f"{readout}_text_contrast", readout)
        rows += [_trend(along, model, name, sign) for name in names]
    for quantity, sign in (("qk_shortlist", 1), ("qk_near", -1), ("cos_margin", 1)):
        rows.append(_stages(stages, quantity, sign))
    rows += _together(curves)
    return pd.DataFrame(rows).reindex(columns=COLUMNS)


def _leaders(scores: pd.DataFrame) -> list[dict[str, Any]]:
    """The highest scores, and the depth of the four heads that lead."""
    n_layers = int(scores["layer"].to_numpy().max()) + 1
    rows, depths = [], {}
    for name, leaders in (
        ("coarse_chain", reported.COARSE_LEADERS), ("refine_chain", reported.REFINE_LEADERS),
    ):  # fmt: skip
        [theirs, *_] = [value for value in leaders.values() if value is not None]
        depth = float(np.mean([layer / reported.N_LAYERS for layer, _ in leaders]))
        for column in (name, f"{name}_guarded"):
            ranked = ranked_by(scores, column)
            if not ranked:
                rows.append({"what": f"highest {column}", "note": "no chain has the queries"})
                continue
            first = scores.set_index(["layer", "head"]).loc[[ranked[0]]].iloc[0]
            guarded = column != name
            rows.append(
                {"what": f"highest {column}", "paper": np.nan if guarded else theirs}
                | {"ours": first[column], "low": first[f"{column}_low"]}
                | {"high": first[f"{column}_high"]}
                | {"note": f"head {head_name(*ranked[0])}, q = {first[f'{column}_q']:.2g}"}
            )
            passed = int((scores[f"{column}_q"].to_numpy() <= SIGNIFICANT).sum())
            rows.append({"what": f"heads with q ≤ {SIGNIFICANT} by {column}", "ours": passed})
            mine = [layer / n_layers for layer, _ in ranked[: len(leaders)]]
            depths[column] = float(np.mean(mine))
            named = ", ".join(head_name(*head) for head in ranked[: len(leaders)])
            rows.append(
                {"what": f"depth of the first four by {column}", "paper": depth}
                | {"ours": depths[column], "note": named}
            )
    for end in ("", "_guarded"):
        if not {f"coarse_chain{end}", f"refine_chain{end}"} <= set(depths):
            continue
        below = depths[f"coarse_chain{end}"] < depths[f"refine_chain{end}"]
        what = f"coarse heads lie below refining ones{' (guarded)' if end else ''}"
        rows.append({"what": what, "agrees": below})
    return rows


def _at(
    along: pd.DataFrame, model: str, quantity: str, record: Mapping[Any, Any]
) -> dict[str, Any]:
    row = {"what": f"{quantity} at t = {record['t']:g}", "paper": record["value"]}
    own = along.loc[(along["model"] == model) & (along["quantity"] == quantity)]
    own = own.loc[np.isclose(own["t"], record["t"])]
    return row | ({} if own.empty else _interval(own.iloc[0]))


def _interval(row: Any) -> dict[str, Any]:
    return {"ours": row["value"], "low": row["low"], "high": row["high"]}


def _trend(along: pd.DataFrame, model: str, quantity: str, sign: int) -> dict[str, Any]:
    """The change along the chain, and how much of it falls into its first half."""
    own = along.loc[(along["model"] == model) & (along["quantity"] == quantity)].sort_values("t")
    what = f"{quantity} {'rises' if sign > 0 else 'falls'} along the chain"
    if own.empty:
        return {"what": what, "note": "not measured"}
    values = own["value"].to_numpy(float)
    half = values[int(np.searchsorted(own["t"].to_numpy(float), 0.5 - 1e-9))]
    change = values[-1] - values[0]
    if abs(change) < SMALLEST:
        return {"what": what, "ours": change, "note": f"changes by less than {SMALLEST:g}"}
    share = (half - values[0]) / change
    return {"what": what, "ours": change, "agrees": bool(sign * change > 0)} | {
        "note": f"{share:.0%} of the change in the first half"
    }


def _stages(stages: pd.DataFrame, quantity: str, sign: int) -> dict[str, Any]:
    """Change from the first stage to the last, mean over the heads that have both."""
    own = stages.loc[stages["quantity"] == quantity]
    changes = []
    for _, rows in own.groupby(["layer", "head"]) if len(own) else ():
        rows = rows.sort_values("place")
        if len(rows) > 1:
            changes.append(rows["value"].iloc[-1] - rows["value"].iloc[0])
    what = f"{quantity} {'rises' if sign > 0 else 'falls'} over the stages"
    if not changes:
        return {"what": what, "note": "fewer than two stages follow a shortlist"}
    mean = float(np.mean(changes))
    right = sum(sign * change > 0 for change in changes)
    return {"what": what, "ours": mean, "agrees": sign * mean > 0} | {
        "note": f"{right} of {len(changes)} heads"
    }


def _together(curves: pd.DataFrame) -> list[dict[str, Any]]:
    """Patterns of the first k heads by the paper's score, at the first place, beside its values.

    They agree where k heads lead some of the way to the other run, by the interval.
    """
    if curves.empty:
        return [{"what": "patterns of the first heads together", "note": "not measured"}]
    own = curves.loc[(curves["place"] == curves["place"].iloc[0])]
    own = own.loc[(own["intervention"] == "pattern") & (own["order"] == PAPER_ORDER)]
    rows = []
    for record in reported.reported_cumulative().to_dict("records"):
        here = own.loc[(own["readout"] == record["readout"]) & (own["k"] == record["k"])]
        here = here.loc[here["direction"] == record["direction"]]
        phase = OF_READOUT[str(record["readout"])]
        what = f"{phase.readout_title}, {record['direction']}, first {record['k']} patterns"
        row: dict[str, Any] = {"what": what, "paper": record["value"]}
        if len(here):
            found = here.iloc[0]
            ends = ("low", "high") if phase.rises else ("high", "low")
            low, high = (phase.good(found[f"value_{end}"]) for end in ends)
            row |= {"ours": phase.good(found["value"]), "low": low, "high": high}
            row |= {"note": f"{found['explained']:.0%} of the way"} if record["k"] else {}
            if record["k"] and not np.isnan(found["explained_low"]):
                row |= {"agrees": bool(found["explained_low"] > 0)}
        rows.append(row)
    return rows
