import pytest
import torch

from workbench.distill.losses.features import (
    evidence_mass,
    option_contribution,
    option_mass,
    pool_over_layers,
    pool_patterns,
    written,
)
from workbench.errors import InputError


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_pool_patterns_is_a_weighted_mean():
    patterns = random(2, 4, 3, 3).softmax(dim=-1)
    pooled = pool_patterns(patterns, [3, 1], [3.0, 1.0])
    torch.testing.assert_close(pooled, 0.75 * patterns[:, 3] + 0.25 * patterns[:, 1])
    torch.testing.assert_close(pool_patterns(patterns, range(4)), patterns.mean(dim=1))
    assert pool_patterns(patterns.bfloat16(), [0]).dtype == torch.float32


def test_pool_over_layers_takes_heads_from_their_layers():
    patterns = {2: random(1, 2, 3, 3), 5: random(1, 3, 3, 3, seed=1)}
    pooled = pool_over_layers(patterns, [(5, 2), (2, 0)], [1.0, 3.0])
    torch.testing.assert_close(pooled, 0.25 * patterns[5][:, 2] + 0.75 * patterns[2][:, 0])
    with pytest.raises(InputError, match="head 3-0: no patterns of layer 3"):
        pool_over_layers(patterns, [(2, 0), (3, 0)])
    with pytest.raises(InputError, match="head 2 is not there, heads run from 0 to 1"):
        pool_over_layers(patterns, [(2, 2)])


@pytest.mark.parametrize("heads", [[4], [0, -1], []])
def test_heads_that_are_not_there_are_refused(heads: list[int]):
    with pytest.raises(InputError, match="head"):
        pool_patterns(random(1, 4, 2, 2), heads)
    with pytest.raises(InputError, match="no heads"):
        pool_over_layers({}, [])


@pytest.mark.parametrize("weights", [[1.0], [0.0, 0.0], [2.0, -1.0]])
def test_weights_that_do_not_fit_are_refused(weights: list[float]):
    with pytest.raises(InputError, match="weights of 2 heads"):
        pool_patterns(random(1, 4, 2, 2), [0, 1], weights)


def test_option_mass_sums_half_open_spans_of_each_example():
    pattern = torch.tensor([[[0.1, 0.2, 0.3, 0.4]], [[0.4, 0.3, 0.2, 0.1]]])
    spans = torch.tensor([[[0, 1], [1, 4]], [[2, 4], [0, 0]]])
    expected = torch.tensor([[[0.1, 0.9]], [[0.3, 0.0]]])
    torch.testing.assert_close(option_mass(pattern, spans), expected)


def test_evidence_mass_is_the_mean_over_an_options_tokens():
    pattern = torch.tensor(
        [[[1.0, 0, 0, 0], [0.2, 0.8, 0, 0], [0.3, 0.3, 0.4, 0], [0.5, 0.1, 0.2, 0.2]]]
    )
    spans = torch.tensor([[[2, 4], [3, 4], [0, 0]]])
    both, first, none = [0.6, 0.6, 0.0], [0.4, 0.5, 0.0], [0.0, 0.0, 0.0]
    mentions = torch.tensor([[[0, 2], [0, 1], [0, 0]]])
    found = evidence_mass(pattern, spans, mentions)
    torch.testing.assert_close(found, torch.tensor([[both, first, none]]))


def test_what_heads_write_adds_up_to_the_attention_output():
    z, output = random(2, 3, 4, 5), torch.nn.Linear(20, 6, bias=False)
    weights = output.weight.detach().T.reshape(4, 5, 6)  # as hooks see W_O
    all_heads = written(z, weights, torch.arange(4))
    torch.testing.assert_close(all_heads.sum(dim=2), output(z.flatten(2)).detach())
    some = written(z, weights, torch.tensor([2, 0]))
    torch.testing.assert_close(some, all_heads[:, :, [2, 0]])


def test_option_contribution_uses_each_examples_own_options():
    update = torch.tensor([[[1.0, 2.0]], [[1.0, 2.0]]])
    directions = torch.tensor([[[1.0, 0.0], [0.0, 1.0]], [[1.0, 1.0], [-1.0, 0.0]]])
    expected = torch.tensor([[[1.0, 2.0]], [[3.0, -1.0]]])
    torch.testing.assert_close(option_contribution(update, directions), expected)
