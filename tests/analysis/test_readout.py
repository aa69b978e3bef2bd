import math

import pytest
import torch

from workbench.analysis.readout import (
    Roles,
    coarse_margin,
    focus_confusion,
    near_miss_margin,
    select_options,
)
from workbench.errors import InputError


def option_probabilities(option_logits, roles):
    """p(y): softmax over the gold, near and far options; options with role `other` get 0."""
    return option_logits.masked_fill(~roles.scored, -torch.inf).softmax(dim=-1)


@pytest.fixture
def roles(event) -> Roles:
    return Roles.of(event)  # gold, 2 near, 3 far, 1 other


def test_uniform_logits_give_shares_of_the_options(roles):
    focus, confusion = focus_confusion(torch.zeros(7), roles)
    assert focus.item() == pytest.approx(3 / 6)
    assert confusion.item() == pytest.approx(2 / 3)


def test_probability_of_gold_is_the_product_of_both_phases(roles):
    logits = torch.randn(4, 5, 7, generator=torch.Generator().manual_seed(0)) * 3
    focus, confusion = focus_confusion(logits, roles)
    gold = option_probabilities(logits, roles)[..., 0]
    torch.testing.assert_close(focus * (1 - confusion), gold)


def test_further_gold_labels_take_no_part(roles):
    logits = torch.randn(7, generator=torch.Generator().manual_seed(0))
    louder = logits.clone()
    louder[6] = 50.0
    probabilities = option_probabilities(louder, roles)
    assert probabilities[6] == 0
    assert probabilities.sum().item() == pytest.approx(1)
    assert focus_confusion(logits, roles) == focus_confusion(louder, roles)


def test_margins_are_log_odds_of_probabilities(roles):
    logits = torch.randn(7, generator=torch.Generator().manual_seed(1))
    p = option_probabilities(logits, roles)
    near_odds, coarse_odds = p[0] / p[1:3].sum(), p[:3].sum() / p[3:6].sum()
    assert near_miss_margin(logits, roles).item() == pytest.approx(math.log(near_odds), rel=1e-5)
    assert coarse_margin(logits, roles).item() == pytest.approx(math.log(coarse_odds), rel=1e-5)


def test_confusion_is_finite_when_the_cluster_underflows(roles):
    logits = torch.tensor([0.0, 0.0, 0.0, 500.0, 0.0, 0.0, 0.0])
    focus, confusion = focus_confusion(logits, roles)
    assert focus.item() == 0
    assert confusion.item() == pytest.approx(2 / 3)


def test_an_option_outside_the_vocabulary_is_named(event):
    with pytest.raises(InputError, match="'label 4' has token 13, the vocabulary is 0"):
        select_options(torch.zeros(12), event)


def test_half_precision_logits_are_widened(event):
    logits = torch.randn(2, 64).to(torch.bfloat16)
    selected = select_options(logits, event)
    assert selected.dtype == torch.float32
    assert selected[1, 2] == logits[1, event.options[2].token]
