import json

import pandas as pd
from headsets.test_headset import document  # noqa: F401  (a fixture)

from workbench.headsets.annotate import add_evidence
from workbench.headsets.headset import HeadSet, load, parse, save


def test_evidence_is_added_by_pool_and_survives_the_file(document, tmp_path) -> None:  # noqa: F811
    bare = parse(json.dumps(document))
    first, *others = bare.heads
    share = {"pool": first.pool, "layer": first.layer, "head": first.head, "share": 0.9}
    # The same head chosen for the other pool is another matter.
    wrong = share | {"pool": "refine" if first.pool == "coarse" else "coarse", "share": 0.1}
    columns = {"kind": "sufficiency", "cpr_low": 0.1, "cpr_high": float("nan")}
    areas = pd.DataFrame(
        [
            columns | {"order": "score", "readout": "focus", "cpr": 0.5},
            columns | {"order": "pool", "readout": "focus", "cpr": 0.4},
            columns | {"order": "pool", "readout": "confusion", "cpr": 0.3},
        ]
    )
    found = add_evidence(bare, pd.DataFrame([share, wrong]), areas)
    assert isinstance(found, HeadSet)
    assert found.heads[0].chosen_share == 0.9
    assert all(head.chosen_share == 0.0 for head in found.heads[1:]) and len(others) > 0
    for pool in found.pools:
        expected = [("pool", 0.4), ("score", 0.5)] if pool.pool == "coarse" else [("pool", 0.3)]
        assert [(area.order, area.cpr) for area in pool.areas] == expected
        assert {area.high for area in pool.areas} == {None}
    save(found, tmp_path / "h.json")
    assert load(tmp_path / "h.json") == found
