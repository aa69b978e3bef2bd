import numpy as np
import pytest
import torch
from scipy.stats import false_discovery_control
from transformer_lens.utilities.statistics import derive_generator

from workbench.analysis import statistics
from workbench.analysis.statistics import (
    bootstrap,
    false_discovery_q,
    mean_statistic,
    ratio_of_means,
    split_half,
)
from workbench.errors import InputError

IDS = ["a", "a", "b", "c", "c", "c", "d"]


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def naive_resamples(ids: list[str], n_resamples: int, seed: int, labels: list[str]) -> list[list]:
    """Event indices of each resample: whole prompts, drawn one by one."""
    prompts = list(dict.fromkeys(ids))
    drawn = torch.randint(
        0, len(prompts), (n_resamples, len(prompts)), generator=derive_generator(seed, *labels)
    )
    members = {name: [i for i, other in enumerate(ids) if other == name] for name in prompts}
    return [[i for index in row for i in members[prompts[index]]] for row in drawn.tolist()]


def test_ratio_interval_equals_a_loop_over_resampled_prompts():
    numerator, denominator = draw(7, 3), 1 + draw(7, 3, seed=1)
    options = {"n_resamples": 200, "seed": 3, "labels": ["x"]}
    got = bootstrap(ratio_of_means, numerator, denominator, prompt_ids=IDS, **options)
    values = np.array(
        [
            (numerator[chosen].mean(0) / denominator[chosen].mean(0)).numpy()
            for chosen in naive_resamples(IDS, 200, 3, ["x"])
        ]
    )
    np.testing.assert_allclose(got.estimate, numerator.mean(0) / denominator.mean(0))
    np.testing.assert_allclose(got.low, np.quantile(values, 0.025, axis=0))
    np.testing.assert_allclose(got.high, np.quantile(values, 0.975, axis=0))


def test_interval_agrees_with_the_normal_approximation():
    values = draw(400)
    got = bootstrap(mean_statistic, values, prompt_ids=[str(i) for i in range(400)])
    half_width = 1.96 * values.std().item() / 20
    assert got.low.item() == pytest.approx(values.mean().item() - half_width, abs=0.1 * half_width)
    assert got.high.item() == pytest.approx(values.mean().item() + half_width, abs=0.1 * half_width)


def test_events_of_one_prompt_are_not_independent():
    """Copies of every event add no information."""
    values = draw(40)
    ids = [str(i) for i in range(40)]
    once = bootstrap(mean_statistic, values, prompt_ids=ids)
    copied = bootstrap(mean_statistic, values.repeat(5), prompt_ids=ids * 5)
    assert (copied.high - copied.low).item() == pytest.approx((once.high - once.low).item())


def test_difference_of_identical_arrays_has_no_width():
    values = draw(7, 2)
    got = bootstrap(lambda a, b: a - b, values, values.clone(), prompt_ids=IDS, n_resamples=50)
    assert got.low.abs().max() == got.high.abs().max() == 0


def test_seed_and_labels_decide_the_stream():
    def low(**options) -> float:
        interval = bootstrap(mean_statistic, draw(7), prompt_ids=list("abcdefg"), **options)
        return interval.low.item()

    assert low(seed=1) == low(seed=1)
    assert len({low(seed=1), low(seed=2), low(seed=1, labels=["y"])}) == 3


def test_slices_of_cells_change_nothing(monkeypatch):
    values = draw(7, 5, 2)
    whole = bootstrap(lambda m: m.amax(-1), values, prompt_ids=IDS, n_resamples=50)
    monkeypatch.setattr(statistics, "CELLS_AT_ONCE", 2)
    sliced = bootstrap(lambda m: m.amax(-1), values, prompt_ids=IDS, n_resamples=50)
    for a, b in zip(whole, sliced, strict=True):
        torch.testing.assert_close(a, b)


def test_resamples_without_a_counting_event_are_left_out():
    counts = torch.tensor([0, 0, 1, 0, 0, 0, 0], dtype=torch.float64)
    got = bootstrap(ratio_of_means, 0.3 * counts, counts, prompt_ids=IDS, n_resamples=100)
    assert [end.item() for end in got] == pytest.approx([0.3, 0.3, 0.3])


def test_no_counting_event_is_nan_without_warning(recwarn):
    zero = torch.zeros(7, 2)
    got = bootstrap(ratio_of_means, zero, zero, prompt_ids=IDS, n_resamples=10)
    assert all(end.isnan().all() for end in got)
    assert not recwarn.list


def test_bad_arguments_are_named():
    with pytest.raises(InputError, match="n_resamples is 0"):
        bootstrap(mean_statistic, draw(7), prompt_ids=IDS, n_resamples=0)
    with pytest.raises(InputError, match="7 prompt ids"):
        bootstrap(mean_statistic, draw(6), prompt_ids=IDS)


def test_false_discovery_ranges_over_all_cells():
    p_values = draw(3, 4)
    expected = false_discovery_control(p_values.numpy().ravel()).reshape(3, 4)
    np.testing.assert_array_equal(false_discovery_q(p_values), expected)


def test_halves_are_disjoint_complete_and_reproducible():
    halves = split_half(IDS, seed=4)
    assert halves.choose | halves.verify == set(IDS)
    assert not halves.choose & halves.verify
    assert halves == split_half(list(reversed(IDS)), seed=4)
    assert len({split_half(IDS, seed=seed) for seed in range(10)}) > 1
    assert {halves.of(name) for name in halves.choose} == {"choose"}


def test_two_prompts_give_one_each_and_others_are_refused():
    assert [len(half) for half in split_half(["a", "b", "a"])] == [1, 1]
    with pytest.raises(InputError, match="at least 2"):
        split_half(["a", "a"])
    with pytest.raises(InputError, match="'z' is in neither half"):
        split_half(["a", "b"]).of("z")
