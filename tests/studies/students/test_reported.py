"""Tables and page of the study of the reasoner's students are of the results beside them."""

from pathlib import Path

import pandas as pd
import pytest

from workbench.studies.students import tables
from workbench.studies.students.place import read_results

ROOT = Path(__file__).parents[3]
STUDY = ROOT / "data" / "results" / "reasoner_study"
PAGE = ROOT / "docs" / "pages" / "results" / "reasoner_students.md"


@pytest.fixture(scope="module")
def results():
    return read_results(STUDY)


def test_the_tables_are_of_the_results(results):
    kept = pd.read_csv(STUDY / "arms.csv", keep_default_na=False, na_values=[""])
    made = tables.arms(results)
    keys = ["series", *tables.WHERE, "against", "measure"]
    both = kept.fillna({"against": ""}).merge(made, on=keys, suffixes=("", "_made"))
    assert len(both) == len(kept) == len(made)
    for name in ("value", "low", "high", "n_seeds"):
        assert both[name].to_numpy() == pytest.approx(both[f"{name}_made"].to_numpy(), abs=1e-4)


def test_the_page_says_what_the_tables_say(results):
    page = PAGE.read_text().replace("−", "-")
    made = tables.arms(results)
    exact = made.loc[(made["measure"] == "exact") & (made["against"] == "")]
    for one in exact.to_dict("records"):
        shown = f"{one['value']:.3f} [{one['low']:.3f}, {one['high']:.3f}]"
        assert shown in page, one["series"]
    made = made.loc[(made["measure"] == "exact") & (made["steps"] == 300)]
    made = made.loc[made["traces"] == 8000]
    from_cot = made.loc[(made["against"] == "cot") & ~made["series"].str.contains("-p[12]_")]
    for one in from_cot.to_dict("records"):
        shown = f"{one['value']:+.3f} [{one['low']:.3f}, {one['high']:.3f}]"
        assert shown in page, one["series"]
    for one in made.loc[made["against"] == "phases@paper"].to_dict("records"):
        shown = f"{-one['value']:+.3f} [{-one['high']:.3f}, {-one['low']:.3f}]"
        assert shown in page, one["series"]
