import math

import pytest
import torch
from fixtures.tensors import random, rows

from workbench.distill.losses.losses import (
    IGNORED,
    HiddenLoss,
    Loss,
    attention_loss,
    chain_loss,
    interaction_loss,
    logit_loss,
    minilm_attention_loss,
    option_update_loss,
    update_loss,
)

NAN = float("nan")


def patterns(*shape: int, seed: int = 0) -> torch.Tensor:
    """Causal attention of random scores."""
    scores = random(*shape, seed=seed)
    return scores.masked_fill(torch.ones(shape[-2:]).triu(1).bool(), -torch.inf).softmax(dim=-1)


def test_mean_of_nothing_is_zero_and_can_be_differentiated():
    total = (torch.ones(2, requires_grad=True) * 0).sum()
    Loss(total, torch.tensor(0.0)).mean.backward()
    assert Loss(total, torch.tensor(0.0)).mean == 0
    assert Loss(torch.tensor(3.0), torch.tensor(0.5)).mean == 6


# Attention


def test_attention_loss_is_the_kl_of_known_distributions():
    teacher = torch.tensor([[[0.5, 0.5], [0.25, 0.75]]])
    student = torch.tensor([[[0.9, 0.1], [0.5, 0.5]]])
    first = 0.5 * math.log(0.5 / 0.9) + 0.5 * math.log(0.5 / 0.1)
    second = 0.25 * math.log(0.25 / 0.5) + 0.75 * math.log(0.75 / 0.5)
    loss = attention_loss(teacher, student, rows(1, 2))
    assert loss.total.item() == pytest.approx(first + second, abs=1e-4)
    assert loss.count == 2
    weighted = attention_loss(teacher, student, torch.tensor([[3.0, 0.5]]))
    assert weighted.total.item() == pytest.approx(3 * first + 0.5 * second, abs=1e-4)
    assert weighted.count == 3.5


def test_attention_on_padding_is_left_out():
    teacher, student = patterns(1, 4, 4), patterns(1, 4, 4, seed=1)
    keys = torch.tensor([[False, True, True, True]])
    weights = torch.tensor([[False, False, True, True]])
    loss = attention_loss(teacher, student, weights, keys)
    cut = [x[:, :, 1:] / x[:, :, 1:].sum(-1, keepdim=True) for x in (teacher, student)]
    torch.testing.assert_close(loss, attention_loss(cut[0], cut[1], weights))


def test_per_example_weighs_a_short_example_like_a_long_one():
    teacher, student = patterns(3, 4, 4), patterns(3, 4, 4, seed=1)
    weights = torch.tensor([[0, 0, 0, 1], [1, 1, 1, 1], [0, 0, 0, 0]]).bool()
    alone = [attention_loss(teacher[[i]], student[[i]], weights[[i]]).mean for i in (0, 1)]
    loss = attention_loss(teacher, student, weights, per="example")
    assert loss.count == 2
    torch.testing.assert_close(loss.total, alone[0] + alone[1])


def test_keys_without_any_attention_keep_loss_and_gradient_finite():
    teacher = torch.tensor([[[1.0, 0.0, 0.0], [0.0, 0.0, 0.0]]])
    student = torch.tensor([[[0.0, 1.0, 0.0], [0.0, 1.0, 0.0]]], requires_grad=True)
    loss = attention_loss(teacher, student, rows(1, 2))
    assert loss.total.item() == pytest.approx(-math.log(1e-6), rel=1e-3)
    assert loss.count == 1, "the teacher says nothing in the second row"
    loss.total.backward()
    assert student.grad.isfinite().all() and student.grad[0, 0, 0] < -1e5
    assert not student.grad[0, 1].any()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_low_precision_patterns(dtype: torch.dtype):
    teacher, student = patterns(2, 8, 8), patterns(2, 8, 8, seed=1)
    exact = attention_loss(teacher, student, rows(2, 8)).mean
    low = student.to(dtype).requires_grad_(True)
    loss = attention_loss(teacher.to(dtype), low, rows(2, 8)).mean
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, exact, rtol=0.02, atol=1e-3)
    # The teacher's favourite key unseen: the largest gradient there can be.
    unseen = torch.tensor([[[0.0, 1.0]]], dtype=dtype, requires_grad=True)
    attention_loss(torch.tensor([[[1.0, 0.0]]], dtype=dtype), unseen, rows(1, 1)).total.backward()
    assert unseen.grad.isfinite().all()
    assert attention_loss(low.detach(), low, rows(2, 8)).total.abs() < 1e-6


def test_minilm_compares_head_with_head_or_means():
    teacher, student = patterns(2, 3, 5, 5), patterns(2, 3, 5, 5, seed=1)
    few = patterns(2, 2, 5, 5, seed=2)
    each = [attention_loss(teacher[:, h], student[:, h], rows(2, 5)).mean for h in range(3)]
    by_head = minilm_attention_loss([teacher], [student], rows(2, 5))
    torch.testing.assert_close(by_head.mean, torch.stack(each).mean())
    assert by_head.count.item() == pytest.approx(10)
    pooled = attention_loss(teacher.mean(dim=1), few.mean(dim=1), rows(2, 5)).mean
    torch.testing.assert_close(
        minilm_attention_loss([teacher, teacher], [student, few], rows(2, 5)).mean,
        (by_head.mean + pooled) / 2,
    )


# Interaction


def test_interaction_is_attention_times_exponential_of_contribution():
    mass, contribution = torch.tensor([[[0.6, 0.2, 0.0]]]), torch.tensor([[[0.0, 1.0, 3.0]]])
    flat, zero = torch.full((1, 1, 3), 0.1), torch.zeros(1, 1, 3)
    product = [0.6, 0.2 * math.e, 1e-6 * math.e**3]
    share = [x / sum(product) for x in product]
    expected = sum(p * math.log(3 * p) for p in share)
    loss = interaction_loss(mass, contribution, flat, zero, rows(1, 1))
    assert loss.mean.item() == pytest.approx(expected, rel=1e-4)
    # Where heads look and what they write may trade places; only the product counts.
    swapped = interaction_loss(
        mass, contribution, flat, mass.clamp(min=1e-6).log() + contribution, rows(1, 1)
    )
    assert swapped.mean.abs() < 1e-4


def test_interaction_where_nobody_looks():
    teacher = torch.tensor([[[0.0, 0.0], [0.5, 0.25]]])
    student = torch.zeros(1, 2, 2, requires_grad=True)
    written = torch.zeros(1, 2, 2, requires_grad=True)
    loss = interaction_loss(teacher, torch.zeros(1, 2, 2), student, written, rows(1, 2))
    assert loss.count == 1
    expected = 2 / 3 * math.log(4 / 3) + 1 / 3 * math.log(2 / 3)
    assert loss.mean.item() == pytest.approx(expected, rel=1e-3)
    loss.mean.backward()
    for given in (student, written):
        assert given.grad.isfinite().all() and given.grad[0, 1].all() and not given.grad[0, 0].any()


def test_interaction_of_one_distribution_per_example():
    mass, contribution = random(3, 4).softmax(dim=-1), random(3, 4, seed=1)
    weights = torch.tensor([1.0, 0.0, 2.0])
    flat = torch.zeros(3, 4)
    given = (mass, contribution, flat, flat)
    share = (mass.add(1e-6).log() + contribution).softmax(dim=-1)
    each = (share * (4 * share).log()).sum(dim=-1)
    loss = interaction_loss(*given, weights)
    torch.testing.assert_close(loss.total, each[0] + 2 * each[2])
    by_example = interaction_loss(*given, weights, per="example")
    torch.testing.assert_close(by_example.mean, (each[0] + each[2]) / 2)


# Tokens


def test_logit_loss_is_hintons():
    teacher, student = random(2, 3, 7), random(2, 3, 7, seed=1)
    p, q = (x.div(2).softmax(dim=-1) for x in (teacher, student))
    losses = 4 * (p * (p / q).log()).sum(dim=-1)
    weights = torch.tensor([[1.0, 0.0, 2.0], [0.0, 0.0, 0.5]])
    student[0, 1] = NAN
    loss = logit_loss(teacher, student, weights, temperature=2.0)
    expected = losses[0, 0] + 2 * losses[0, 2] + losses[1, 2] / 2
    torch.testing.assert_close(loss.total, expected)
    assert loss.count == 3.5
    example = logit_loss(teacher, student, weights, temperature=2.0, per="example")
    torch.testing.assert_close(example.total, (losses[0, 0] + 2 * losses[0, 2]) / 3 + losses[1, 2])


def test_logit_loss_of_tokens_the_teacher_rules_out():
    teacher = torch.tensor([[[0.0, 1.0, -torch.inf]]])
    student = torch.zeros(1, 1, 3, requires_grad=True)
    loss = logit_loss(teacher, student, rows(1, 1))
    loss.total.backward()
    torch.testing.assert_close(student.grad, student.softmax(dim=-1) - teacher.softmax(dim=-1))


def test_chain_loss_counts_weighted_tokens_and_ignores_all_others():
    logits, labels = random(2, 4, 5), torch.tensor([[1, 2, IGNORED, 3], [0, IGNORED, 4, 1]])
    weights = torch.tensor([[9.0, 1, 9, 0.5], [9, 9, 0, 2]])
    picked = -logits.log_softmax(dim=-1)
    expected = picked[0, 0, 2] + picked[0, 2, 3] / 2 + 2 * picked[1, 2, 1]
    whole = torch.nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten())
    logits[0, [1, 3]] = NAN
    logits.requires_grad_(True)
    loss, plain = chain_loss(logits, labels, weights), chain_loss(logits, labels)
    torch.testing.assert_close(loss.total, expected)
    torch.testing.assert_close(plain.mean, whole)
    assert loss.count == 3.5 and plain.count == 4
    (loss.total + plain.total).backward()
    assert logits.grad.isfinite().all()


# Hidden states


def test_hidden_loss_is_zero_at_the_projection_of_the_student():
    for kind in ("mse", "cosine"):
        module = HiddenLoss(3, 6, kind)
        student = random(2, 4, 3)
        teacher = student @ module.projection.weight.T
        assert module(teacher, student, rows(2, 4)).mean.abs() < 1e-5
        doubled = module(2 * teacher, student, rows(2, 4)).mean
        expected = teacher.square().mean() if kind == "mse" else torch.tensor(0.0)
        torch.testing.assert_close(doubled, expected, rtol=1e-4, atol=1e-5)


def test_hidden_loss_trains_its_projection_and_skips_padding():
    module = HiddenLoss(3, 6, "cosine")
    teacher, student = random(1, 3, 6), random(1, 3, 3, seed=1)
    student[0, 2] = NAN
    student.requires_grad_(True)
    loss = module(teacher, student, torch.tensor([[True, True, False]]))
    loss.mean.backward()
    assert loss.count == 2
    assert module.projection.weight.grad.isfinite().all() and module.projection.weight.grad.any()
    assert student.grad.isfinite().all()


# All of them


def soft(scores: torch.Tensor) -> torch.Tensor:
    return scores.softmax(dim=-1)


LOSSES = {
    "attention": lambda t, s, weights: attention_loss(soft(t), soft(s), weights),
    "minilm": lambda t, s, w: minilm_attention_loss([soft(t)[:, None]], [soft(s)[:, None]], w),
    "update": update_loss,
    "debiased": lambda *given: update_loss(*given, debiased=True),
    "option": option_update_loss,
    "interaction": lambda t, s, w: interaction_loss(soft(t), t, soft(s), s, w),
    "logit": logit_loss,
    "chain": lambda t, s, weights: chain_loss(s, torch.where(weights, 1, IGNORED)),
    "hidden": HiddenLoss(5, 5),
}


@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES.keys())
def test_only_the_student_gets_a_gradient(loss):
    teacher, student = (random(3, 5, 5, seed=s).requires_grad_(True) for s in (0, 1))
    loss(teacher, student, rows(3, 5)).mean.backward()
    assert teacher.grad is None or not teacher.grad.any()
    assert student.grad.any() and student.grad.isfinite().all()


@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES.keys())
def test_nothing_chosen_gives_zero_and_no_nan(loss):
    teacher, student = random(3, 5, 5), random(3, 5, 5, seed=1).requires_grad_(True)
    none = loss(teacher, student, ~rows(3, 5))
    none.mean.backward()
    assert none.total == none.count == none.mean == 0
    assert student.grad is None or not student.grad.any()


@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES.keys())
def test_autocast_changes_nothing(loss):
    teacher, student = random(3, 5, 5), random(3, 5, 5, seed=1)
    plain = loss(teacher, student, rows(3, 5))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = loss(teacher, student, rows(3, 5))
    assert mixed.total.dtype == torch.float32
    torch.testing.assert_close(mixed, plain)
