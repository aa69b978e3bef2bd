import pandas as pd
import pytest

from workbench.analysis.chains.own_steps import MOMENTS, own_steps
from workbench.errors import InputError


def chain(name: str, labels: list[str], focus: list[float]) -> pd.DataFrame:
    steps = range(len(labels))
    return pd.DataFrame(
        {
            "model": "m",
            "id": name,
            "event": 0,
            "step": steps,
            "share": [step / (len(labels) - 1) for step in steps],
            "label": labels,
            "focus": focus,
            "confusion": [1 - value for value in focus],
            "p_gold": focus,
        }
    )


def test_moments_are_around_own_steps_wherever_they_stand():
    first = chain("a", ["direct", "before", "coarse", "other", "fine", "after"], [0, 1, 2, 3, 4, 5])
    # All sides first: the fine step stands before the coarse one.
    second = chain("b", ["direct", "fine", "other", "coarse", "fine"], [10, 11, 12, 13, 14])
    found = own_steps(first).set_index("moment")["focus"]
    assert found.to_dict() == dict(zip(MOMENTS, [0, 1, 2, 3, 4, 5], strict=True))
    found = own_steps(second).set_index("moment")["focus"]
    assert found.to_dict() == dict(zip(MOMENTS, [10, 12, 13, 10, 11, 14], strict=True))


def test_means_are_by_group_over_chains_that_have_both_steps():
    labels = ["direct", "coarse", "fine"]
    table = pd.concat(
        [
            chain("a", labels, [0.0, 0.5, 1.0]).assign(depth="0"),
            chain("b", labels, [0.2, 0.7, 1.0]).assign(depth="0"),
            chain("c", labels, [0.4, 0.4, 0.4]).assign(depth="1"),
            chain("d", ["direct", "coarse", "after"], [1.0, 1.0, 1.0]).assign(depth="1"),
        ]
    )
    found = own_steps(table, ["depth"], n_resamples=50).set_index(["depth", "moment"])
    assert found.loc[("0", "after coarse"), "focus"] == pytest.approx(0.6)
    assert found.loc[("0", "after coarse"), "n"] == 2
    assert found.loc[("1", "end"), ["focus", "n"]].tolist() == [0.4, 1]
    with pytest.raises(InputError, match="no chain has both a coarse and a fine step"):
        own_steps(chain("d", ["direct", "coarse", "after"], [1.0, 1.0, 1.0]))
