import math
from functools import partial

import pandas as pd
import pytest

from workbench.errors import InputError
from workbench.studies import false_finds
from workbench.studies.false_finds import (
    false_positive_rate,
    random_bundled_model,
    run_bystanders,
    run_falsified,
    run_random_models,
)
from workbench.studies.found import find_pools
from workbench.studies.planted.models import plant

FEW = {"n_resamples": 300, "n_permutations": 1000}


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


def test_bad_tables_and_counts_are_refused(tmp_path):
    for frame in (pd.DataFrame(), pd.DataFrame({"n_pooled": []})):
        with pytest.raises(InputError, match="n_pooled"):
            false_positive_rate(frame)
    planted = plant(0, 2, 4, n_prompts=2)
    with pytest.raises(InputError, match="n is 0"):
        run_random_models(tmp_path / "random.csv", 0, prompts=planted.prompts)


def test_random_models_are_seeded_and_attend_unevenly():
    first, again, other = (random_bundled_model(seed) for seed in (1, 1, 2))
    assert first.info.weights_sha256 == again.info.weights_sha256 != other.info.weights_sha256
    [run] = first.run([list(range(100))], ["blocks.0.attn.hook_pattern"])
    assert float(run.activations["blocks.0.attn.hook_pattern"][:, -1].max()) > 0.05


def test_random_models_go_through_the_method_on_given_prompts(monkeypatch, tmp_path):
    planted = plant(0, 2, 4, n_prompts=4)
    models = [planted.model, plant(1, 2, 4, without=["coarse_readout", "refine_readout"]).model]
    monkeypatch.setattr(false_finds, "random_bundled_model", lambda seed: models[seed])
    steps = []
    path = tmp_path / "random.csv"

    def run() -> pd.DataFrame:
        return run_random_models(
            path, 2, prompts=planted.prompts, progress=lambda done, of: steps.append((done, of))
        )

    frame = run()
    assert frame["seed"].tolist() == [0, 1]
    assert frame["n_counting"].tolist() == [2, 0]
    assert frame["n_pooled"].tolist()[1] == 0
    assert steps == [(1, 2), (2, 2)]
    models.clear()  # what is there is not made again
    pd.testing.assert_frame_equal(run(), frame)


def test_nothing_is_pooled_where_a_bystander_family_is_gold(monkeypatch, tmp_path):
    monkeypatch.setattr(false_finds, "find_pools", partial(find_pools, **FEW))
    planted = plant(11, 3, 4)
    frame = run_bystanders(
        tmp_path / "bystanders.csv",
        2,
        model=planted.model,
        prompts=planted.prompts,
        family=lambda label: str(int(label.split()[1]) // 4),
    )
    assert frame["n_counting"].tolist() == [21, 21]  # halves keep families apart
    assert frame["n_pooled"].tolist() == [0, 0]


def test_falsified_prompts_take_the_same_way_as_true_ones(monkeypatch):
    monkeypatch.setattr(false_finds, "find_pools", partial(find_pools, **FEW))
    planted = plant(11, 3, 4, 4)
    frame = run_falsified(model=planted.model, prompts=planted.prompts)
    true, roles, evidence = frame.to_dict("records")
    assert true["n_pooled"] == len(planted.declared) > 0
    assert true["heads"].startswith("coarse: ")
    assert roles["n_pooled"] == 0 and roles["n_counting"] < true["n_counting"]
    assert evidence["n_counting"] == true["n_counting"]
