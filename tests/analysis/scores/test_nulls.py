from dataclasses import replace

import pytest
import torch

from workbench.analysis.scores.attention import family_contrasts
from workbench.analysis.scores.nulls import (
    RoleValues,
    RoutedValues,
    coarse_null,
    enough_permutations,
    null_p,
    null_q,
    refine_null,
    size_null,
)
from workbench.errors import InputError

N_EVENTS, SHAPE = 12, (10, 20)
N_FAMILIES = 4


def noise(*shape: int, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def contrasts(families: torch.Tensor) -> torch.Tensor:
    """Each family's mean against that of the others, which are as large."""
    return families - (families.sum(dim=0) - families) / (len(families) - 1)


def coarse_events(families, gold=None, options=None):
    """Events of which each family has one number by route, head and layer."""
    return refine_events([contrasts(one) for one in families], gold or [0] * len(families), options)


def refine_events(effects, gold, options=None):
    names = options or [tuple(map(str, range(len(effect)))) for effect in effects]
    rows = zip(effects, gold, names, strict=True)
    return [RoleValues.of(effect, row, *map(str, of)) for effect, row, of in rows]


def _p(null, events, prompt_ids=None, **options):
    ids = prompt_ids or [str(event) for event in range(len(events))]
    return null_p(null(events, ids), **options)[0]


def coarse_null_p(families, gold=None, options=None, **more):
    return _p(coarse_null, coarse_events(families, gold, options), **more)


def refine_null_p(effects, gold, options=None, **more):
    return _p(refine_null, refine_events(effects, gold, options), **more)


def coarse_values(planted: float = 0.0) -> list[torch.Tensor]:
    values = [noise(N_FAMILIES, *SHAPE, 2, seed=seed) for seed in range(N_EVENTS)]
    for value in values:
        value[0, 0, 0, 1] += planted  # the relevant family, one head, the second route
    return values


def test_coarse_p_is_uniform_on_noise_and_small_for_a_planted_head():
    p = coarse_null_p(coarse_values(planted=3.0), n_permutations=499)
    assert p[0, 0] == pytest.approx(1 / 4001)  # 200 heads need 20 shuffles each
    others = p.flatten()[1:]
    assert others.mean().item() == pytest.approx(0.5, abs=0.07)
    assert (others <= 0.2).double().mean().item() == pytest.approx(0.2, abs=0.09)


def test_coarse_p_equals_a_loop_over_relevant_families():
    values = coarse_values()
    p = coarse_null_p(values, n_permutations=400, seed=1)

    def score(rows: list[list[int]]) -> torch.Tensor:
        apart = [v[r[0]] - v[r[1:]].mean(0) for v, r in zip(values, rows, strict=True)]
        return torch.stack(apart).mean(0).amax(-1)

    observed = score([[*range(N_FAMILIES)]] * N_EVENTS)
    generator = torch.Generator().manual_seed(0)
    shuffles = [
        [torch.randperm(N_FAMILIES, generator=generator).tolist() for _ in range(N_EVENTS)]
        for _ in range(400)
    ]
    slow = torch.stack([score(rows) >= observed for rows in shuffles]).double().mean(0)
    assert (p - slow).abs().max() < 0.13  # two independent samples of 400: sd at most 0.035
    assert (p - slow).abs().mean() < 0.04


def test_families_may_differ_in_number_between_events():
    p = coarse_null_p([noise(4, 1, 1, 2, seed=0), noise(3, 1, 1, 2, seed=1)], n_permutations=20)
    assert 1 / 21 <= p.item() <= 1


def test_routes_are_dealt_out_apart():
    """The note has one other stretch, so its route is reached in every other shuffle at least."""
    option_routes = coarse_events([noise(4, 1, 1, 2, seed=seed) for seed in range(2)])
    note = RoleValues.of(torch.tensor([[[[9.0]]], [[[-9.0]]]]).double(), 0, "0", "1")
    events = [RoutedValues((one, note)) for one in option_routes]
    null = coarse_null(events, ["p", "p"])
    assert null.observed.shape == (1, 1, 1, 3)
    drawn = null.draw(200, torch.Generator().manual_seed(0))[:, 0, 0, 0]
    assert set(drawn[:, 2].tolist()) == {18.0, -18.0}
    assert (drawn[drawn[:, 2] > 0][:, 0].unique()).numel() > 1
    alone = coarse_null([RoutedValues((one,)) for one in option_routes], ["p", "p"])
    torch.testing.assert_close(null.observed[..., :2], alone.observed)


@pytest.mark.parametrize("known", [True, False])
def test_heads_that_attend_alike_to_a_family_do_not_pass_by_chance(known, make_event):
    """Attention of one family is alike, and no family is relevant to any of 64 heads.

    Dealt out by option, some head passes in 30 of these 40 draws.
    """
    roles = ["gold", *["near"] * 3, *["far"] * 12]
    event = make_event(roles=roles)
    family = [str(at // 4) for at in range(16)]
    named = zip(event.options, family, strict=True)
    if known:
        event = replace(event, options=tuple(replace(one, family=name) for one, name in named))
    weights = family_contrasts(event)
    rows, ids = torch.stack([*weights.values()]), [*map(str, range(15))]
    passed = 0
    for seed in range(40):
        own, shared = noise(15, 16, 64, 1, seed=seed), noise(15, 4, 64, 1, seed=100 + seed)
        logits = 0.5 * own + shared.repeat_interleave(4, dim=1)
        attention = (1.5 * logits).softmax(dim=1)[:, :, None]
        events = [RoleValues.of(torch.tensordot(rows, a, dims=1), 0, *weights) for a in attention]
        null = coarse_null(events, ids)
        passed += bool((null_q(null, null_p(null, n_permutations=1)) <= 0.05).any())
    assert passed <= 5


def test_an_effect_that_is_as_often_up_as_down_is_none_and_a_negative_one_counts():
    values = [0.1 * noise(1, 20, 2, seed=seed) for seed in range(20)]
    for seed, value in enumerate(values):
        value[0, 0, 1] -= 1
        value[0, 1, 0] += (-1) ** seed
    events = [RoleValues.of(torch.stack([v, -v]), 0, "as it is", "turned round") for v in values]
    null = size_null(events, [*map(str, range(20))])
    q = null_q(null, null_p(null))[0, 0]
    assert q[0] < 0.01 and q[1] > 0.5
    assert (q < 0.05).sum() <= 2


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
    null = coarse_null(coarse_events(planted), [*map(str, range(N_EVENTS))])
    p = null_p(null)
    assert p[0, 0, 0] == pytest.approx(1 / 4001)
    assert (null_q(null, p) == 1).all()
    large = coarse_null(coarse_events(coarse_values(planted=5.0)), [*map(str, range(N_EVENTS))])
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


def by_family(golds, gold, make_event):
    """Contrasts of three families of four, gold's first, at the decision about this gold."""
    roles = [
        "other" if at in golds else "near" if at // 4 == gold // 4 else "far" for at in range(12)
    ]
    roles[gold] = "gold"
    event = make_event(roles=tuple(roles))
    options = tuple(replace(one, family=str(at // 4)) for at, one in enumerate(event.options))
    return family_contrasts(replace(event, options=options))


def noisy_prompts(golds, heads, make_event, n_prompts=15, seed=0):
    """Events of a prompt share everything but their gold; other mentions' golds are `other`."""
    routes, ids, effects, rows, clusters = [], [], [], [], []
    contrasts_of = {gold: by_family(golds, gold, make_event) for gold in golds}
    for prompt in range(n_prompts):
        shared = noise(12, 1, heads, 2, seed=1000 * seed + prompt)
        single = noise(12, 1, heads, seed=1000 * seed + 500 + prompt)
        for gold in golds:
            left = [option for option in range(12) if option == gold or option not in golds]
            relevant = [option for option in CLUSTERS[gold // 4] if option in left]
            families = contrasts_of[gold]
            values = torch.tensordot(torch.stack([*families.values()]), shared, dims=1)
            routes.append(RoleValues.of(values, 0, *families))
            own = single[relevant]
            ids.append(f"p{prompt}")
            effects.append(own - (own.sum(0) - own) / (len(own) - 1))
            rows.append(relevant.index(gold))
            clusters.append(relevant)
    return routes, ids, effects, rows, clusters


@pytest.fixture
def few_permutations(monkeypatch):
    """Rejection rates over many heads need no more shuffles than one head does."""
    monkeypatch.setattr("workbench.analysis.scores.nulls.SMALLEST_Q", 1.0)


@pytest.mark.parametrize("golds", GOLDS.values(), ids=GOLDS)
def test_noise_is_rejected_no_more_often_than_stated(golds, few_permutations, make_event):
    """Without `prompt_ids`, the first case is rejected in 15 to 25 % at the level of 5 %.

    Where each of all families is the relevant one once, dealing them out changes nothing.
    """
    nothing_to_deal = golds == GOLDS["three clusters"]
    coarse, refine = [], []
    for seed in range(8):
        routes, ids, effects, rows, clusters = noisy_prompts(golds, 150, make_event, seed=seed)
        common = {"prompt_ids": ids, "n_permutations": 200, "seed": seed}
        coarse.append(_p(coarse_null, routes, **common))
        refine.append(refine_null_p(effects, rows, options=clusters, **common))
    for p, at_least in ((coarse, 0.0 if nothing_to_deal else 0.03), (refine, 0.03)):
        rejected = (torch.cat(p) <= 0.05).double().mean().item()  # 1,200 heads: sd 0.6 %
        assert at_least <= rejected < 0.07


def test_repeated_events_say_no_more_than_one(few_permutations, make_event):
    """The same event three times has the p-value of one, from the same shuffles."""
    once, thrice = (noisy_prompts(golds, 30, make_event) for golds in ((0,), (0, 0, 0)))
    for make in (
        lambda n: _p(coarse_null, n[0], prompt_ids=n[1], n_permutations=99),
        lambda n: refine_null_p(n[2], n[3], prompt_ids=n[1], options=n[4], n_permutations=99),
    ):
        torch.testing.assert_close(make(once), make(thrice))


def test_events_with_other_options_are_shuffled_by_themselves():
    """Two events of one prompt: of the same families they always agree, of others they do not."""
    value = noise(4, 1, 1, 2, seed=0)
    generator = torch.Generator().manual_seed(0)
    sums = {}
    for names in ("abcd", "efgh"):
        events = coarse_events([value, -value], options=["abcd", names])
        null = coarse_null(events, ["p", "p"])
        sums[names] = null.draw(20, generator)
    assert sums["abcd"].abs().max() < 1e-12
    assert sums["efgh"].abs().max() > 0.1


def test_golds_of_one_cluster_stay_different():
    """Two events ask for two golds of the same three options: no shuffle gives both the same."""
    effects = torch.eye(3, dtype=torch.float64).reshape(3, 1, 3)
    null = refine_null(refine_events([effects] * 2, [0, 1], ["abc"] * 2), ["p", "p"])
    drawn = null.draw(300, torch.Generator().manual_seed(0))[:, 0, 0]
    assert set(drawn.flatten().tolist()) == {0.0, 1.0}
    assert drawn.mean(dim=0).tolist() == pytest.approx([2 / 3] * 3, abs=0.08)


def test_samples_of_prompts_equal_the_prompts_written_out(few_permutations, make_event):
    """A prompt counted twice is two prompts with the same shuffle; one counted 0 times is none."""
    events, ids, *_ = noisy_prompts((0, 4), 20, make_event, n_prompts=4)
    null = coarse_null(events, ids)
    counts = torch.tensor([[1, 1, 1, 1], [2, 2, 2, 2], [1, 1, 0, 0]])
    every, doubled, half = null_p(null, counts.double(), n_permutations=300)
    torch.testing.assert_close(every, doubled)
    alone = _p(coarse_null, events[:4], prompt_ids=ids[:4], n_permutations=300)
    assert (half - alone).abs().max() < 0.15  # other shuffles, the same distribution
