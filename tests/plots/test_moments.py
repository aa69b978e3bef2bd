import pandas as pd
import pytest

from workbench.errors import InputError
from workbench.plots.moments import own_moments


def moments() -> pd.DataFrame:
    rows = []
    for form, order in [("shortlists first", ["direct", "coarse", "fine"]), ("sides first", None)]:
        for depth in ("0", "2+"):
            for place, moment in enumerate(["direct", "coarse", "fine"]):
                share = (order or ["direct", "fine", "coarse"]).index(moment) / 2
                row = {"format": form, "depth": depth, "place": place, "moment": moment}
                row |= {"share": share, "n": 10}
                for readout in ("focus", "confusion"):
                    row |= {readout: 0.5, f"{readout}_low": 0.4, f"{readout}_high": 0.6}
                rows.append(row)
    return pd.DataFrame(rows)


def test_a_line_for_every_depth_in_the_order_of_the_format():
    figure = own_moments(moments())
    lines = [trace for trace in figure.data if trace.name]
    assert len(lines) == 2 * 2 * 2  # formats, readouts, depths
    assert {trace.name for trace in lines} == {"depth 0", "depth 2+"}
    orders = {tuple(trace.x) for trace in lines}
    assert orders == {("direct", "coarse", "fine"), ("direct", "fine", "coarse")}


def test_tables_that_cannot_be_drawn():
    with pytest.raises(InputError, match="depth"):
        own_moments(moments().drop(columns="depth"))
    assert "no chain was followed" in str(own_moments(pd.DataFrame()).to_dict())
