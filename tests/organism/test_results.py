import pandas as pd
import pytest

import workbench as wb
from workbench.errors import InputError


def test_tables_and_head_sets_that_come_along_are_had_by_name():
    table = wb.results("reasoner/patching")
    assert isinstance(table, pd.DataFrame)
    assert {"layer", "head", "measure", "effect"} <= set(table.columns)
    assert wb.results("reasoner/headset").in_pool("refine")


@pytest.mark.parametrize("name", ["reasoner/patchin", "../organism/config", ""])
def test_a_name_that_is_none_is_refused_with_those_that_are_like_it(name):
    with pytest.raises(InputError, match="no such table; there are"):
        wb.results(name)
    if name == "reasoner/patchin":
        with pytest.raises(InputError, match="reasoner/patching"):
            wb.results(name)
