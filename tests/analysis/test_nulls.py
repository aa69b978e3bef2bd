import pytest
import torch

from workbench.analysis.nulls import coarse_null_p, refine_null_p
from workbench.errors import InputError

N_EVENTS, SHAPE = 12, (10, 20)
WEIGHTS = torch.tensor([0.5, 0.5, -0.25, -0.25, -0.25, -0.25, 0.0], dtype=torch.float64)


def noise(*shape: int, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def coarse_values(planted: float = 0.0) -> list[torch.Tensor]:
    values = [noise(7, *SHAPE, 2, seed=seed) for seed in range(N_EVENTS)]
    for value in values:
        value[:2, 0, 0, 1] += planted  # relevant options, one head, the second route
    return values


def test_coarse_p_is_uniform_on_noise_and_small_for_a_planted_head():
    p = coarse_null_p(coarse_values(planted=3.0), [WEIGHTS] * N_EVENTS, n_permutations=499)
    assert p[0, 0] == pytest.approx(1 / 500)
    others = p.flatten()[1:]
    assert others.mean().item() == pytest.approx(0.5, abs=0.07)
    assert (others <= 0.2).double().mean().item() == pytest.approx(0.2, abs=0.09)


def test_coarse_p_equals_a_loop_over_shuffled_roles():
    values, weights = coarse_values(), [WEIGHTS] * N_EVENTS
    p = coarse_null_p(values, weights, n_permutations=400, seed=1)

    def score(rows: list[torch.Tensor]) -> torch.Tensor:
        contrasts = [v[r[:2]].mean(0) - v[r[2:]].mean(0) for v, r in zip(values, rows, strict=True)]
        return torch.stack(contrasts).mean(0).amax(-1)

    observed = score([torch.arange(6)] * N_EVENTS)
    generator = torch.Generator().manual_seed(0)
    shuffles = [
        [torch.randperm(6, generator=generator) for _ in range(N_EVENTS)] for _ in range(400)
    ]
    slow = torch.stack([score(rows) >= observed for rows in shuffles]).double().mean(0)
    assert (p - slow).abs().max() < 0.13  # two independent samples of 400: sd at most 0.035
    assert (p - slow).abs().mean() < 0.04


def test_options_left_out_have_no_influence():
    values = coarse_values()
    loud = [value.clone() for value in values]
    for value in loud:
        value[6] = 1e6
    options = {"weights": [WEIGHTS] * N_EVENTS, "n_permutations": 50}
    torch.testing.assert_close(coarse_null_p(values, **options), coarse_null_p(loud, **options))


def test_options_may_differ_in_number_between_events():
    smaller = torch.tensor([1.0, -0.5, -0.5], dtype=torch.float64)
    p = coarse_null_p(
        [noise(7, 1, 1, 2, seed=0), noise(3, 1, 1, 2, seed=1)],
        [WEIGHTS, smaller],
        n_permutations=20,
    )
    assert 1 / 21 <= p.item() <= 1


def test_refine_p_is_uniform_on_noise_and_small_for_a_planted_head():
    effects = [noise(3 + seed % 3, *SHAPE, seed=seed) for seed in range(N_EVENTS)]
    gold = [seed % 3 for seed in range(N_EVENTS)]
    for value, row in zip(effects, gold, strict=True):
        value[row, 0, 0] += 5.0
    p = refine_null_p(effects, gold, n_permutations=499)
    assert p[0, 0] == pytest.approx(1 / 500)
    assert p.flatten()[1:].mean().item() == pytest.approx(0.5, abs=0.07)


def test_exact_share_when_there_is_one_event():
    """Gold best of four: a quarter of the draws is gold itself, and ties count."""
    effects = torch.tensor([0.1, 0.4, 0.2, 0.3], dtype=torch.float64).reshape(4, 1, 1)
    p = refine_null_p([effects], [1], n_permutations=4000)
    assert p.item() == pytest.approx(0.25, abs=0.03)


def test_a_head_without_any_effect_has_p_one():
    assert refine_null_p([torch.zeros(4, 1, 1)], [0], n_permutations=10).item() == 1


def test_no_permutations_are_refused():
    with pytest.raises(InputError, match="n_permutations is 0"):
        refine_null_p([torch.zeros(4, 1, 1)], [0], n_permutations=0)
