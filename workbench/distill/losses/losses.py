"""What a student is trained on: losses between a teacher's and a student's activations.

Pure functions of tensors. They widen to float32 inside, also under autocast, send gradients to the
student only, and return a `Loss`: a weighted sum and what it is a sum over, so that steps of
gradient accumulation add up exactly (Σ total / Σ count).

A *row* is a query position of one example. `weights` says how much each row counts: booleans to
choose rows (from the first candidate on, without padding), or numbers. Rows of weight 0 may hold
anything, NaN included.
"""

from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor, nn
from torch.nn import functional

from workbench.distill.losses.divergence import (
    cka,
    logit_divergence,
    pattern_divergence,
    sample_count,
    smallest_floor,
    token_cross_entropy,
    weighted_sum,
)
from workbench.distill.losses.term import Per

IGNORED = -100
"""Label of a token that no loss is taken on."""

FLOOR = 1e-6
"""Added to every probability before its logarithm: no entry's gradient is above 1 / FLOOR.

Raised to the smallest normal number of the student's dtype.
"""


class Loss(NamedTuple):
    """A sum of weighted terms, with a graph, and the weight of those terms, without one.

    Total and count are 0 when nothing could be counted.
    """

    total: Float[Tensor, ""]
    count: Float[Tensor, ""]

    @property
    def mean(self) -> Float[Tensor, ""]:
        """Weighted mean of the terms; 0, with a graph, when there are none."""
        return self.total / torch.where(self.count > 0, self.count, 1.0)


def average(losses: Sequence[Loss], weights: Sequence[float] | None = None) -> Loss:
    """Weighted mean of losses that have the same count."""
    weights = weights or [1.0] * len(losses)
    whole = sum(weights)
    total = torch.stack(
        [loss.total * (weight / whole) for loss, weight in zip(losses, weights, strict=True)]
    ).sum()
    return Loss(total, losses[0].count)


def attention_loss(
    teacher: Float[Tensor, "batch query key"],
    student: Float[Tensor, "batch query key"],
    weights: Shaped[Tensor, "batch query"],
    keys: Bool[Tensor, "batch key"] | None = None,
    *,
    per: Per = "row",
) -> Loss:
    """KL(teacher ‖ student) between pooled attention patterns, row by row.

    Both sides are restricted to `keys` (the real tokens) and normalised; then `FLOOR` is added to
    each entry, so that a key the student does not look at at all has a finite loss and gradient.
    A row in which the teacher looks at no allowed key does not count.

    Args:
        teacher: attention probabilities of the matched heads, pooled.
        student: the same.
        weights: of each row.
        keys: tokens that may be looked at; None for all.
        per: "row" gives every row its weight, so long examples count for more; "example" averages
            the rows of an example first, and then gives every example 1.

    The choice of heads and their pooling is this project's; KL between attention distributions as
    a loss is that of MiniLM (Wang et al. 2020).
    """
    floor = smallest_floor(FLOOR, student)
    losses, weights = pattern_divergence(teacher, student, weights, keys, floor)
    return Loss(*weighted_sum(losses, weights, per))


def minilm_attention_loss(
    teacher: Sequence[Float[Tensor, "_ _ _ _"]],
    student: Sequence[Float[Tensor, "_ _ _ _"]],
    weights: Shaped[Tensor, "batch query"],
    keys: Bool[Tensor, "batch key"] | None = None,
    *,
    per: Per = "row",
) -> Loss:
    """The same KL over all heads of mapped layers: the baseline that knows no head set.

    The i-th layers, [batch, head, query, key], belong together. With equally many heads, head h is
    compared with head h and the mean is taken over heads; else the means over heads are compared.
    Mean over layers, so that the value compares with `attention_loss`. After MiniLM (Wang et al.
    2020), which takes the last layer only and adds a loss on value relations, left out here.
    """
    losses = []
    for theirs, ours in zip(teacher, student, strict=True):
        floor = smallest_floor(FLOOR, ours)
        if theirs.shape[1] != ours.shape[1]:
            theirs, ours = (x.float().mean(dim=1, keepdim=True) for x in (theirs, ours))
        heads = ours.shape[1]
        repeated = weights[:, None].expand(-1, heads, -1)
        each, counted = pattern_divergence(theirs, ours, repeated, keys, floor)
        # A row counts once, however many heads it was compared in.
        losses.append(weighted_sum(each, counted / heads, per))
    return Loss(*(torch.stack(part).mean() for part in zip(*losses, strict=True)))


def update_loss(
    teacher: Float[Tensor, "*sample teacher_width"],
    student: Float[Tensor, "*sample student_width"],
    mask: Bool[Tensor, "*sample"] | None = None,
    *,
    debiased: bool = False,
) -> Loss:
    """1 − linear CKA between what the teacher's and the student's matched heads write.

    A sample is one vector written to the residual stream at a chosen position (decisions, ends of
    options) of one example; see `reading.through`. Blind to rotation, shift and scale; widths may
    differ. `mask` says which samples exist. The Gram matrices hold samples × samples numbers.

    With K, L the Gram matrices of samples centred over the batch, CKA = Σ K∘L / √(Σ K∘K · Σ L∘L)
    (Kornblith et al. 2019). It is near 1 for any two inputs when samples are fewer than widths;
    `debiased` takes the unbiased estimator HSIC₁ (Song et al. 2012) in place of each sum, as
    Nguyen et al. 2021 do: 0 on average for independent inputs, and so it may be slightly negative.

    CKA is no sum over samples: the count is the number of samples and the total is that times the
    loss, so accumulated steps are averaged by their size. Below 2 samples (debiased: 4) there is
    nothing to compare and both are 0.
    """
    if mask is None:
        mask = torch.ones(teacher.shape[:-1], dtype=torch.bool, device=teacher.device)
    mask = mask.flatten()
    with torch.autocast(teacher.device.type, enabled=False):
        similarity = cka(teacher.detach().flatten(0, -2), student.flatten(0, -2), mask, debiased)
    count = sample_count(mask, debiased)
    return Loss((1 - similarity) * count, count)


def option_update_loss(
    teacher: Float[Tensor, "batch *row option"],
    student: Float[Tensor, "batch *row option"],
    weights: Shaped[Tensor, " batch *row"],
    options: Bool[Tensor, "batch *row option"] | None = None,
    *,
    temperature: float = 1.0,
    per: Per = "row",
) -> Loss:
    """KL between the softmaxes over options of what matched heads write for each option's logit.

    Inputs are direct logit contributions (`features.option_contribution`), in logits. `options`
    says which options a row has; a row without any does not count. Comparing softmaxes, not
    correlations, keeps the unit: a difference of one logit between gold and a near miss matters as
    much as it does to the answer, and where the teacher writes next to nothing the student is not
    made to copy the noise. Heads that act through later layers have contributions far below 1:
    lower `temperature`, by which contributions are divided, to their spread, or use `update_loss`.
    """
    theirs, ours = (x.float() / temperature for x in (teacher, student))
    return Loss(*weighted_sum(*logit_divergence(theirs, ours, weights, options), per))


def interaction_loss(
    teacher_mass: Float[Tensor, "batch *row option"],
    teacher_contribution: Float[Tensor, "batch *row option"],
    student_mass: Float[Tensor, "batch *row option"],
    student_contribution: Float[Tensor, "batch *row option"],
    weights: Shaped[Tensor, " batch *row"],
    options: Bool[Tensor, "batch *row option"] | None = None,
    *,
    temperature: float = 1.0,
    per: Per = "row",
) -> Loss:
    """KL between where coarse heads look × what refine heads write, as distributions over options.

    With m_o the coarse heads' attention mass for option o (`features.decision_mass` or
    `features.evidence_mass`) and c_o the direct contribution of the
    refine heads to its logit (`features.option_contribution`):
    I_o = (m_o + FLOOR) · exp(c_o / T) / Σ over options of the same. An exponential, because adding
    a constant to all option logits then changes nothing, as in the model's own softmax, and a
    contribution multiplies the odds that the coarse heads gave. An option nobody looks at keeps
    `FLOOR`. A row in which the teacher's mass is 0 on all options says nothing and does not count;
    where the student's is, its attention counts as uniform. T (`temperature`) and `options` as in
    `option_update_loss`.

    The formula is this project's own.
    """
    looks = teacher_mass > 0 if options is None else (teacher_mass > 0) & options
    weights = weights * looks.any(dim=-1)
    floor = smallest_floor(FLOOR, student_mass)
    counts = (weights != 0)[..., None]  # of the others, no logarithm is taken
    theirs, ours = (
        (torch.where(counts, mass.float(), 0.0) + floor).log() + contribution.float() / temperature
        for mass, contribution in (
            (teacher_mass, teacher_contribution),
            (student_mass, student_contribution),
        )
    )
    return Loss(*weighted_sum(*logit_divergence(theirs, ours, weights, options), per))


def logit_loss(
    teacher: Float[Tensor, "batch position vocab"],
    student: Float[Tensor, "batch position vocab"],
    weights: Shaped[Tensor, "batch position"],
    *,
    temperature: float = 1.0,
    per: Per = "row",
) -> Loss:
    """T² · KL(teacher ‖ student) of next-token distributions at temperature T (Hinton et al. 2015).

    Positions of weight 0 are left out before anything is computed. T² keeps the gradient's size
    when T changes.
    """
    chosen = weights != 0
    theirs, ours = (x[chosen].float() / temperature for x in (teacher.detach(), student))
    kept, _ = logit_divergence(theirs, ours, weights[chosen], None)
    losses = kept.new_zeros(weights.shape).masked_scatter(chosen, temperature**2 * kept)
    return Loss(*weighted_sum(losses, weights.float(), per))


class TopLogits(NamedTuple):
    """The largest logits at each position, and what all others weigh."""

    value: Float[Tensor, "batch position top"]
    index: Int[Tensor, "batch position top"]
    rest: Float[Tensor, "batch position"]
    """Log of the sum of exp(logit / T) over the others, at the loss's temperature T."""


def top_logit_loss(
    teacher: TopLogits,
    student: Float[Tensor, "batch position vocab"],
    weights: Shaped[Tensor, "batch position"],
    *,
    temperature: float = 1.0,
    per: Per = "row",
) -> Loss:
    """`logit_loss` in which all tokens but the teacher's likeliest are one: never above it."""
    chosen = weights != 0
    index, ours = teacher.index[chosen], student[chosen].float() / temperature
    theirs, mine = teacher.value[chosen].float() / temperature, ours.gather(-1, index)
    if index.shape[-1] < ours.shape[-1]:
        others = ours.scatter(-1, index, -torch.inf).logsumexp(dim=-1, keepdim=True)
        theirs = torch.cat([theirs, teacher.rest[chosen][..., None]], dim=-1)
        mine = torch.cat([mine, others], dim=-1)
    kept, _ = logit_divergence(theirs, mine, weights[chosen], None)
    losses = kept.new_zeros(weights.shape).masked_scatter(chosen, temperature**2 * kept)
    return Loss(*weighted_sum(losses, weights.float(), per))


def chain_loss(
    logits: Float[Tensor, "batch position vocab"],
    labels: Int[Tensor, "batch position"],
    weights: Float[Tensor, "batch position"] | None = None,
) -> Loss:
    """Next-token cross-entropy Σ w·ℓ of a written-out chain and answer.

    Labels are the input tokens: the first position predicts the second, and the weight is that of
    the token predicted. Tokens labelled `IGNORED` do not count.
    """
    # Labels are shifted, not logits, of which a shifted copy would cost more than the loss.
    targets = functional.pad(labels[:, 1:], (0, 1), value=IGNORED)
    counted = (targets != IGNORED).float()
    if weights is not None:
        counted = counted * functional.pad(weights[:, 1:].float(), (0, 1))
    losses = token_cross_entropy(logits, targets, counted)
    return Loss((losses * counted).sum(), counted.sum())


class HiddenLoss(nn.Module):
    """Distance between hidden states after a learnt projection of the student's: the baseline.

    "mse" is the mean squared error over the teacher's width (TinyBERT, Jiao et al. 2020); "cosine"
    is 1 − cosine similarity (as in DistilBERT, Sanh et al. 2019, which needs no projection), blind
    to scale. One module for each pair of layers; its parameters are trained with the student and
    thrown away.
    """

    def __init__(
        self, student_width: int, teacher_width: int, kind: Literal["mse", "cosine"] = "mse"
    ) -> None:
        super().__init__()
        self.kind = kind
        self.projection = nn.Linear(student_width, teacher_width, bias=False)
        nn.init.orthogonal_(self.projection.weight)  # keeps lengths at the start

    def forward(
        self,
        teacher: Float[Tensor, "batch position teacher_width"],
        student: Float[Tensor, "batch position student_width"],
        weights: Shaped[Tensor, "batch position"],
        per: Per = "row",
    ) -> Loss:
        """Loss over the positions, by their weights."""
        chosen = (weights != 0)[..., None]
        teacher, student = (
            torch.where(chosen, x.float(), 0.0) for x in (teacher.detach(), student)
        )
        with torch.autocast(student.device.type, enabled=False):
            ours = functional.linear(student, self.projection.weight.float())
        if self.kind == "mse":
            losses = (ours - teacher).square().mean(dim=-1)
        else:
            losses = 1 - functional.cosine_similarity(ours, teacher, dim=-1)
        return Loss(*weighted_sum(losses, weights.float(), per))
