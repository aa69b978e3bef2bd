import pandas as pd

from workbench.studies.selftest import SelfTest


def test_summary_lines_say_what_came_out():
    names = ("coarse", "refine", "carrier", "mover", "suppressor")
    blank = {f"{name}_{side}": "" for name in names for side in ("true", "found")}
    planted = pd.DataFrame([{"kind": "chains", **blank, "coarse_true": "0-1", "decoys_pooled": 0}])
    random = pd.DataFrame(
        {"n_pooled": [0, 0, 0, 1], "n_counting": [0, 0, 2, 8], "n_nominated": [0, 0, 0, 1]}
    )
    row = {"prompts": "evidence moved", "heads": "refine: 4-6", "n_counting": 9}
    test = SelfTest(planted, random, random, random, pd.DataFrame([row]))
    first, *rates, last = [line.replace("\N{NO-BREAK SPACE}", " ") for line in test.lines()]
    assert first == "chains (1 models): coarse UNDETECTED (0 of 1); 0 decoys pooled"
    assert len(rates) == 3
    for line in rates:
        assert "1 of 4 (25 %, 95 % interval 1 % to 81 %); some valid pair in 2" in line
        assert "some head was nominated in 1" in line
    assert last == "evidence moved: refine: 4-6 (9 valid pairs)"
