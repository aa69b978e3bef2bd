import pytest

from workbench.studies.found import find_pools
from workbench.studies.planted.models import plant

FEW = {"n_resamples": 300, "n_permutations": 1000}


@pytest.mark.parametrize("shape", [(3, 4, 4), (4, 8, 2), (6, 4, 4)])
def test_planted_heads_are_found_and_nothing_else(shape):
    planted = plant(11, *shape)
    found = find_pools(planted.model, planted.prompts, seed=11, **FEW)
    assert {name: found.pools[name] for name in ("coarse", "refine")} == {
        name: planted.pools[name] for name in ("coarse", "refine")
    }
    assert found.heads == planted.declared
    assert found.n_valid >= 15  # the halves keep families apart, and are not quite equal


@pytest.mark.parametrize("part", ["match", "refine_readout"])
def test_a_refine_head_that_writes_nothing_empties_the_refine_pool(part):
    planted = plant(11, 3, 4, without=[part], n_prompts=30)
    found = find_pools(planted.model, planted.prompts, all_valid=True, **FEW)
    assert not found.pools["refine"]
    assert found.pools["coarse"] == planted.pools["coarse"]


def test_a_model_that_fails_the_task_has_no_pools_unless_every_event_is_made_to_count():
    parts = ["coarse_readout", "refine_readout"]
    planted = plant(11, 3, 4, without=parts, n_prompts=8)
    assert find_pools(planted.model, planted.prompts, **FEW).n_valid == 0
    found = find_pools(planted.model, planted.prompts, all_valid=True, **FEW)
    assert 4 <= found.n_valid <= 5
