import numpy as np
import pytest
import torch
from scipy.stats import false_discovery_control
from transformer_lens.utilities.statistics import derive_generator

from workbench.analysis import statistics
from workbench.analysis.statistics import (
    LEAST_ERROR,
    Halves,
    bootstrap,
    deal_more,
    false_discovery_q,
    families_in_both,
    mean_statistic,
    ratio_of_means,
    split_half,
)
from workbench.errors import InputError

IDS = [name for name, n in zip("abcdefghijklmnop", [2, 1, 3, 1] * 4, strict=True) for _ in range(n)]
N = len(IDS)
"""28 events of 16 prompts."""


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
    """Bootstrap-t of a ratio, with the standard error of its linearisation written out."""
    numerator, denominator = draw(N, 3), 1 + draw(N, 3, seed=1)
    options = {"n_resamples": 200, "seed": 3, "labels": ["x"]}
    got = bootstrap(ratio_of_means, numerator, denominator, prompt_ids=IDS, **options)
    members = [[at for at, other in enumerate(IDS) if other == name] for name in dict.fromkeys(IDS)]

    def with_error(chosen: list[int]) -> tuple[np.ndarray, np.ndarray]:
        up, by = numerator.numpy(), denominator.numpy()
        ratio = up[chosen].sum(0) / by[chosen].sum(0)
        residual = up - ratio * by
        squares = [chosen.count(of[0]) * residual[of].sum(0) ** 2 for of in members]
        return ratio, np.sqrt(np.sum(squares, axis=0)) / by[chosen].sum(0)

    estimate, error = with_error(list(range(N)))
    drawn = [with_error(chosen) for chosen in naive_resamples(IDS, 200, 3, ["x"])]
    apart = [(one - estimate) / np.maximum(its, LEAST_ERROR * error) for one, its in drawn]
    np.testing.assert_allclose(got.estimate, estimate)
    np.testing.assert_allclose(got.low, estimate - np.quantile(apart, 0.975, axis=0) * error)
    np.testing.assert_allclose(got.high, estimate - np.quantile(apart, 0.025, axis=0) * error)
    loose = bootstrap(
        ratio_of_means, numerator, denominator, prompt_ids=IDS, studentised=False, **options
    )
    np.testing.assert_allclose(loose.low, np.quantile([one for one, _ in drawn], 0.025, axis=0))


@pytest.mark.parametrize("n", [15, 40])
def test_intervals_hold_the_true_ratio_of_skewed_effects(n: int):
    """Most prompts hardly move and a few do: percentiles hold it in 0.86 of samples of 15."""
    generator = torch.Generator().manual_seed(n)
    samples = torch.randn(2, n, 600, generator=generator, dtype=torch.float64)
    denominator = 0.5 + 0.5 * samples[0].sigmoid()
    numerator = denominator * (2 * samples[1] - 2).sigmoid()
    many = torch.randn(2, 400_000, generator=generator, dtype=torch.float64)
    weights = 0.5 + 0.5 * many[0].sigmoid()
    truth = (weights * (2 * many[1] - 2).sigmoid()).sum() / weights.sum()
    ids = [str(at) for at in range(n)]
    got = bootstrap(ratio_of_means, numerator, denominator, prompt_ids=ids, n_resamples=500)
    held = ((got.low <= truth) & (truth <= got.high)).double().mean()
    assert 0.92 < held < 0.98


def test_too_few_prompts_have_no_interval():
    ids = IDS[: IDS.index("o")]  # 14 prompts, 25 events
    got = bootstrap(mean_statistic, draw(len(ids)), prompt_ids=ids)
    assert got.estimate == pytest.approx(draw(len(ids)).mean().item())
    assert got.low.isnan() and got.high.isnan()
    one_more = bootstrap(mean_statistic, draw(len(ids) + 3), prompt_ids=IDS[: len(ids) + 3])
    assert one_more.low < one_more.estimate < one_more.high


def test_an_effect_of_one_prompt_has_an_end():
    """Resamples without that prompt have no deviation at all."""
    values = torch.zeros(20, dtype=torch.float64)
    values[3] = 1
    got = bootstrap(mean_statistic, values, prompt_ids=[str(at) for at in range(20)])
    assert got.low <= 0 and 0.05 < got.high < 1


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
    values = draw(N, 2)
    got = bootstrap(lambda a, b: a - b, values, values.clone(), prompt_ids=IDS, n_resamples=50)
    assert got.low.abs().max() == got.high.abs().max() == 0


def test_seed_and_labels_decide_the_stream():
    def low(**options) -> float:
        interval = bootstrap(mean_statistic, draw(N), prompt_ids=IDS, **options)
        return interval.low.item()

    assert low(seed=1) == low(seed=1)
    assert len({low(seed=1), low(seed=2), low(seed=1, labels=["y"])}) == 3


def test_slices_of_cells_change_nothing(monkeypatch):
    values = draw(N, 5, 2)
    whole = bootstrap(lambda m: m.amax(-1), values, prompt_ids=IDS, n_resamples=50)
    monkeypatch.setattr(statistics, "CELLS_AT_ONCE", 2)
    sliced = bootstrap(lambda m: m.amax(-1), values, prompt_ids=IDS, n_resamples=50)
    for a, b in zip(whole, sliced, strict=True):
        torch.testing.assert_close(a, b)


def test_resamples_without_a_counting_event_are_left_out():
    counts = torch.zeros(N, dtype=torch.float64)
    counts[2] = 1
    got = bootstrap(ratio_of_means, 0.3 * counts, counts, prompt_ids=IDS, n_resamples=100)
    assert [end.item() for end in got] == pytest.approx([0.3, 0.3, 0.3])


def test_no_counting_event_is_nan_without_warning(recwarn):
    zero = torch.zeros(N, 2)
    got = bootstrap(ratio_of_means, zero, zero, prompt_ids=IDS, n_resamples=10)
    assert all(end.isnan().all() for end in got)
    assert not recwarn.list


def test_bad_arguments_are_named():
    with pytest.raises(InputError, match="n_resamples is 0"):
        bootstrap(mean_statistic, draw(N), prompt_ids=IDS, n_resamples=0)
    with pytest.raises(InputError, match=f"{N} prompt ids"):
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


def test_prompts_of_one_family_lie_in_one_half():
    families = {name: name[0] for name in ("a1", "a2", "a3", "b1", "b2", "c1", "d1", "e1", "f1")}
    seen = set()
    for seed in range(10):
        halves = split_half(list(families), seed, families)
        assert not families_in_both(halves, families)
        assert (len(halves.choose), len(halves.verify)) == (5, 4)
        seen.add(halves)
    assert len(seen) > 1
    assert families_in_both(Halves(frozenset({"a1", "b1"}), frozenset({"a2"})), families) == 1


def test_a_family_of_most_prompts_is_split_all_the_same():
    families = {f"p{at}": min(at, 3) for at in range(12)}
    halves = split_half(list(families), 0, families)
    assert len(halves.choose) == len(halves.verify) == 6
    assert families_in_both(halves, families) == 1


def test_more_prompts_leave_every_prompt_in_its_half():
    families = {f"{family}{at}": family for family in "abcdefgh" for at in range(2)}
    first = [name for name in families if name[0] in "abcd"]
    halves = split_half(first, 1, families)
    more = families | {"a2": "a", "i0": "i"}
    grown = deal_more(halves, list(more), 1, more)
    assert halves.choose <= grown.choose and halves.verify <= grown.verify
    assert grown.choose | grown.verify == set(more) and not grown.choose & grown.verify
    assert not families_in_both(grown, more)
    assert grown.of("a2") == grown.of("a0")
    assert abs(len(grown.choose) - len(grown.verify)) <= 2
    assert grown == deal_more(halves, list(reversed(more)), 1, more)
    assert deal_more(halves, first, 1, families) == halves


def test_new_prompts_that_would_tip_the_halves_go_one_by_one():
    families = {f"p{at}": at for at in range(4)}
    halves = split_half(list(families), 0, families)
    home = families[min(halves.choose)]
    more = families | {f"q{at}": home for at in range(20)}
    grown = deal_more(halves, list(more), 0, more)
    assert len(grown.choose) == len(grown.verify) == 12


def test_two_prompts_give_one_each_and_others_are_refused():
    assert [len(half) for half in split_half(["a", "b", "a"])] == [1, 1]
    with pytest.raises(InputError, match="at least 2"):
        split_half(["a", "a"])
    with pytest.raises(InputError, match="'z' is in neither half"):
        split_half(["a", "b"]).of("z")
