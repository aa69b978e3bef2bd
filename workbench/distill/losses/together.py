"""CKA over all samples of a training step, in however many forwards and processes it is made.

CKA is no sum over samples: that of halves says nothing of the whole. Of its gradient each forward
needs no more than the derivative by its own samples, G; Σ G∘S has the same gradient as the whole,
when S is computed again with a graph. So samples of all forwards are collected first, without
graphs (as GradCache does for contrastive losses, Gao et al. 2021), and those of the other processes
gathered; one forward a step collects as it goes.
"""

from collections.abc import Callable

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from workbench.distill.losses.divergence import cka, sample_count
from workbench.distill.losses.losses import Loss, update_loss

Gather = Callable[[Float[Tensor, "sample width"]], list[Float[Tensor, "_ width"]]]
"""Gives the samples of all processes, in their order."""


class Step:
    """The samples of one step, by forward and by comparison, which come in the same order in each.

    Args:
        process: this one's number.
        gather: over processes.
        collecting: samples of all forwards come before any is compared; else there is one forward.

    Attributes:
        collecting: whether that still lasts.
    """

    def __init__(self, process: int, gather: Gather, *, collecting: bool) -> None:
        self.collecting = collecting
        self._process, self._gather = process, gather
        self._samples: list[list[tuple[Tensor, Tensor, Tensor]]] = []
        self._known: dict[int, tuple[Tensor, Tensor, tuple[Tensor, ...]]] = {}
        self._forward, self._comparison = -1, 0

    def begin(self, forward: int) -> None:
        """Say which forward is next."""
        self._forward, self._comparison = forward, 0
        if len(self._samples) <= forward:
            self._samples.append([])

    def loss(
        self,
        teacher: Float[Tensor, "sample teacher_width"],
        student: Float[Tensor, "sample student_width"],
        count: Float[Tensor, ""],
        debiased: bool,
    ) -> Loss:
        """This forward's share of the loss, of which the gradient is that of the whole."""
        at, self._comparison = self._comparison, self._comparison + 1
        own = self._samples[self._forward]
        if len(own) <= at:
            own.append((teacher.detach(), student.detach(), count))
        if self.collecting:
            return Loss(torch.zeros_like(count), count)
        if at not in self._known:
            self._known[at] = self._compare([each[at] for each in self._samples], debiased)
        value, whole, slopes = self._known[at]
        slope = (slopes[self._forward] * student).sum()
        return Loss(value * count + whole * (slope - slope.detach()), count)

    def _compare(
        self, forwards: list[tuple[Tensor, Tensor, Tensor]], debiased: bool
    ) -> tuple[Tensor, Tensor, tuple[Tensor, ...]]:
        """The loss, the count of all, and the loss's derivative by each forward's own samples."""
        theirs, ours, counts = zip(*forwards, strict=True)
        gathered = [
            self._gather(torch.cat([one.float() for one in parts])) for parts in (theirs, ours)
        ]
        whole = torch.stack(self._gather(torch.stack(counts).sum()[None, None])).sum()
        teacher, student = (torch.cat(parts) for parts in gathered)
        every = torch.ones(len(teacher), dtype=torch.bool, device=teacher.device)
        with torch.enable_grad(), torch.autocast(teacher.device.type, enabled=False):
            student.requires_grad_()
            loss = 1 - cka(teacher, student, every, debiased)
            (slope,) = torch.autograd.grad(loss, student)
        loss = torch.where(sample_count(every, debiased) > 0, loss.detach(), 0.0)
        before = sum(len(part) for part in gathered[1][: self._process])
        mine = slope[before : before + sum(map(len, ours))]
        return loss, whole, mine.split([len(part) for part in ours])


class Together:
    """How terms take CKA: over a step where there is one, else over what they are given."""

    def __init__(self) -> None:
        self.step: Step | None = None

    def loss(
        self,
        teacher: Float[Tensor, "*sample teacher_width"],
        student: Float[Tensor, "*sample student_width"],
        mask: Bool[Tensor, "*sample"],
        debiased: bool,
    ) -> Loss:
        """As `losses.update_loss`."""
        if self.step is None:
            return update_loss(teacher, student, mask, debiased=debiased)
        count = sample_count(mask.flatten(), debiased)
        return self.step.loss(teacher[mask], student[mask].float(), count, debiased)
