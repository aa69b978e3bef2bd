import pandas as pd
import pytest

import workbench as wb
from workbench.errors import InputError
from workbench.runs.config import RunConfig
from workbench.studies.planted.models import plant

FAST = {"heads": "nominated", "positions": ("span",), "n_resamples": 50, "n_permutations": 100}


def test_pools_by_the_papers_rule_say_so_and_are_patched_beside_controls(tmp_path):
    planted = plant(3, 2, 4, n_prompts=12)
    heads = [(layer, head) for layer in range(2) for head in range(4)]
    chain = pd.DataFrame(heads, columns=["layer", "head"])
    chain["coarse_chain"] = [9.0, 1.0, *[0.0] * 6]
    chain["refine_chain"] = [*[0.0] * 7, 2.0]
    chain.to_csv(tmp_path / "scores.csv", index=False)
    config = RunConfig(chain_scores=str(tmp_path / "scores.csv"), n_chain=2, draws=2, **FAST)
    found = wb.find_heads(planted.model, planted.prompts, config)
    headset = found.headset
    assert {(head.layer, head.head): head.pool for head in headset.heads} == {
        (0, 0): "coarse",
        (0, 1): "coarse",
        (1, 3): "refine",
    }
    assert headset.method.rules == {"coarse": "paper", "refine": "paper"}
    joint = found.pools
    assert set(joint["set"]) == {"pool", "random", "norm"}

    chain.iloc[1:].to_csv(tmp_path / "scores.csv", index=False)
    with pytest.raises(InputError, match="chain scores are of 7 heads"):
        wb.find_heads(planted.model, planted.prompts, config)
