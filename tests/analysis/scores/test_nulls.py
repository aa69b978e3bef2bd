import pytest
import torch

from workbench.analysis.scores.nulls import (
    RoleValues,
    coarse_null,
    enough_permutations,
    null_p,
    null_q,
    refine_null,
)
from workbench.errors import InputError

N_EVENTS, SHAPE = 12, (10, 20)
WEIGHTS = torch.tensor([0.5, 0.5, -0.25, -0.25, -0.25, -0.25, 0.0], dtype=torch.float64)


def noise(*shape: int, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def coarse_events(routes, weights, options=None):
    names = options or [tuple(map(str, range(len(weight)))) for weight in weights]
    return [RoleValues(*e) for e in zip(routes, weights, map(tuple, names), strict=True)]


def refine_events(effects, gold, options=None):
    names = options or [tuple(map(str, range(len(effect)))) for effect in effects]
    weights = [
        torch.eye(len(e), dtype=torch.float64)[row] for e, row in zip(effects, gold, strict=True)
    ]
    return [RoleValues(*e) for e in zip(effects, weights, map(tuple, names), strict=True)]


def _p(null, events, prompt_ids=None, **options):
    ids = prompt_ids or [str(event) for event in range(len(events))]
    return null_p(null(events, ids), **options)[0]


def coarse_null_p(routes, weights, options=None, **more):
    return _p(coarse_null, coarse_events(routes, weights, options), **more)


def refine_null_p(effects, gold, options=None, **more):
    return _p(refine_null, refine_events(effects, gold, options), **more)


def coarse_values(planted: float = 0.0) -> list[torch.Tensor]:
    values = [noise(7, *SHAPE, 2, seed=seed) for seed in range(N_EVENTS)]
    for value in values:
        value[:2, 0, 0, 1] += planted  # relevant options, one head, the second route
    return values


def test_coarse_p_is_uniform_on_noise_and_small_for_a_planted_head():
    p = coarse_null_p(coarse_values(planted=3.0), [WEIGHTS] * N_EVENTS, n_permutations=499)
    assert p[0, 0] == pytest.approx(1 / 4001)  # 200 heads need 20 shuffles each
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
    assert p[0, 0] == pytest.approx(1 / 4001)  # 200 heads need 20 shuffles each
    assert p.flatten()[1:].mean().item() == pytest.approx(0.5, abs=0.07)


def test_exact_share_when_there_is_one_event():
    """Gold best of four: a quarter of the draws is gold itself, and ties count."""
    effects = torch.tensor([0.1, 0.4, 0.2, 0.3], dtype=torch.float64).reshape(4, 1, 1)
    p = refine_null_p([effects], [1], n_permutations=4000)
    assert p.item() == pytest.approx(0.25, abs=0.03)


def test_a_head_without_any_effect_has_p_one():
    assert refine_null_p([torch.zeros(4, 1, 1)], [0], n_permutations=10).item() == 1


def test_rounding_noise_beats_its_shuffles_and_does_not_stand_out():
    """A score far below its scale, with the least p there is."""
    planted = [value * 1e-7 for value in coarse_values(planted=5.0)]
    null = coarse_null(coarse_events(planted, [WEIGHTS] * N_EVENTS), [*map(str, range(N_EVENTS))])
    p = null_p(null)
    assert p[0, 0, 0] == pytest.approx(1 / 4001)
    assert (null_q(null, p) == 1).all()
    large = coarse_null(
        coarse_events(coarse_values(planted=5.0), [WEIGHTS] * N_EVENTS),
        [*map(str, range(N_EVENTS))],
    )
    assert null_q(large, null_p(large))[0, 0, 0] == pytest.approx(200 / 4001)


def test_permutations_suffice_for_a_single_head_of_all():
    """In the first test, 499 shuffles could not do it: 0.002 times 200 heads is 0.4."""
    assert enough_permutations(2000, 48) == 2000
    assert enough_permutations(1, 48) == 960


def test_bad_requests_are_named():
    with pytest.raises(InputError, match="n_permutations is 0"):
        refine_null_p([torch.zeros(4, 1, 1)], [0], n_permutations=0)
    with pytest.raises(InputError, match="1 events, 2 prompt ids"):
        refine_null_p([torch.zeros(4, 1, 1)], [0], prompt_ids=["p", "q"])


GOLDS = {
    "the same decision three times": (0, 0, 0),
    "three clusters": (0, 4, 8),
    "one cluster": (0, 1, 2),
    "a pair of siblings": (0, 1, 4),
}
CLUSTERS = torch.arange(12).reshape(3, 4).tolist()


def noisy_prompts(golds, heads, n_prompts=15, seed=0):
    """Events of a prompt share everything but their gold; other mentions' golds are `other`."""
    routes, weights, ids, effects, rows, clusters = [], [], [], [], [], []
    for prompt in range(n_prompts):
        shared = noise(12, 1, heads, 2, seed=1000 * seed + prompt)
        single = noise(12, 1, heads, seed=1000 * seed + 500 + prompt)
        for gold in golds:
            left = [option for option in range(12) if option == gold or option not in golds]
            relevant = [option for option in CLUSTERS[gold // 4] if option in left]
            far = [option for option in left if option not in relevant]
            weight = torch.zeros(12, dtype=torch.float64)
            weight[relevant], weight[far] = 1 / len(relevant), -1 / len(far)
            own = single[relevant]
            routes.append(shared)
            weights.append(weight)
            ids.append(f"p{prompt}")
            effects.append(own - (own.sum(0) - own) / (len(own) - 1))
            rows.append(relevant.index(gold))
            clusters.append(relevant)
    return routes, weights, ids, effects, rows, clusters


@pytest.fixture
def few_permutations(monkeypatch):
    """Rejection rates over many heads need no more shuffles than one head does."""
    monkeypatch.setattr("workbench.analysis.scores.nulls.SMALLEST_Q", 1.0)


@pytest.mark.parametrize("golds", GOLDS.values(), ids=GOLDS)
def test_noise_is_rejected_no_more_often_than_stated(golds, few_permutations):
    """Without `prompt_ids`, the first case is rejected in 15 to 25 % at the level of 5 %."""
    coarse, refine = [], []
    for seed in range(8):
        routes, weights, ids, effects, rows, clusters = noisy_prompts(golds, 150, seed=seed)
        options = [range(12)] * len(ids)
        common = {"prompt_ids": ids, "n_permutations": 200, "seed": seed}
        coarse.append(coarse_null_p(routes, weights, options=options, **common))
        refine.append(refine_null_p(effects, rows, options=clusters, **common))
    for p in (torch.cat(coarse), torch.cat(refine)):  # 1,200 heads: sd 0.6 %
        rejected = (p <= 0.05).double().mean().item()
        assert 0.03 < rejected < 0.07


def test_repeated_events_say_no_more_than_one(few_permutations):
    """The same event three times has the p-value of one, from the same shuffles."""
    once, thrice = noisy_prompts((0,), 30), noisy_prompts((0, 0, 0), 30)
    for make in (
        lambda n: coarse_null_p(n[0], n[1], prompt_ids=n[2], n_permutations=99),
        lambda n: refine_null_p(n[3], n[4], prompt_ids=n[2], options=n[5], n_permutations=99),
    ):
        torch.testing.assert_close(make(once), make(thrice))


def test_events_with_other_options_are_shuffled_by_themselves():
    """Two events of one prompt: as one block they always agree, as two they do not."""
    value = noise(4, 1, 1, 2, seed=0)
    weight = torch.tensor([1.0, -0.4, -0.3, -0.3], dtype=torch.float64)
    generator = torch.Generator().manual_seed(0)
    sums = {}
    for names in ("abcd", "abdc"):
        events = coarse_events([value, -value], [weight, weight], ["abcd", names])
        null = coarse_null(events, ["p", "p"])
        sums[names] = null.draw(20, generator)
    assert sums["abcd"].abs().max() < 1e-12
    assert sums["abdc"].abs().max() > 0.1


def test_golds_of_one_cluster_stay_different():
    """Two events ask for two golds of the same three options: no shuffle gives both the same."""
    effects = torch.eye(3, dtype=torch.float64).reshape(3, 1, 3)
    null = refine_null(refine_events([effects] * 2, [0, 1], ["abc"] * 2), ["p", "p"])
    drawn = null.draw(300, torch.Generator().manual_seed(0))[:, 0, 0]
    assert set(drawn.flatten().tolist()) == {0.0, 1.0}
    assert drawn.mean(dim=0).tolist() == pytest.approx([2 / 3] * 3, abs=0.08)


def test_samples_of_prompts_equal_the_prompts_written_out(few_permutations):
    """A prompt counted twice is two prompts with the same shuffle; one counted 0 times is none."""
    routes, weights, ids, *_ = noisy_prompts((0, 4), 20, n_prompts=4)
    null = coarse_null(coarse_events(routes, weights), ids)
    counts = torch.tensor([[1, 1, 1, 1], [2, 2, 2, 2], [1, 1, 0, 0]])
    every, doubled, half = null_p(null, counts.double(), n_permutations=300)
    torch.testing.assert_close(every, doubled)
    alone = coarse_null_p(routes[:4], weights[:4], prompt_ids=ids[:4], n_permutations=300)
    assert (half - alone).abs().max() < 0.15  # other shuffles, the same distribution
