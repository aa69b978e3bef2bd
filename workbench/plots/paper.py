"""The paper's figures from a model's own tables: heads ranked, trajectories, stages of the chain.

Saha Roy, Wallace and Aslam, arXiv 2606.06840, figures 1, 2 and 4. What the paper reports is drawn
in grey beside ours.
"""

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from workbench.phases import PHASES
from workbench.plots.evidence import DASHES, OTHERS
from workbench.plots.panels import band, error_bars, finish, line
from workbench.plots.style import CONTROL, INK, drawn, nothing, require, where

CHAIN_SCORES = {
    "coarse_chain": ("coarse", "coarse_chain, as written"),
    "refine_chain": ("refine", "refine_chain, as written"),
    "coarse_chain_guarded": ("coarse", "coarse_chain, guarded"),
    "refine_chain_guarded": ("refine", "refine_chain, guarded"),
}
ALONG = {
    "focus": "Focus, probability",
    "focus_text": "Focus, text",
    "confusion": "Confusion, probability",
    "confusion_text": "Confusion, text",
}
STAGED = {
    "qk_shortlist": "QK to the shortlist",
    "qk_near": "QK to near misses",
    "cos_margin": "cos(write, gradient of margin)",
}
KINDS = {
    "evidence": PHASES["coarse"].colour,
    "relevant label": PHASES["refine"].colour,
    "other label": CONTROL,
    "rest": "#dde1e6",
}
MOST_HEADS, MOST_NAMED = 16, 8
SIGNIFICANT = 0.05


@drawn
def heads_ranked(scores: pd.DataFrame) -> go.Figure:
    """The first heads by each chain score, with 95 % intervals.

    Columns: layer, head, and each of `CHAIN_SCORES` with `_low`, `_high` and `_q`. Full bars beat
    their null (q ≤ 0.05), open ones do not. The text of a bar is the head.

    Raises:
        InputError: a column is missing.
    """
    title = "Heads ranked at chain tokens"
    if scores.empty:
        return nothing(title, "no chain was read")
    ends = [f"{name}{end}" for name in CHAIN_SCORES for end in ("", "_low", "_high", "_q")]
    require(scores, ["layer", "head", *ends])
    names = [text for _, text in CHAIN_SCORES.values()]
    figure = make_subplots(
        rows=2, cols=2, subplot_titles=names, vertical_spacing=0.16, horizontal_spacing=0.08
    )
    for number, (name, (phase, _)) in enumerate(CHAIN_SCORES.items()):
        rows = scores.dropna(subset=[name]).nlargest(MOST_HEADS, name)
        heads = [f"{a}-{b}" for a, b in zip(rows["layer"], rows["head"], strict=True)]
        beats = rows[f"{name}_q"].to_numpy(float) <= SIGNIFICANT
        colour = PHASES[phase].colour
        bars = go.Bar(x=heads, y=rows[name], showlegend=False)
        bars.update(marker={"color": np.where(beats, colour, "white"), "line_color": colour})
        bars.update(marker_line_width=1.5, customdata=rows[[f"{name}_q"]])
        bars.update(hovertemplate="%{x}: %{y:.3g}, q = %{customdata[0]:.2g}<extra></extra>")
        spread = error_bars(rows[name], rows[f"{name}_low"], rows[f"{name}_high"], color=INK)
        bars.update(error_y=spread | {"thickness": 1, "width": 2})
        figure.add_trace(bars, row=number // 2 + 1, col=number % 2 + 1)
    subtitle = f"the {MOST_HEADS} first; bars: 95 % interval; full: q ≤ {SIGNIFICANT} (by family)"
    finish(figure, title, subtitle, height=640, margin_b=56)
    return figure.update_xaxes(type="category", tickangle=-60, tickfont_size=11)


@drawn
def early_attention(attention: pd.DataFrame) -> go.Figure:
    """Where heads look at early chain queries: mean weight of every token of the document.

    Columns: layer, head, position, text, kind, weight; a row of panels per head.

    Raises:
        InputError: a column is missing.
    """
    title = "An early head's attention over the document"
    if attention.empty:
        return nothing(title, "no early token was read")
    require(attention, ["layer", "head", "position", "text", "kind", "weight"])
    heads = [*dict.fromkeys(zip(attention["layer"], attention["head"], strict=True))]
    names = [f"head {layer}-{head}" for layer, head in heads]
    figure = make_subplots(rows=len(heads), shared_xaxes=True, subplot_titles=names)
    for row, (layer, head) in enumerate(heads, start=1):
        here = attention.loc[(attention["layer"] == layer) & (attention["head"] == head)]
        for kind, colour in KINDS.items():
            rows = where(here, kind=kind)
            bars = go.Bar(x=rows["position"], y=rows["weight"], marker_color=colour, name=kind)
            bars.update(marker_line_width=0, width=1, customdata=rows["text"])
            bars.update(hovertemplate="%{x}: %{customdata} %{y:.3f}<extra></extra>")
            figure.add_trace(bars, row=row, col=1)
        for one in here.nlargest(MOST_NAMED, "weight").to_dict("records"):
            figure.add_annotation(
                x=one["position"], y=one["weight"], text=one["text"].strip() or "␣",
                showarrow=False, yshift=8, font_size=10, row=row, col=1,
            )  # fmt: skip
        figure.update_yaxes(title_text="weight", row=row)
    subtitle = "mean over early queries; what lies on the chain itself is not shown"
    finish(figure, title, subtitle, height=160 + 230 * len(heads), bargap=0)
    return figure.update_xaxes(title_text="token of the document", row=len(heads))


@drawn
def trajectories(along: pd.DataFrame, reported: pd.DataFrame | None = None) -> go.Figure:
    """Focus and Confusion along the chain of a teacher and of students, by probability and by text.

    Columns: model, quantity, t, value, low, high; the first model is the teacher, in black.
    `reported` (model, quantity, t, value) is drawn in grey, where it has a panel.

    Raises:
        InputError: a column is missing.
    """
    title = "Focus and Confusion along the chain"
    if along.empty:
        return nothing(title, "no chain was followed")
    require(along, ["model", "quantity", "t", "value", "low", "high"])
    shown = [name for name in ALONG if name in set(along["quantity"])]
    figure = make_subplots(
        rows=-(-len(shown) // 2),
        cols=2 if len(shown) > 1 else 1,
        subplot_titles=[ALONG[name] for name in shown],
        vertical_spacing=0.13,
        horizontal_spacing=0.08,
    )
    models = [*dict.fromkeys(along["model"])]
    for number, quantity in enumerate(shown):
        row, column = number // 2 + 1, number % 2 + 1
        given = pd.DataFrame() if reported is None else where(reported, quantity=quantity)
        for at, name in enumerate(dict.fromkeys(() if given.empty else given["model"])):
            rows = where(given, model=name)
            trace = line(rows, "t", "value", f"paper: {name}", CONTROL, f"{name}: %{{y:.2f}}")
            trace.update(line={"dash": DASHES[at % len(DASHES)], "width": 1}, marker_size=4)
            figure.add_traces([trace], rows=row, cols=column)
        for model in models:
            rows = where(where(along, quantity=quantity), model=model)
            if rows.empty:
                continue
            colour = (INK, *OTHERS)[models.index(model) % (1 + len(OTHERS))]
            trace = line(rows, "t", "value", model, colour, f"{model}, t %{{x}}: %{{y:.3f}}")
            trace.update(mode="lines")
            figure.add_traces([band(trace.x, rows, "", colour), trace], rows=row, cols=column)
    subtitle = "95 % bands over prompts; grey: reported by the paper"
    finish(figure, title, subtitle, height=200 + 240 * -(-len(shown) // 2))
    return figure.update_xaxes(title_text="t, share of the chain", row=-(-len(shown) // 2))


@drawn
def stages(stages: pd.DataFrame) -> go.Figure:
    """What the leading heads of `refine_chain` do in each stage of the chain.

    Columns: layer, head, stage, place, quantity, value, low, high, n.

    Raises:
        InputError: a column is missing.
    """
    title = "Leading heads, stage by stage of the chain"
    if stages.empty:
        return nothing(title, "no stage has a query after a shortlist")
    require(stages, ["layer", "head", "stage", "place", "quantity", "value", "low", "high", "n"])
    figure = make_subplots(
        cols=len(STAGED), subplot_titles=list(STAGED.values()), horizontal_spacing=0.08
    )
    heads = [*dict.fromkeys(zip(stages["layer"], stages["head"], strict=True))]
    ordered = stages.sort_values("place").drop_duplicates("stage")["stage"].tolist()
    for column, quantity in enumerate(STAGED, start=1):
        for number, (layer, head) in enumerate(heads):
            rows = where(stages, quantity=quantity)
            rows = rows.loc[(rows["layer"] == layer) & (rows["head"] == head)].sort_values("place")
            colour = (INK, *OTHERS)[number % (1 + len(OTHERS))]
            hover = f"{layer}-{head}, %{{x}}: %{{y:.3f}}<br>%{{customdata}} decisions"
            trace = line(rows, "stage", "value", f"{layer}-{head}", colour, hover)
            trace.update(customdata=rows["n"], line_dash=DASHES[number // (1 + len(OTHERS))])
            trace.update(error_y=error_bars(rows["value"], rows["low"], rows["high"]))
            trace.update(error_y={"thickness": 1, "width": 2})
            figure.add_trace(trace, row=1, col=column)
    subtitle = "after a decision's shortlist; QK: attention score less the row's mean; 95 % bars"
    finish(figure, title, subtitle, height=420)
    figure.update_xaxes(categoryorder="array", categoryarray=ordered, title_text="chain tokens")
    return figure
