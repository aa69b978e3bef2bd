import pandas as pd
import plotly.graph_objects as go
import plotly.io as pio
import pytest

from workbench.plots import notebook


@pytest.fixture(autouse=True)
def as_before():
    renderer = pio.renderers.default
    with pd.option_context("display.precision", 6, "display.max_colwidth", 50):
        yield
    pio.renderers.default = renderer


def test_a_figure_is_saved_as_data_alone_unless_a_picture_is_asked_for():
    notebook(digits=2)
    bundle = pio.renderers._build_mime_bundle(go.Figure().to_dict())
    assert set(bundle) == {"application/vnd.plotly.v1+json"}
    assert "1.23" in str(pd.DataFrame([1.2345])) and "1.234" not in str(pd.DataFrame([1.2345]))
    notebook(png=True)
    assert pio.renderers.default == "plotly_mimetype+png"
