import torch

from workbench.distill.losses.features import (
    decision_mass,
    evidence_mass,
    option_contribution,
    pool_patterns,
)


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_pool_patterns_is_a_weighted_mean():
    one, two = random(2, 3, 3).softmax(dim=-1), random(2, 3, 3, seed=1).softmax(dim=-1)
    pooled = pool_patterns([one, two], [3.0, 1.0])
    torch.testing.assert_close(pooled, 0.75 * one + 0.25 * two)
    assert pool_patterns([one.bfloat16()], [1.0]).dtype == torch.float32


def test_decision_mass_sums_half_open_spans_of_each_example():
    pattern = torch.tensor([[[9, 9, 9, 9], [0.1, 0.2, 0.3, 0.4]], [[0.4, 0.3, 0.2, 0.1], [9] * 4]])
    spans = torch.tensor([[[0, 1], [1, 4]], [[2, 4], [0, 0]]])
    expected = torch.tensor([[[0.1, 0.9]], [[0.3, 0.0]]])
    found = decision_mass(pattern, spans, torch.tensor([[1], [0]]))
    torch.testing.assert_close(found, expected)


def test_evidence_mass_is_the_mean_over_an_options_tokens():
    pattern = torch.tensor(
        [[[1.0, 0, 0, 0], [0.2, 0.8, 0, 0], [0.3, 0.3, 0.4, 0], [0.5, 0.1, 0.2, 0.2]]]
    )
    spans = torch.tensor([[[2, 4], [3, 4], [0, 0]]])
    both, first, none = [0.6, 0.6, 0.0], [0.4, 0.5, 0.0], [0.0, 0.0, 0.0]
    mentions = torch.tensor([[[0, 2], [0, 1], [0, 0]]])
    found = evidence_mass(pattern, spans, mentions)
    torch.testing.assert_close(found, torch.tensor([[both, first, none]]))
    some = torch.tensor([[2, 3, -1]])  # the rows of options alone
    found = evidence_mass(pattern[:, some[0]], spans, mentions, some)
    torch.testing.assert_close(found, torch.tensor([[both, first, none]]))


def test_option_contribution_uses_each_examples_own_options():
    update = torch.tensor([[[1.0, 2.0]], [[1.0, 2.0]]])
    directions = torch.tensor([[[1.0, 0.0], [0.0, 1.0]], [[1.0, 1.0], [-1.0, 0.0]]])
    expected = torch.tensor([[[1.0, 2.0]], [[3.0, -1.0]]])
    torch.testing.assert_close(option_contribution(update, directions), expected)
