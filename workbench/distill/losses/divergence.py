"""The numerics under the losses: divergences row by row, Gram matrices, weighted sums.

Everything here is float32, gives the teacher no gradient, and keeps what has weight 0 out of the
graph before it can turn a gradient into NaN.
"""

from functools import partial

import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor
from torch.nn import functional

from workbench.distill.losses.compiling import fused, is_eager

Weighted = tuple[Float[Tensor, " batch *row"], Float[Tensor, " batch *row"]]
"""A loss for each row, and how much the row counts."""


def smallest_floor(floor: float, given: Tensor) -> float:
    """The floor, raised to the smallest normal number of the tensor's dtype.

    In float16 that is 6e-5, and 1 over it still is a number there, as a gradient must be.
    """
    return max(floor, torch.finfo(given.dtype).tiny)


@fused
def pattern_divergence(
    teacher: Float[Tensor, "batch *head query key"],
    student: Float[Tensor, "batch *head query key"],
    weights: Shaped[Tensor, "batch *head query"],
    keys: Bool[Tensor, "batch key"] | None,
    floor: float,
) -> Weighted:
    """KL(teacher ‖ student) of each row over allowed keys; a row of no teacher mass weighs 0."""
    allowed = (weights != 0)[..., None]
    if keys is not None:
        allowed = allowed & keys.view(len(keys), *[1] * (teacher.dim() - 2), -1)
    teacher, student = (torch.where(allowed, x.float(), 0.0) for x in (teacher.detach(), student))
    weights = weights.float() * (teacher.sum(dim=-1) > 0)
    theirs, ours = (_floored(x, floor, allowed) for x in (teacher, student))
    return (theirs * (theirs.log() - ours.log())).sum(dim=-1), weights


def _floored(mass: Tensor, floor: float, allowed: Tensor) -> Tensor:
    """Shares of the allowed keys, which do not depend on how many others there are; 1 elsewhere."""
    tiny = torch.finfo(mass.dtype).tiny
    share = mass / mass.sum(dim=-1, keepdim=True).clamp(min=tiny)
    share = torch.where(allowed, share + floor, 0.0)
    # The second division only matters for rows without mass, which become uniform.
    share = share / share.sum(dim=-1, keepdim=True).clamp(min=tiny)
    return torch.where(allowed, share, 1.0)


def logit_divergence(
    teacher: Float[Tensor, "*row option"],
    student: Float[Tensor, "*row option"],
    weights: Shaped[Tensor, "*row"],
    options: Bool[Tensor, "*row option"] | None,
) -> tuple[Float[Tensor, "*row"], Float[Tensor, "*row"]]:
    """KL between the softmaxes of both over the allowed options; a row of no option weighs 0."""
    if options is not None:
        weights = weights * options.any(dim=-1)
        teacher, student = (x.masked_fill(~options, -torch.inf) for x in (teacher, student))
    counts = (weights != 0)[..., None]
    theirs, ours = (
        torch.where(counts, x, 0.0).log_softmax(dim=-1) for x in (teacher.detach(), student)
    )
    chance = theirs.exp()
    terms = (chance * (theirs - ours)).masked_fill(chance == 0, 0.0)
    return terms.sum(dim=-1), weights.float()


def token_cross_entropy(
    logits: Float[Tensor, "batch position vocab"],
    labels: Int[Tensor, "batch position"],
    weights: Float[Tensor, "batch position"],
) -> Float[Tensor, "batch position"]:
    """Cross-entropy of each token's label, unweighted; 0 where the weight is."""
    if not is_eager():
        return _all_tokens(logits, labels, weights)
    # Not compiled, every step holds a copy: of large vocabularies only of the rows that count.
    counted = weights != 0
    losses = functional.cross_entropy(
        logits[counted].float(), labels[counted].long(), reduction="none"
    )
    return torch.zeros_like(weights).masked_scatter(counted, losses)


@fused
def _all_tokens(logits: Tensor, labels: Tensor, weights: Tensor) -> Tensor:
    counted = weights != 0
    kept = torch.where(counted[..., None], logits.float(), 0.0)
    targets = torch.where(counted, labels, 0).long()
    losses = functional.cross_entropy(
        kept.flatten(0, 1), targets.flatten(), reduction="none"
    ).view_as(weights)
    return torch.where(counted, losses, 0.0)


@fused
def cka(
    teacher: Float[Tensor, "sample teacher_width"],
    student: Float[Tensor, "sample student_width"],
    mask: Bool[Tensor, " sample"],
    debiased: bool,
) -> Float[Tensor, ""]:
    """Linear CKA; 0, without a gradient, where either side does not vary.

    Where samples are many more than channels, as rows of chains are, it is computed from channels ×
    channels: the same sums, without matrices of samples × samples.
    """
    theirs, ours = centred(teacher, mask), centred(student, mask)
    if len(mask) > MANY * max(teacher.shape[1], student.shape[1]):
        product = partial(_product_by_channels, debiased=debiased, n=mask.sum().float())
        both, *own = product(theirs, ours), product(theirs, theirs), product(ours, ours)
    else:
        theirs, ours = theirs @ theirs.mT, ours @ ours.mT
        if debiased:
            theirs, ours = u_centred(theirs, mask), u_centred(ours, mask)
        both, *own = (theirs * ours).sum(), theirs.square().sum(), ours.square().sum()
    return both / (own[0] * own[1]).clamp(min=1e-20).sqrt()


MANY = 2
"""Samples for each channel from which on channels × channels are fewer numbers."""


def _product_by_channels(
    x: Float[Tensor, "sample x_width"],
    y: Float[Tensor, "sample y_width"],
    debiased: bool,
    n: Float[Tensor, ""],
) -> Float[Tensor, ""]:
    """Σ K∘L of the Gram matrices of centred samples; debiased, of `u_centred` ones.

    As rows of K sum to 0, those without the diagonal sum to minus it, and U-centring is a
    projection: Σ_{i≠j} K_ij L_ij − 2 Σ_i k_i l_i / (n − 2) + Σ k Σ l / ((n − 1)(n − 2)).
    """
    whole = (x.mT @ y).square().sum()
    if not debiased:
        return whole
    k, l = x.square().sum(dim=1), y.square().sum(dim=1)  # noqa: E741
    few = (n - 2).clamp(min=1)
    return whole - (k * l).sum() * (1 + 2 / few) + k.sum() * l.sum() / (n - 1).clamp(min=1) / few


def sample_count(mask: Bool[Tensor, "*sample"], debiased: bool) -> Float[Tensor, ""]:
    """Samples that CKA is taken over; 0 where they are too few to compare anything."""
    n = mask.sum().float()
    return torch.where(n >= (4 if debiased else 2), n, 0.0)


def centred(
    samples: Float[Tensor, "sample width"], mask: Bool[Tensor, " sample"]
) -> Float[Tensor, "sample width"]:
    """Centred samples of norm 1 in all, so that their Gram matrix has trace 1; 0 outside the mask.

    In float32.
    """
    inside = mask[:, None]
    samples = torch.where(inside, samples.float(), 0.0)
    centred = samples - samples.sum(dim=0) / mask.sum().clamp(min=1)
    centred = torch.where(inside, centred, 0.0)
    return centred / torch.linalg.vector_norm(centred).clamp(min=1e-12)


def u_centred(
    gram: Float[Tensor, "sample sample"], mask: Bool[Tensor, " sample"]
) -> Float[Tensor, "sample sample"]:
    """Centred so that Σ K∘L is n (n − 3) times the unbiased HSIC₁ (Song et al. 2012).

    The form is the U-centring of Székely and Rizzo 2014: the diagonal is left out, and every row
    and column sums to 0.
    """
    n = mask.sum()
    itself = torch.eye(len(mask), dtype=torch.bool, device=mask.device)
    gram = gram.masked_fill(itself, 0.0)
    rows = gram.sum(dim=1) / (n - 2).clamp(min=1)
    centred = gram - rows[:, None] - rows[None, :] + rows.sum() / (n - 1).clamp(min=1)
    return torch.where(mask[:, None] & mask[None, :] & ~itself, centred, 0.0)


def weighted_sum(
    losses: Float[Tensor, " batch *row"], weights: Float[Tensor, " batch *row"], per: str
) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
    """Sum and count over rows, or over examples that are the mean of their rows."""
    weighted = torch.where(weights != 0, losses, 0.0) * weights
    if per == "row":
        return weighted.sum(), weights.sum()
    total, count = (x.reshape(len(x), -1).sum(dim=1) for x in (weighted, weights))
    counted = count > 0
    return (total / torch.where(counted, count, 1.0)).sum(), counted.sum().float()


def js_divergences(
    teacher: Float[Tensor, "row key"], student: Float[Tensor, "row head key"]
) -> Float[Tensor, " head"]:
    """Jensen-Shannon divergence of one teacher head from each student head, summed over rows."""
    theirs = teacher[:, None]
    middle = (theirs + student) / 2
    halves = (torch.xlogy(x, x) - torch.xlogy(x, middle) for x in (theirs, student))
    return torch.stack([half.sum(dim=(0, 2)) for half in halves]).sum(dim=0) / 2
