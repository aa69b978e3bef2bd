import pandas as pd

from workbench.headsets.thresholds import Thresholds
from workbench.headsets.unnominated import unnominated


def test_heads_whose_effect_is_large_and_whose_score_is_not():
    def row(head, effect, low, measure="coarse_restore", half="choose", positions="span"):
        columns = {"layer": 1, "head": head, "effect": effect, "low": low}
        return columns | {"measure": measure, "half": half, "positions": positions}

    scores = pd.DataFrame({"layer": 1, "head": range(4), "coarse_q": [0.01, 0.5, 0.5, 0.5]})
    patching = pd.DataFrame(
        [
            row(0, 0.9, 0.8),  # its score stands out, too
            row(1, 0.3, 0.2),
            row(2, 0.6, 0.5),
            row(3, 0.2, float("nan")),  # too few prompts
            row(3, 0.9, 0.8, half="verify"),
            row(3, 0.9, 0.8, positions="decision"),
            row(0, 0.4, 0.3, "refine_reduce"),
        ]
    )
    found = unnominated(scores.assign(refine_q=0.5), patching, Thresholds())
    assert found == {"coarse": [(1, 2), (1, 1)], "refine": [(1, 0)]}
