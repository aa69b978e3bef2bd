"""Baselines, which know no head set: all heads, hidden states, heads paired by ablation effect."""

from collections.abc import Collection
from typing import TYPE_CHECKING

from workbench.distill.losses.term import ROW_KEYS, Side, Term, register
from workbench.distill.reading.wanted import Wanted, all_heads

if TYPE_CHECKING:
    from torch import Tensor

    from workbench.distill.config import LossConfig
    from workbench.distill.losses.losses import Loss
    from workbench.distill.reading.capture import Reading
    from workbench.distill.reading.positions import Marks
    from workbench.distill.training.terms import Models

PROJECTIONS = "workbench_projections"
"""Attribute of the student that holds the learnt projections of `hidden` while it trains.

So they are trained, kept in checkpoints and shared between processes like the rest.
"""


class _Layers(Term):
    """Compares whole layers; `layers` are (student layer, teacher layer)."""

    baseline = 0.5

    def __init__(self, models: "Models") -> None:
        super().__init__(models)
        self.layers = models.layers()

    def own(self, side: Side) -> frozenset[int]:
        """Mapped layers of one side."""
        return frozenset(pair[side == "teacher"] for pair in self.layers)

    @staticmethod
    def reads(config: "LossConfig") -> Collection[str]:
        return ROW_KEYS[config.rows]

    def count(self, marks: "Marks") -> "Tensor":
        return marks.count_rows(marks.rows, self.config.per)


@register
class MiniLM(_Layers):
    """KL between all heads' patterns."""

    name = "minilm"
    help = "Weight of the KL between all heads' patterns in mapped layers, the MiniLM baseline."

    def __init__(self, models: "Models") -> None:
        super().__init__(models)
        self.n_heads = {side: shape.n_heads for side, shape in models.shapes.items()}

    def needs(self, side: Side) -> Wanted:
        return Wanted(patterns=all_heads(self.own(side), self.n_heads[side]))

    def loss(self, marks: "Marks", teacher: "Reading", student: "Reading") -> "Loss":
        from workbench.distill.losses.losses import minilm_attention_loss

        return minilm_attention_loss(
            [teacher.layer(layer) for _, layer in self.layers],
            [student.layer(layer) for layer, _ in self.layers],
            marks.compared,
            marks.real,
            per=self.config.per,
        )


@register
class Hidden(_Layers):
    """Distance between hidden states after a learnt projection."""

    name = "hidden"
    help = "Weight of the distance between hidden states of mapped layers, a baseline."

    def __init__(self, models: "Models") -> None:
        from torch import nn

        from workbench.distill.losses.losses import HiddenLoss

        super().__init__(models)
        widths = [
            model.config.get_text_config().hidden_size for model in (models.student, models.teacher)
        ]
        kind = self.config.hidden_kind
        self.projections = nn.ModuleList([HiddenLoss(*widths, kind=kind) for _ in self.layers])
        models.student.add_module(PROJECTIONS, self.projections)

    def needs(self, side: Side) -> Wanted:
        return Wanted(hidden=self.own(side))

    def loss(self, marks: "Marks", teacher: "Reading", student: "Reading") -> "Loss":
        from workbench.distill.losses.losses import average

        losses = [
            projection(
                teacher.hidden[theirs], student.hidden[ours], marks.rows, per=self.config.per
            )
            for projection, (ours, theirs) in zip(self.projections, self.layers, strict=True)
        ]
        return average(losses)


@register
class Circuit(Term):
    """1 − CKA between single heads."""

    name = "circuit"
    help = "Weight of 1 − CKA between single heads that are paired by ablation effect."
    baseline = 0.5
    by_ablation = True

    def __init__(self, models: "Models") -> None:
        super().__init__(models)
        self.pairs, self.together = models.circuit, models.together

    @classmethod
    def by_cka(cls, config: "LossConfig") -> bool:
        return True

    @staticmethod
    def reads(config: "LossConfig") -> Collection[str]:
        return ("decisions",)

    def needs(self, side: Side) -> Wanted:
        return Wanted(writes=frozenset(pair[side == "student"] for pair in self.pairs))

    def count(self, marks: "Marks") -> "Tensor":
        return marks.count_samples(self.config.debiased)

    def loss(self, marks: "Marks", teacher: "Reading", student: "Reading") -> "Loss":
        from workbench.distill.losses.losses import average

        losses = [
            self.together.loss(
                teacher.summed([theirs], marks),
                student.summed([ours], marks),
                marks.sampled,
                self.config.debiased,
            )
            for theirs, ours in self.pairs
        ]
        return average(losses)
