"""The loss at the decision, against sums written out."""

import math

import pytest
import torch

from workbench.predicting.adapting.loss import listwise_loss

LOGITS = torch.tensor([[0.0, 1.0, 2.0, 3.0, -1.0]], dtype=torch.float64)
OPTIONS, RIGHT = torch.tensor([[1, 2, 4, -1]]), torch.tensor([[True, False, True, False]])


def test_each_and_any_and_what_is_written():
    weight = {token: math.exp(LOGITS[0, token]) for token in range(5)}
    total = sum(weight[token] for token in (1, 2, 4))
    p = {token: weight[token] / total for token in (1, 4)}
    each = -(math.log(p[1]) + math.log(p[4])) / 2
    some = -math.log(p[1] + p[4])
    outside = -math.log(total / sum(weight.values()))
    assert float(listwise_loss(LOGITS, OPTIONS, RIGHT)) == pytest.approx(each)
    assert float(listwise_loss(LOGITS, OPTIONS, RIGHT, golds="any")) == pytest.approx(some)
    found = listwise_loss(LOGITS, OPTIONS, RIGHT, written=0.5)
    assert float(found) == pytest.approx(each + 0.5 * outside)


@pytest.mark.parametrize("golds", ["each", "any"])
def test_gradients_are_finite_and_leave_other_tokens_alone(golds):
    logits = LOGITS.clone().repeat(2, 1).requires_grad_()
    options = torch.cat([OPTIONS, torch.tensor([[0, 1, 2, 3]])])
    right = torch.cat([RIGHT, torch.tensor([[False, False, False, True]])])
    listwise_loss(logits, options, right, golds=golds).backward()
    assert logits.grad is not None and logits.grad.isfinite().all()
    assert logits.grad[0, [0, 3]].tolist() == [0, 0] and logits.grad[0, 2] > 0
    assert logits.grad[1, 3] < 0
