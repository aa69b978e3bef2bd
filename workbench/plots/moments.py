"""Focus and Confusion before and after a decision's own steps of a chain, by depth of reference."""

from typing import Any

import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from workbench.phases import OF_READOUT
from workbench.plots.evidence import OTHERS
from workbench.plots.panels import PROBABILITY, band, finish, line
from workbench.plots.style import INK, drawn, nothing, require

MOMENTS = ["format", "depth", "place", "moment", "n"]
MOMENTS += [f"{readout}{end}" for readout in OF_READOUT for end in ("", "_low", "_high")]


@drawn
def own_moments(moments: pd.DataFrame) -> go.Figure:
    """A column per format of chain, a row per readout, a line per depth; 95 % bands.

    Columns: `MOMENTS`, as `own_steps` makes them by format and depth. Moments stand in the order in
    which chains of this format reach them.

    Raises:
        InputError: a column is missing.
    """
    title = "Focus and Confusion around a decision's own steps"
    if moments.empty:
        return nothing(title, "no chain was followed")
    require(moments, MOMENTS)
    formats, depths = [*dict.fromkeys(moments["format"])], [*dict.fromkeys(moments["depth"])]
    figure = make_subplots(
        rows=len(OF_READOUT),
        cols=len(formats),
        shared_yaxes=True,
        shared_xaxes=True,
        vertical_spacing=0.06,
        horizontal_spacing=0.05,
        column_titles=formats,
    )
    for column, form in enumerate(formats, start=1):
        here: Any = moments.loc[moments["format"] == form]
        order = here.groupby("moment")["share"].mean().sort_values(kind="stable").index.tolist()
        for row, readout in enumerate(OF_READOUT, start=1):
            for number, depth in enumerate(depths):
                rows = here[here["depth"] == depth].set_index("moment").reindex(order).reset_index()
                colour = (INK, *OTHERS)[number % (1 + len(OTHERS))]
                name = f"depth {depth}"
                hover = f"{name}, %{{x}}: %{{y:.3f}}<br>%{{customdata}} decisions"
                trace = line(rows, "moment", readout, name, colour, hover)
                trace.update(customdata=rows["n"])
                figure.add_traces(
                    [band(trace.x, rows, f"{readout}_", colour), trace], rows=row, cols=column
                )
            if column == 1:
                figure.update_yaxes(title_text=readout.capitalize(), row=row, col=1)
    finish(figure, title, "the answer as it stands at each moment; 95 % bands", height=600)
    figure.update_layout(margin_b=84)
    return figure.update_yaxes(range=PROBABILITY)
