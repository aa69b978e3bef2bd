"""Intervals, paired differences and means over seeds, where the answer is known."""

import numpy as np
import pandas as pd
import pytest
import torch

from workbench.analysis.label_space.label_sets import answer_scores
from workbench.analysis.label_space.ranking import interval
from workbench.analysis.statistics import bootstrap, mean_statistic, resample_weights
from workbench.distill.evaluation.statistics import difference, draw, over_seeds, per_student
from workbench.errors import InputError

N = 40


def rows(student: str, right: np.ndarray, arm: str = "cot", seed: int = 0) -> pd.DataFrame:
    """Answers of one label, right where `right` says so."""
    gold = [f"l{prompt}" for prompt in range(len(right))]
    listed = [label if good else "?" for label, good in zip(gold, right, strict=True)]
    scores = answer_scores([[label] for label in gold], [[label] for label in listed])
    who = {"student": student, "arm": arm, "seed": seed, "setting": "direct"}
    return scores.assign(prompt=range(len(right)), gold=gold, listed=listed, **who)


def some(share: float, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).random(N) < share


def test_intervals_are_those_of_the_bootstrap():
    right = some(0.6)
    table = per_student(draw(rows("s", right), n_resamples=300, seed=3)).set_index("measure")
    values = torch.tensor(right.astype(float))
    expected = bootstrap(
        mean_statistic,
        values,
        prompt_ids=[str(n) for n in range(N)],
        n_resamples=300,
        seed=3,
        labels=["evaluate"],
        studentised=False,
    )
    got = table.loc["exact", ["value", "low", "high"]].to_numpy(float)
    np.testing.assert_allclose(got, [float(end) for end in expected], atol=1e-12)
    assert table.loc["micro_f1", "value"] == pytest.approx(right.mean())
    # A wrong answer adds a label of its own, "?", of F1 0.
    assert table.loc["macro_f1", "value"] == pytest.approx(right.sum() / (N + 1))


def test_two_students_that_err_alike_differ_by_nothing():
    right = some(0.5)
    drawn = draw(pd.concat([rows("a", right), rows("b", right)]), n_resamples=100)
    assert (difference(drawn, "a", "b")[["value", "low", "high"]] == 0).all(axis=None)
    better = right.copy()
    better[np.flatnonzero(~right)[:10]] = True
    drawn = draw(pd.concat([rows("a", better), rows("b", right)]), n_resamples=500)
    exact = difference(drawn, "a", "b").set_index("measure").loc["exact"]
    assert exact["value"] == pytest.approx(0.25)
    own = per_student(drawn).set_index(["student", "measure"]).loc[("b", "exact")]
    assert 0 < exact["low"] < exact["high"] < 0.4
    assert exact["high"] - exact["low"] < own["high"] - own["low"]  # paired
    with pytest.raises(InputError, match="'c'"):
        difference(drawn, "a", "c")


def test_seeds_widen_the_interval_and_pairs_cancel_them():
    base = {seed: some(share, seed) for seed, share in enumerate((0.1, 0.5, 0.9))}
    parts = [rows(f"c{seed}", right, "cot", seed) for seed, right in base.items()]
    for seed, right in base.items():
        better = right.copy()
        better[np.flatnonzero(~right)[:2]] = True
        parts.append(rows(f"m{seed}", better, "mechanistic", seed))
    parts.append(rows("teacher", some(1.0), "teacher"))
    parts.append(rows("odd", some(0.3), "custom"))
    drawn = draw(pd.concat(parts), n_resamples=400)
    table = over_seeds(drawn)
    assert set(table["arm"]) == {"cot", "mechanistic"} and set(table["n_seeds"]) == {3}
    exact = table[table["measure"] == "exact"].set_index(["arm", "against"])
    alone = exact.loc[("cot", "")]
    assert alone["value"] == pytest.approx(np.mean([right.mean() for right in base.values()]))
    assert alone["high"] - alone["low"] > 0.5  # seeds are far apart, prompts alone give about 0.15
    paired = exact.loc[("mechanistic", "cot")]
    assert paired["value"] == pytest.approx(2 / N) and paired["high"] < 0.12
    assert exact.loc[("cot", "mechanistic"), "value"] == pytest.approx(-2 / N)


def test_one_seed_gives_the_interval_over_prompts():
    drawn = draw(rows("s", some(0.6)), n_resamples=200)
    ends = ["value", "low", "high"]
    np.testing.assert_allclose(over_seeds(drawn)[ends], per_student(drawn)[ends])
    with pytest.raises(InputError, match=r"'s' and 't' are both of arm 'cot' and seed 0"):
        over_seeds(draw(pd.concat([rows("s", some(0.6)), rows("t", some(0.6))]), n_resamples=9))


def test_students_of_other_prompts_are_refused():
    with pytest.raises(InputError, match="student 'b', direct: other prompts"):
        draw(pd.concat([rows("a", some(0.5)), rows("b", some(0.5)[:-1])]), n_resamples=9)


def test_effects_are_ratios_over_the_events_that_count():
    ids = [f"p{n}" for n in range(24)]
    numerator = np.array([0.4, 0.2, 0.1, 0, 0.3, 0.2, 0.1, 0] * 3)
    denominator = np.array([0.5, 0.4, 0.5, 0, 0.5, 0.4, 0.2, 0] * 3)
    who = {"student": "s", "arm": "cot", "seed": 0, "setting": "coarse", "event": 0}
    table = pd.DataFrame({"id": ids, "numerator": numerator, "denominator": denominator})
    table = table.assign(**who, measure="coarse_restore", counts=denominator > 0)
    [row] = per_student(draw(table, n_resamples=200)).to_dict("records")
    assert row["value"] == pytest.approx(numerator.sum() / denominator.sum()) and row["n"] == 18
    assert row["low"] < row["value"] < row["high"]
    few = table.assign(counts=[True] * 14 + [False] * 10)
    [row] = per_student(draw(few, n_resamples=200)).to_dict("records")
    assert row["n"] == 14 and np.isnan(row["low"]) and not np.isnan(row["value"])
    none = table.assign(counts=False, numerator=0.0, denominator=0.0)
    drawn = draw(none, n_resamples=20)
    [row] = per_student(drawn).to_dict("records")
    assert row["n"] == 0 and np.isnan([row["value"], row["low"], row["high"]]).all()
    assert over_seeds(drawn)[["n_seeds"]].to_numpy().tolist() == [[0]]


def test_weights_sum_to_one_and_begin_with_every_prompt_once():
    weights = resample_weights(["a", "a", "b"], 50, 0, "x")
    assert weights.shape == (51, 3) and np.allclose(weights.sum(axis=1), 1)
    assert np.allclose(weights[0], 1 / 3) and (weights[:, 0] == weights[:, 1]).all()
    assert interval(np.array([0.5, np.nan, np.nan]))[0] == 0.5
