"""HTML pages that open without a network: figures, plotly.js (once), styles and tables in one file.

A content security policy keeps a page from loading anything else, and what came from the user is
escaped.
"""

import re
from pathlib import Path
from typing import Any

import plotly.graph_objects as go
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from plotly.offline import get_plotlyjs

from workbench.files import write_text


def write_page(
    path: str | Path,
    template: str,
    filters: dict[str, Any],
    *,
    private: bool = False,
    **values: Any,
) -> Path:
    """Fill a template that extends `page.html.jinja` and write it; missing folders are made."""
    made = environment(filters).get_template(template)
    page = made.render(plotly_js=Markup(get_plotlyjs()), **values)
    path = Path(path)
    write_text(path, page, private=private)
    return path


def environment(filters: dict[str, Any]) -> Environment:
    """The templates of this package; what is handed in is escaped, unless it is `Markup`."""
    made = Environment(
        loader=PackageLoader("workbench", "plots"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters |= filters
    return made


def write_figure(path: str | Path, figure: go.Figure) -> Path:
    """One figure as a page of its own."""
    title = re.sub("<[^>]*>", " ", figure.layout.title.text or "Figure")  # type: ignore[attr-defined]
    return write_page(path, "figure.html.jinja", {}, title=title, figure=_html(figure, "figure"))


def _html(figure: go.Figure, name: str) -> Markup:
    """A figure without plotly.js."""
    return Markup(
        figure.to_html(
            full_html=False,
            include_plotlyjs=False,
            div_id=name,
            default_width="100%",
            config={"displaylogo": False, "responsive": True, "modeBarButtons": [["toImage"]]},
        )
    )


def card(name: str, figure: go.Figure, supports: str, limits: str) -> dict[str, Any]:
    """A figure as HTML without plotly.js, with what it can and cannot support.

    The figure's title doubles as the text alternative.
    """
    label = figure.layout.title.text  # type: ignore[attr-defined]
    return {
        "html": _html(figure, f"figure-{name}"),
        "label": label,
        "supports": supports,
        "limits": limits,
    }
