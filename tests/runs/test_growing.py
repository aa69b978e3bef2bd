import pandas as pd
import pytest

from workbench.errors import InputError
from workbench.runs.growing import grown


def test_a_damaged_table_is_named(tmp_path):
    (tmp_path / "t.partial.csv").write_bytes(b"\xff\xfe,")
    with pytest.raises(InputError, match=r"t\.partial\.csv: is damaged; delete it"):
        grown(tmp_path / "t.csv", [], lambda some: pd.DataFrame())
