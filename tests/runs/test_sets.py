import pytest

from workbench.studies.found import find_pools
from workbench.studies.planted.models import plant

FEW = {"n_resamples": 200, "n_permutations": 1000}


@pytest.mark.parametrize("kind", ["redundant_3", "hydra"])
def test_heads_that_replace_one_another_are_found_in_pairs(kind):
    planted = plant(30, 3, 4, kind=kind)
    found = find_pools(planted.model, planted.prompts, seed=30, **FEW)
    assert {name: heads for name, heads in found.pools.items() if heads} == {
        name: heads for name, heads in planted.pools.items() if heads
    }


def test_heads_that_matter_only_in_the_mass_are_not_pooled():
    planted = plant(30, 3, 4, kind="mlp")
    found = find_pools(planted.model, planted.prompts, seed=30, **FEW)
    assert not found.pools["refine"]
    assert found.heads == planted.declared
