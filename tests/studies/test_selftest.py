import math
from functools import partial

import pandas as pd
import pytest

from workbench.errors import InputError
from workbench.studies import selftest
from workbench.studies.planted import plant
from workbench.studies.selftest import (
    SelfTest,
    compare,
    false_positive_rate,
    find_pools,
    random_bundled_model,
    run_placements,
)

FEW = {"n_resamples": 300, "n_permutations": 1000}


@pytest.mark.parametrize("shape", [(3, 4, 4), (3, 8, 4), (4, 8, 2), (6, 4, 4)])
def test_planted_heads_are_found_and_nothing_else(shape):
    planted = plant(11, *shape)
    found = find_pools(planted.model, planted.prompts, seed=11, **FEW)
    assert found.coarse == planted.coarse
    assert found.refine == planted.refine
    assert found.n_valid == 12
    row = compare(planted, found)
    assert row["coarse_precision"] == row["refine_recall"] == 1
    assert row["distractors_pooled"] == 0


@pytest.mark.parametrize("role", ["match", "refine_readout"])
def test_a_refine_head_that_writes_nothing_empties_the_refine_pool(role):
    planted = plant(11, 3, 4, without=[role], n_prompts=18)
    found = find_pools(planted.model, planted.prompts, all_valid=True, **FEW)
    assert not found.refine
    assert found.coarse == planted.coarse
    row = compare(planted, found)
    assert row["refine_recall"] == 0
    assert row["refine_found"] == ""
    assert row["coarse_recall"] == 1


def test_patching_only_heads_that_beat_their_null_gives_the_same_pools():
    planted = plant(12, 2, 4, n_prompts=16)
    some, every = (
        find_pools(planted.model, planted.prompts, every_head=flag, **FEW) for flag in (False, True)
    )
    assert some == every
    assert some.coarse == planted.coarse
    assert some.refine == planted.refine


def test_a_model_that_fails_the_task_has_no_pools_unless_every_event_is_made_to_count():
    roles = ["coarse_readout", "refine_readout"]
    planted = plant(11, 3, 4, without=roles, n_prompts=8)
    assert find_pools(planted.model, planted.prompts, **FEW).n_valid == 0
    found = find_pools(planted.model, planted.prompts, all_valid=True, **FEW)
    assert found.n_valid == 4


def test_compare_counts_missed_wrong_and_distracting_heads():
    planted = plant(0, 3, 4, n_prompts=2)
    missed = sorted(planted.coarse)[0]
    distractor = sorted(planted.distractors)[0]
    found = selftest.Found((planted.coarse - {missed}) | {distractor}, frozenset(), 1, 2)
    row = compare(planted, found)
    assert (row["coarse_precision"], row["coarse_recall"]) == (0.5, 0.5)
    assert (row["refine_precision"], row["refine_recall"]) == (1, 0)
    assert row["distractors_pooled"] == 1
    assert f"{distractor[0]}-{distractor[1]}" in row["coarse_found"].split()


def test_exact_interval_of_the_false_positive_rate():
    # No success: the upper end solves (1 - p)^n = 0.025.
    none = false_positive_rate(pd.DataFrame({"n_pooled": [0] * 10}))
    assert (none.k, none.n, none.rate, none.low) == (0, 10, 0, 0)
    assert none.high == pytest.approx(1 - 0.025 ** (1 / 10))
    # One of two: the lower end solves 1 - (1 - p)^2 = 0.025. Two heads of one model count once.
    one = false_positive_rate(pd.DataFrame({"n_pooled": [2, 0]}))
    assert one.rate == 0.5
    assert one.low == pytest.approx(1 - math.sqrt(0.975))
    assert one.high == pytest.approx(math.sqrt(0.975))


def test_bad_tables_and_counts_are_refused():
    for frame in (pd.DataFrame(), pd.DataFrame({"n_pooled": []})):
        with pytest.raises(InputError, match="n_pooled"):
            false_positive_rate(frame)
    with pytest.raises(InputError, match="n is 0 models"):
        run_placements(0)


def test_random_models_are_seeded_and_attend_unevenly():
    first, again, other = (random_bundled_model(seed) for seed in (1, 1, 2))
    assert first.info.weights_sha256 == again.info.weights_sha256 != other.info.weights_sha256
    [run] = first.run([list(range(100))], ["blocks.0.attn.hook_pattern"])
    assert float(run.activations["blocks.0.attn.hook_pattern"][:, -1].max()) > 0.05


def test_random_models_go_through_the_method_on_given_prompts(monkeypatch):
    planted = plant(0, 2, 4, n_prompts=4)
    models = [planted.model, plant(1, 2, 4, without=["coarse_readout", "refine_readout"]).model]
    monkeypatch.setattr(selftest, "random_bundled_model", lambda seed: models[seed])
    steps = []
    frame = selftest.run_random_models(
        2, prompts=planted.prompts, progress=lambda done, of: steps.append((done, of))
    )
    assert frame["seed"].tolist() == [0, 1]
    assert frame["n_counting"].tolist() == [2, 0]
    assert frame["n_pooled"].tolist()[1] == 0
    assert steps == [(1, 2), (2, 2)]


def test_summary_lines_say_what_came_out():
    frame = pd.DataFrame(
        {
            "coarse_true": ["0-1 1-2", "0-0 1-0"],
            "coarse_found": ["0-1 1-2", "0-0"],
            "coarse_precision": [1.0, 1.0],
            "coarse_recall": [1.0, 0.5],
            "refine_true": ["0-2 1-3"] * 2,
            "refine_found": ["0-2 1-3"] * 2,
            "refine_precision": [1.0] * 2,
            "refine_recall": [1.0] * 2,
            "distractors_pooled": [0, 1],
        }
    )
    random = pd.DataFrame(
        {"n_pooled": [0, 0, 0, 1], "n_counting": [0, 0, 2, 8], "n_nominated": [0, 0, 0, 1]}
    )
    row = {"prompts": "evidence moved", "coarse_heads": "", "refine_heads": "4-6", "n_counting": 9}
    test = SelfTest(frame, random, random, pd.DataFrame([row]))
    text = "\n".join(test.lines()).replace("\N{NO-BREAK SPACE}", " ")
    assert not test.exact
    assert SelfTest(frame.head(1), random, random, pd.DataFrame()).exact
    assert "coarse heads: exactly found in 1 of 2 models" in text
    assert "distractors: 1 of 6 were pooled" in text
    assert "1 of 4 (25 %, 95 % interval 1 % to 81 %); some valid pair in 2" in text
    assert "some head was nominated in 1" in text
    assert text.endswith("evidence moved: coarse none, refine 4-6 (9 valid pairs)")


def test_falsified_prompts_take_the_same_way_as_true_ones(monkeypatch):
    monkeypatch.setattr(selftest, "find_pools", partial(find_pools, **FEW))
    planted = plant(11, 3, 4, 4)
    frame = selftest.run_falsified(model=planted.model, prompts=planted.prompts)
    true, roles, evidence = frame.to_dict("records")
    assert true["n_pooled"] == len(planted.coarse | planted.refine) > 0
    assert roles["n_pooled"] == 0 and roles["n_counting"] < true["n_counting"]
    assert evidence["n_counting"] == true["n_counting"]
