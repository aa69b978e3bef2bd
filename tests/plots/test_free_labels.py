import numpy as np
import pandas as pd
import pytest

from workbench.errors import InputError
from workbench.plots.free_labels import FEWEST, NAMES, SUMMARY, free_labels


@pytest.fixture
def summary() -> pd.DataFrame:
    rows = [
        (align, variant, place, 0.9, 0.8, 1.0, 9, 0.1, 0.0, 0.2, 9 - 8 * (place == 3))
        for align in ("token", "share")
        for variant in NAMES
        for place in (3, 1, 2)
    ]
    return pd.DataFrame(rows, columns=SUMMARY)


def test_a_line_for_each_variant_quantity_and_axis(summary):
    figure = free_labels(summary)
    lines = [trace for trace in figure.data if trace.name]
    assert len(lines) == 2 * 2 * 3
    assert [trace.name for trace in lines if trace.showlegend is not False] == [*NAMES.values()]
    axes = [axis.title.text for axis in figure.select_xaxes() if axis.title.text]
    assert axes == ["share of the label", "token of the label"]


def test_places_of_too_few_prompts_are_left_out(summary):
    focus, confusion = (
        next(t for t in free_labels(summary).data if t.name and t.yaxis == axis)
        for axis in ("y", "y3")
    )
    assert list(focus.x) == [1, 2, 3]
    assert list(confusion.x) == [1, 2]
    summary[["n_focus", "n_confusion"]] = FEWEST - 1
    assert not free_labels(summary).data


def test_missing_values_and_columns(summary):
    summary.loc[summary["place"] == 2, ["focus", "focus_low", "focus_high"]] = np.nan
    assert free_labels(summary).data
    assert not free_labels(summary.iloc[:0]).data
    with pytest.raises(InputError, match="n_focus"):
        free_labels(summary.drop(columns="n_focus"))
