"""Figure of freely written labels: Focus and Confusion at the tokens of a label's text."""

import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from workbench.phases import OF_READOUT
from workbench.plots.panels import PROBABILITY, band, finish, line
from workbench.plots.style import VARIANT_COLOUR, drawn, nothing, require, where

SUMMARY = ["align", "variant", "place"]
SUMMARY += [
    name
    for readout in OF_READOUT
    for name in (readout, f"{readout}_low", f"{readout}_high", f"n_{readout}")
]

AXES = {
    "share": "share of the label",
    "parting": "token from the parting one",
    "token": "token of the label",
}
"""Title of the axis of every way to align labels, in the order shown."""

FEWEST = 5
"""Places that fewer prompts reach are not drawn."""

NAMES = {
    "clean": "the note itself",
    "far": "mention of another cluster",
    "near": "mention of a near miss",
}


@drawn
def free_labels(summary: pd.DataFrame) -> go.Figure:
    """Focus and Confusion along the gold label, a column for each way to align labels.

    Columns: `SUMMARY`, as `workbench.analysis.free_labels.free_summary` gives them. A line for each
    variant, with its 95 % band; the label's own first tokens are given in all of them.

    Raises:
        InputError: a column is missing.
    """
    title = "Focus and Confusion while a label is written"
    if summary.empty:
        return nothing(title, "no label was followed")
    require(summary, SUMMARY)
    aligns = [align for align in AXES if align in set(summary["align"])]
    figure = make_subplots(
        rows=2,
        cols=len(aligns),
        shared_yaxes=True,
        shared_xaxes=True,
        horizontal_spacing=0.04,
        vertical_spacing=0.08,
    )
    for column, align in enumerate(aligns, start=1):
        for row, quantity in enumerate(OF_READOUT, start=1):
            for variant, colour in VARIANT_COLOUR.items():
                rows = where(summary, align=align, variant=variant).sort_values("place")
                rows = pd.DataFrame(rows[rows[f"n_{quantity}"] >= FEWEST])
                if rows.empty:
                    continue
                name = NAMES[variant]
                hover = f"{name}<br>%{{x:.2~f}}: %{{y:.3f}}<br>%{{customdata}} prompts"
                trace = line(rows, "place", quantity, name, colour, hover)
                trace.update(customdata=rows[f"n_{quantity}"])
                shade = band(trace.x, rows, f"{quantity}_", colour)
                figure.add_traces([shade, trace], rows=row, cols=column)
        figure.update_xaxes(title_text=AXES[align], row=2, col=column)
    for row, phase in enumerate(OF_READOUT.values(), start=1):
        figure.update_yaxes(title_text=phase.readout_title, row=row, col=1)
    subtitle = "out of all labels of the space; the label's first tokens are given; 95 % band"
    finish(figure, title, subtitle, height=600, margin_t=72)  # no panel titles
    return figure.update_yaxes(range=PROBABILITY)
