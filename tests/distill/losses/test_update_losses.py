"""What heads write, compared: CKA in the residual stream, and KL over the options."""

import math

import pytest
import torch
from fixtures.tensors import random, rows

from workbench.distill.losses import divergence
from workbench.distill.losses.losses import option_update_loss, update_loss

NAN = float("nan")


def test_cka_is_one_up_to_rotation_scale_and_shift():
    teacher = random(20, 6)
    rotation = torch.linalg.qr(random(6, 6, seed=1))[0]
    for debiased in (False, True):
        same = update_loss(teacher, 7 * teacher @ rotation + 3, debiased=debiased)
        assert same.mean.abs() < 1e-5
        assert same.count == 20
        assert update_loss(teacher, random(20, 6, seed=2), debiased=debiased).mean > 0.5


def test_cka_equals_its_feature_space_form_for_other_widths():
    teacher, student = random(30, 5), random(30, 3, seed=1) + random(30, 5)[:, :3]
    x, y = (s - s.mean(dim=0) for s in (teacher, student))
    norms = [torch.linalg.matrix_norm(m) for m in (y.T @ x, x.T @ x, y.T @ y)]
    expected = 1 - norms[0] ** 2 / (norms[1] * norms[2])
    torch.testing.assert_close(update_loss(teacher, student).mean, expected)


def test_debiased_cka_is_the_estimator_of_song_et_al():
    teacher, student = random(9, 4), random(9, 7, seed=1) + random(9, 4)[:, :1]

    def hsic(k: torch.Tensor, l: torch.Tensor) -> torch.Tensor:  # noqa: E741
        n, one = len(k), torch.ones(len(k))
        k, l = (x - x.diag().diag() for x in (k, l))  # noqa: E741
        middle = (one @ k @ one) * (one @ l @ one) / ((n - 1) * (n - 2))
        return ((k @ l).trace() + middle - 2 / (n - 2) * (one @ k @ l @ one)) / (n * (n - 3))

    k, l = teacher @ teacher.T, student @ student.T  # noqa: E741
    expected = 1 - hsic(k, l) / (hsic(k, k) * hsic(l, l)).sqrt()
    torch.testing.assert_close(update_loss(teacher, student, debiased=True).mean, expected)


@pytest.mark.parametrize("debiased", [False, True])
def test_cka_of_many_samples_is_the_same_by_channels(debiased: bool, monkeypatch):
    teacher, student = random(60, 5) + 2, random(60, 7, seed=1) + random(60, 5)[:, :1]
    mask = random(60, seed=2) < 0.8
    student[~mask] = NAN
    found = []
    for many in (60, 0):
        monkeypatch.setattr(divergence, "MANY", many)
        ours = student.clone().requires_grad_(True)
        loss = update_loss(teacher, ours, mask, debiased=debiased)
        loss.total.backward()
        found.append((loss, ours.grad))
    torch.testing.assert_close(*(loss for loss, _ in found))
    torch.testing.assert_close(*(gradient for _, gradient in found), rtol=1e-4, atol=1e-6)
    assert not found[1][1][~mask].any() and found[1][1][mask].abs().max() > 1e-4
    monkeypatch.setattr(divergence, "MANY", 0)
    assert update_loss(teacher, torch.zeros(60, 7), mask, debiased=debiased).mean == 1


def test_debiasing_takes_the_bias_of_small_batches_away():
    pairs = [(random(12, 64, seed=2 * s), random(12, 64, seed=2 * s + 1)) for s in range(200)]
    biased, debiased = (
        torch.stack([update_loss(*pair, debiased=way).mean for pair in pairs]).mean()
        for way in (False, True)
    )
    assert biased < 0.3, "independent noise looks alike when samples are few"
    assert abs(debiased - 1) < 0.02


@pytest.mark.parametrize("debiased", [False, True])
def test_update_loss_ignores_masked_samples_and_batch_layout(debiased: bool):
    teacher, student = random(3, 4, 6), random(3, 4, 5, seed=1)
    mask = torch.tensor([[1, 1, 0, 1], [1, 1, 1, 1], [1, 0, 0, 0]]).bool()
    expected = update_loss(teacher[mask], student[mask], debiased=debiased)
    student[~mask] = NAN
    student.requires_grad_(True)
    loss = update_loss(teacher, student, mask, debiased=debiased)
    torch.testing.assert_close(loss, expected)
    loss.total.backward()
    assert student.grad.isfinite().all() and not student.grad[~mask].any()


@pytest.mark.parametrize("debiased", [False, True])
def test_update_loss_of_too_few_samples_or_no_variance(debiased: bool):
    silent = torch.zeros(6, 3, requires_grad=True)
    loss = update_loss(random(6, 4), silent, debiased=debiased)
    assert loss.mean == 1
    loss.total.backward()
    assert silent.grad.isfinite().all()
    for n in (0, 1, 3 if debiased else 1):
        few = random(n, 3).requires_grad_(True)
        loss = update_loss(random(n, 4), few, debiased=debiased)
        assert loss.total == loss.count == 0
        loss.total.backward()
        assert few.grad is None or few.grad.isfinite().all()


def test_a_student_learns_the_teachers_geometry_by_update_loss():
    torch.manual_seed(0)
    inputs = torch.randn(64, 8)
    teacher = inputs @ torch.randn(8, 3)
    student = torch.nn.Linear(8, 2, bias=False)
    optimizer = torch.optim.Adam(student.parameters(), lr=0.05)
    start = update_loss(teacher, student(inputs), debiased=True).mean.item()
    for _ in range(100):
        optimizer.zero_grad()
        loss = update_loss(teacher, student(inputs), debiased=True)
        loss.mean.backward()
        optimizer.step()
    assert loss.mean < 0.25 < start


def test_option_update_loss_is_blind_to_constants_but_not_to_scale():
    teacher = torch.tensor([[[2.0, 0.0, 0.0]]])
    assert option_update_loss(teacher, teacher + 5, rows(1, 1)).mean.abs() < 1e-6
    odds = math.e**2
    p = odds / (odds + 2)
    expected = p * math.log(3 * p) + (1 - p) * math.log(3 * (1 - p) / 2)
    loss = option_update_loss(teacher, torch.zeros(1, 1, 3), rows(1, 1))
    assert loss.mean.item() == pytest.approx(expected, rel=1e-5)
    sharper = option_update_loss(teacher / 10, torch.zeros(1, 1, 3), rows(1, 1), temperature=0.1)
    torch.testing.assert_close(sharper.mean, loss.mean)


def test_option_update_loss_over_the_options_there_are():
    teacher, student = random(2, 3, 4), random(2, 3, 4, seed=1)
    options = torch.tensor([True, True, False, True]).expand(2, 3, 4).clone()
    options[1, 2] = False
    student[1, 2] = NAN
    student[..., 2] = 1e9
    student.requires_grad_(True)
    loss = option_update_loss(teacher, student, rows(2, 3), options)
    kept = [x.detach()[..., [0, 1, 3]].flatten(0, 1)[None, :5] for x in (teacher, student)]
    expected = option_update_loss(kept[0], kept[1], rows(1, 5))
    torch.testing.assert_close(loss, expected)
    loss.total.backward()
    assert student.grad.isfinite().all()
    assert not student.grad[..., 2].any()
