import pandas as pd
import pytest
import torch

from workbench.distill.matching.files import load_heads
from workbench.errors import InputError
from workbench.heads import ModelShape
from workbench.studies.students.heads import choose_heads, described, head_table, write_heads

HEADS = [(layer, head) for layer in range(4) for head in range(4)]


@pytest.fixture
def tables():
    generator = torch.Generator().manual_seed(0)

    def column():
        return torch.rand(len(HEADS), generator=generator).tolist()

    keys = pd.DataFrame(HEADS, columns=["layer", "head"])
    scores = keys.assign(coarse_chain_guarded=column(), refine_chain_guarded=column())
    effects = keys.assign(intervention="z", focus=0.0, confusion=0.0)
    acting = effects["layer"] > 1
    at_chain = pd.concat(
        [
            effects.assign(place="parting", confusion=-0.2 * acting),
            effects.assign(place="early", focus=9.0),
        ]
    )
    at_answer = effects.assign(place="span", focus=0.3 * (effects.index == 4))
    return scores, at_chain, at_answer, keys.assign(early=column(), late=column())


def test_effects_are_the_largest_of_both_places(tables):
    table = head_table(*tables).set_index(["layer", "head"])
    assert table["effect"][0, 0] == 0 and table["effect"][1, 0] == 0.3
    assert table["effect"][3, 3] == pytest.approx(0.2)
    with pytest.raises(InputError, match="all tables together of 15"):
        head_table(*tables[:3], tables[3].iloc[1:])


def test_controls_know_or_do_and_no_pooled_head_is_among_them(tables, tmp_path):
    table = head_table(*tables)
    decision = {"coarse": [(3, 3)], "refine": [(3, 2)]}
    sets = choose_heads(table, decision, size=2)
    assert set(sets) == {
        *("paper", "paper_random0", "paper_random1", "decision_random0", "decision_random1"),
        *("knows", "does"),
    }
    pooled = {
        head for pools in (sets["paper"], decision) for heads in pools.values() for head in heads
    }
    for name, pools in sets.items():
        heads = [head for some in pools.values() for head in some]
        assert len(set(heads)) == len(heads) or name == "paper"
        assert name == "paper" or not pooled & set(heads)
    effect = table.set_index(["layer", "head"])["effect"]
    assert all(effect[head] < 0.005 for pool in sets["knows"].values() for head in pool)
    assert all(effect[head] >= 0.01 for pool in sets["does"].values() for head in pool)
    free = table[(table["effect"] < 0.005)]
    free = free[[key not in pooled for key in zip(free["layer"], free["head"], strict=True)]]
    best = free.sort_values("late", ascending=False).iloc[0]
    assert sets["knows"]["refine"][0] == (best["layer"], best["head"])
    layers = sorted(layer for layer, _ in sets["paper"]["coarse"])
    assert sorted(layer for layer, _ in sets["paper_random0"]["coarse"]) == layers
    write_heads(sets, tmp_path)
    read = load_heads(tmp_path / "does.json", ModelShape(n_layers=4, n_heads=4, n_kv_heads=4))
    assert {(one.layer, one.head, one.pool) for one in read} == {
        (*head, pool) for pool, heads in sets["does"].items() for head in heads
    }
    said = described(sets, table)
    assert len(said) == 2 * len(sets) and said["early"].between(0, 1).all()
    with pytest.raises(InputError, match="too few heads"):
        choose_heads(table, size=9)
