import pandas as pd

from workbench.phases import MIN_PROMPTS
from workbench.runs.summary import explain_too_few


def baseline(n_choose: int, n_verify: int) -> pd.DataFrame:
    halves = ["choose"] * n_choose + ["verify"] * n_verify
    rows = [
        {"id": str(number), "event": 0, "half": half, "variant": variant, "counts_far": True}
        for number, half in enumerate(halves)
        for variant in ("clean", "far", "near")
    ]
    return pd.DataFrame(rows).assign(counts_near=False)


def test_what_too_few_valid_pairs_cost_is_said_for_each_phase_and_half():
    lines = explain_too_few(baseline(MIN_PROMPTS, MIN_PROMPTS - 1))
    assert [line.split(": ")[0] for line in lines] == ["coarse", "refine", "refine"]
    assert "14 prompts of the held-out half" in lines[0] and "no intervals" in lines[0]
    assert "0 prompts of the selection half" in lines[1] and "no head can be pooled" in lines[1]


def test_nothing_is_said_where_there_are_enough():
    table = baseline(MIN_PROMPTS, MIN_PROMPTS).assign(counts_near=True)
    assert explain_too_few(table) == []
