"""Terms on what the student says next."""

from collections.abc import Collection
from typing import TYPE_CHECKING

from workbench.distill.losses.term import Side, Term, register
from workbench.distill.reading.wanted import Wanted

if TYPE_CHECKING:
    from torch import Tensor

    from workbench.distill.config import LossConfig
    from workbench.distill.losses.losses import Loss
    from workbench.distill.reading.capture import Reading
    from workbench.distill.reading.positions import Marks
    from workbench.distill.training.terms import Models


@register
class Chain(Term):
    """Next-token cross-entropy on the teacher's chains and answers."""

    name = "chain"
    help = "Weight of the cross-entropy on the teacher's written chains and answers."
    weight = 1.0
    reads_teacher = False

    @staticmethod
    def reads(config: "LossConfig") -> Collection[str]:
        return ("labels",)

    def needs(self, side: Side) -> Wanted:
        return Wanted(logits=side == "student")

    def count(self, marks: "Marks") -> "Tensor":
        from workbench.distill.losses.losses import IGNORED

        return ((marks.labels[:, 1:] != IGNORED) * marks.weights[:, 1:].float()).sum()

    def loss(self, marks: "Marks", teacher: "Reading", student: "Reading") -> "Loss":
        from workbench.distill.losses.losses import chain_loss

        assert student.logits is not None
        return chain_loss(student.logits, marks.labels, marks.weights)


@register
class Logit(Term):
    """Distillation of next-token distributions."""

    name = "logit"
    help = "Weight of the KL between next-token distributions over chain and answer."
    # Positions are chosen before anything is computed: of how many nothing is known beforehand, as
    # a graph would have to.
    one_graph = False

    def __init__(self, models: "Models") -> None:
        super().__init__(models)
        self._tokens = slice(models.n_tokens)

    @staticmethod
    def reads(config: "LossConfig") -> Collection[str]:
        return ("labels",)

    def needs(self, side: Side) -> Wanted:
        return Wanted(logits=True)

    def count(self, marks: "Marks") -> "Tensor":
        return marks.count_rows(marks.targets, self.config.per)

    def loss(self, marks: "Marks", teacher: "Reading", student: "Reading") -> "Loss":
        from workbench.distill.losses.losses import TopLogits, logit_loss, top_logit_loss

        theirs, ours = teacher.logits, student.logits
        assert theirs is not None and ours is not None
        how = {"temperature": self.config.logit_temperature, "per": self.config.per}
        ours = ours[..., self._tokens]
        if isinstance(theirs, TopLogits):  # of targets on disk
            return top_logit_loss(theirs, ours, marks.targets, **how)
        return logit_loss(theirs[..., self._tokens], ours, marks.targets, **how)
