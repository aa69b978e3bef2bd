"""What all figures share: colours, titles and units, the template, numbers, and table helpers.

Blue marks the coarse pool and the far counterfactual, orange the refine pool and the near one,
other pools have colours of their own, purple is a read-out head, grey a control.
"""

import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from functools import wraps
from typing import Any, TypeVar, cast

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from workbench.errors import InputError
from workbench.measures import MEASURES
from workbench.phases import PHASES
from workbench.roles import POOL_WORDS

READ_OUT = "#7b3fa0"
CONTROL, INK, UNPATCHED = "#8a9099", "#252a31", "#dde1e6"
POOL_COLOUR = {name: words.colour for name, words in POOL_WORDS.items()}
VARIANT_COLOUR = {"clean": INK} | {p.counterfactual: p.colour for p in PHASES.values()}

POSITIONS = {"decision": "at the decision token", "span": "over the whole suffix"}


def _template() -> go.layout.Template:
    """White, thin grid, one sans-serif face from the reader's own machine."""
    line = "#c9ced6"
    axis = {"gridcolor": "#eceff2", "linecolor": line, "tickcolor": line, "zeroline": False}
    axis |= {
        "ticks": "outside",
        "ticklen": 4,
        "title": {"standoff": 8, "font": {"size": 13}},
        "automargin": True,
    }
    subtitle_font = {"size": 12, "color": "#5b6470"}
    layout = go.Layout(
        font={"family": "Inter, Helvetica Neue, Helvetica, Arial, sans-serif", "size": 13},
        font_color=INK,
        title={"x": 0, "xanchor": "left", "y": 1, "yanchor": "top", "pad": {"t": 14, "l": 14}},
        title_font_size=16,
        title_subtitle_font=subtitle_font,
        margin={"l": 56, "r": 24, "t": 72, "b": 84},
        paper_bgcolor="white",
        plot_bgcolor="white",
        xaxis=axis,
        yaxis=axis,
        legend={"orientation": "h", "x": 0, "xref": "container", "y": 0, "yref": "container"},
        legend_yanchor="bottom",
        hoverlabel={"align": "left", "bgcolor": "white", "font": {"color": INK}},
    )
    return go.layout.Template(layout=layout)


TEMPLATE = _template()


def titles(title: str, subtitle: str = "") -> dict[str, Any]:
    """Layout arguments that every figure starts from: the template, a title and a subtitle."""
    return {"template": TEMPLATE, "title": {"text": title, "subtitle": {"text": subtitle}}}


def nothing(title: str, reason: str) -> go.Figure:
    """A figure that says why it is empty."""
    figure = go.Figure()
    figure.update_layout(**titles(title), height=200)
    figure.update_xaxes(visible=False)
    figure.update_yaxes(visible=False)
    figure.add_annotation(text=reason, x=0.5, y=0.5, xref="paper", yref="paper", showarrow=False)
    return figure


_FORMAT = re.compile(r'<(?!/?(?:b|br|extra|span)>|span style="[\w:;#%. -]*">)')
"""What begins a tag, unless it is one that figures use."""
_Drawn = TypeVar("_Drawn", bound=Callable[..., Any])


def drawn(function: _Drawn) -> _Drawn:
    """A function that returns a figure, or figures by name, in which names are shown as text.

    Plotly takes a part of HTML, links too, wherever it shows text; labels, arms and ids of others
    end up there.
    """

    @wraps(function)
    def escaped(*args: Any, **kwargs: Any) -> Any:
        made = function(*args, **kwargs)
        if isinstance(made, go.Figure):
            return _escaped(made)
        return {name: _escaped(figure) for name, figure in made.items()}

    return cast(_Drawn, escaped)


def _escaped(figure: go.Figure) -> go.Figure:
    made: Any = figure
    before = [trace.to_plotly_json() for trace in made.data], made.layout.to_plotly_json()
    found: list[str] = []
    data, layout = _without_tags(before, found)
    return go.Figure(data, layout) if found else figure


def _without_tags(value: Any, found: list[str]) -> Any:
    if isinstance(value, str):
        found += [value] * bool(_FORMAT.search(value))
        return _FORMAT.sub("&lt;", value)
    if isinstance(value, Mapping):
        return {key: _without_tags(one, found) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_without_tags(one, found) for one in value]
    if isinstance(value, np.ndarray) and value.dtype.kind in "OU":
        return np.array([_without_tags(one, found) for one in value.tolist()], dtype=object)
    return value


def number(value: Any) -> str:
    """About three significant digits, with a true minus sign; text as it is; a dash for nothing."""
    if isinstance(value, str):
        return value
    if value is None or not np.isfinite(value):
        return "–"
    digits = f"{value:.2f}" if 0.1 <= abs(value) < 100 else f"{value:.3g}"
    return digits.replace("-", "−")


def interval(row: Mapping[Any, Any], value: str, low: str = "low", high: str = "high") -> str:
    """A number with the ends of its interval, if it has one, from these columns of a row."""
    ends = number(row[low]), number(row[high])
    return number(row[value]) + (f" [{', '.join(ends)}]" if ends != ("–", "–") else "")


def require(table: pd.DataFrame, columns: Sequence[str]) -> None:
    """Check that the table has these columns.

    Raises:
        InputError: one is missing; the message names the first.
    """
    missing = [column for column in columns if column not in table]
    if missing:
        raise InputError(f"table: column {missing[0]!r} is missing; it has {named(table.columns)}")


def where(table: pd.DataFrame, **equal: str) -> pd.DataFrame:
    """Rows whose columns have these values."""
    keep = np.ones(len(table), dtype=bool)
    for column, value in equal.items():
        keep &= np.asarray(table[column] == value)
    return pd.DataFrame(table.loc[keep])


ScoreWords = Mapping[str, tuple[str, str]]
"""Score → its title and unit."""


def score_names(columns: Iterable[str]) -> list[str]:
    """Scores of a scores table: the columns that have an interval, in order."""
    known = list(columns)
    return [name for name in known if f"{name}_low" in known]


def score_words(name: str, words: ScoreWords | None = None) -> tuple[str, str]:
    """Title and unit of a score; its name where no words are known."""
    own = {phase.name: (phase.score_title, phase.score_unit) for phase in PHASES.values()}
    return (words or {}).get(name) or own.get(name) or (name.replace("_", " ").capitalize(), "")


def shown_measures(present: Collection[str]) -> list[str]:
    """Measures of a table in the order shown, on one axis: a boost as a difference where known.

    In probability; margins stay in the table.
    """
    return [
        name
        for name, one in MEASURES.items()
        if name in present and one.absolute not in present and not one.margin
    ]


def named(values: Iterable[object]) -> str:
    """Distinct values in quotes, for an error message."""
    return ", ".join(repr(value) for value in dict.fromkeys(values))


def percent(value: Any) -> str:
    """A share as a whole percentage; a dash where there is no number."""
    return _fixed(value, 100.0, 0, "\N{NO-BREAK SPACE}%")


def two_digits(value: Any) -> str:
    """Two digits behind the point, so that the numbers of a table line up."""
    return _fixed(value, 1.0, 2, "")


def _fixed(value: Any, factor: float, digits: int, unit: str) -> str:
    """A true minus sign, and none before a number that rounds to 0."""
    if value is None or pd.isna(value):
        return "–"
    return f"{factor * value:z.{digits}f}".replace("-", "−") + unit
