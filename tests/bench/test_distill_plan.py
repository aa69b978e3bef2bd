from dataclasses import replace

import pytest
import torch

from workbench.bench.distill_plan import GIB, Plan, check_memory, estimate, find_shape, pools, table
from workbench.errors import InputError

ARMS = ("cot+logits", "mechanistic")
LARGE = Plan("llama3-70b", "llama3-8b", ARMS, source="sharded", checkpointing=True)


def test_weights_and_optimizer_are_shared_among_the_cards():
    four, eight = (estimate(LARGE, world)["backward"] for world in (4, 8))
    assert four["teacher"] == pytest.approx(2 * 70_553_706_496 / 4 / GIB)
    for part in ("teacher", "student, float32", "gradients", "AdamW"):
        assert eight[part] == pytest.approx(four[part] / 2)
    assert four["all"] == pytest.approx(sum(four.values()) - four["all"])
    assert four["all"] < 79 < estimate(replace(LARGE, batch=4), 4)["backward"]["all"]
    disk = estimate(replace(LARGE, source="disk"), 4, sharded=True)
    assert "teacher" not in disk["backward"]
    assert disk["targets"]["teacher"] == pytest.approx(four["teacher"])
    assert table(estimate(LARGE, 4))[-1].split()[:1] == ["all"]


def test_what_does_not_fit_is_refused_in_a_line():
    estimated = estimate(LARGE, 2)
    with pytest.raises(InputError, match=r"takes about \d+ GiB a card, which has 79: take more"):
        check_memory(estimated, torch.device("cpu"), 79 * GIB)
    check_memory(estimated, torch.device("cpu"))  # of a CPU nothing is known


def test_plans_that_cannot_be_are_refused():
    with pytest.raises(InputError, match="shape 'llama3-9b'"):
        Plan(find_shape("llama3-9b"), find_shape("8b"), ARMS)
    with pytest.raises(InputError, match="arm 'circuit' needs scores of real models"):
        Plan("tiny", "tiny", ("circuit",))
    with pytest.raises(InputError, match="tokens is 100, must be at least 256"):
        Plan("tiny", "tiny", ARMS, tokens=100)
    with pytest.raises(InputError, match="90 options do not fit"):
        Plan("tiny", "tiny", ARMS, options=90, tokens=256)


def test_pools_are_heads_of_the_teacher():
    found = pools(LARGE)
    assert {pool: len(set(heads)) for pool, heads in found.items()} == {"coarse": 8, "refine": 8}
    assert max(found["coarse"])[0] < min(found["refine"])[0] < 80
    assert all(head < 64 for heads in found.values() for _, head in heads)
