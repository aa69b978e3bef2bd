"""Terms on matched heads: where they look, what they write, and both together."""

from collections.abc import Collection
from typing import TYPE_CHECKING

from workbench.distill.losses.term import ROW_KEYS, SIDES, ByGroup, Side, Term, register
from workbench.distill.reading.wanted import Looks, Wanted
from workbench.heads import Head
from workbench.phases import POOLS, Pool

if TYPE_CHECKING:
    from torch import Tensor

    from workbench.distill.config import LossConfig
    from workbench.distill.losses.losses import Loss
    from workbench.distill.matching.head_map import Group
    from workbench.distill.reading.capture import Reading
    from workbench.distill.reading.positions import Looking, Marks
    from workbench.distill.training.terms import Models


class _Grouped(ByGroup):
    """Compares the heads of every pool that the configuration names."""

    def __init__(self, models: "Models") -> None:
        super().__init__(models)
        self.groups = models.groups()

    @staticmethod
    def pools(config: "LossConfig") -> Collection[Pool]:
        return config.pools

    def heads(self, side: Side) -> frozenset[Head]:
        """All heads of one side."""
        return frozenset(head for group in self.groups for head in getattr(group, side))


@register
class Attention(_Grouped):
    """KL between pooled attention patterns."""

    name = "attention"
    help = "Weight of the KL between pooled attention patterns of matched heads."
    weight = 0.5
    objective = 2.0

    @staticmethod
    def reads(config: "LossConfig") -> Collection[str]:
        return ROW_KEYS[config.rows]

    def needs(self, side: Side) -> Wanted:
        return Wanted(patterns=self.heads(side))

    def count(self, marks: "Marks") -> "Tensor":
        return marks.count_rows(marks.rows, self.config.per)

    def of_group(
        self, marks: "Marks", teacher: "Reading", student: "Reading", group: "Group"
    ) -> "Loss":
        from workbench.distill.losses.losses import attention_loss

        return attention_loss(
            teacher.pooled(group.teacher),
            student.pooled(group.student),
            marks.compared,
            marks.real,
            per=self.config.per,
        )


@register
class Update(_Grouped):
    """Distance between what matched heads write, in the residual stream or over the options."""

    name = "update"
    help = "Weight of the distance between what matched heads write, in --update-space."
    objective = 0.3

    def __init__(self, models: "Models") -> None:
        super().__init__(models)
        self.over_options = self.reads_option_logits(models.config)
        self.together = models.together
        self.unembeddings = models.unembeddings() if self.over_options else {}

    @staticmethod
    def reads_option_logits(config: "LossConfig") -> bool:
        return config.update_space == "options"

    @classmethod
    def by_cka(cls, config: "LossConfig") -> bool:
        return not cls.reads_option_logits(config)

    @staticmethod
    def reads(config: "LossConfig") -> Collection[str]:
        over_options = config.update_space == "options"
        return ("decisions", *(("option_spans", "option_tokens") if over_options else ()))

    def needs(self, side: Side) -> Wanted:
        return Wanted(writes=self.heads(side), scale=self.over_options)

    def count(self, marks: "Marks") -> "Tensor":
        if self.over_options:
            return marks.count_rows(marks.decided, self.config.per)
        return marks.count_samples(self.config.debiased)

    def of_group(
        self, marks: "Marks", teacher: "Reading", student: "Reading", group: "Group"
    ) -> "Loss":
        from workbench.distill.losses.losses import option_update_loss

        if not self.over_options:
            return self.together.loss(
                teacher.summed(group.teacher, marks),
                student.summed(group.student, marks),
                marks.sampled,
                self.config.debiased,
            )
        theirs = teacher.contribution(group.teacher, marks, self.unembeddings["teacher"])
        ours = student.contribution(group.student, marks, self.unembeddings["student"])
        return option_update_loss(
            theirs,
            ours,
            marks.decided,
            marks.offered[:, None].expand_as(theirs),
            temperature=self.config.interaction_temperature,
            per=self.config.per,
        )


@register
class Interaction(Term):
    """KL between coarse attention × refine contribution, over the options."""

    name = "interaction"
    help = "Weight of the KL between coarse attention × refine contribution over the options."
    objective = 0.3

    def __init__(self, models: "Models") -> None:
        super().__init__(models)
        self.unembeddings = models.unembeddings()
        self.heads = {side: models.pooled_heads(side) for side in SIDES}
        self.looking: Looking = "decisions" if self.config.route == "decision" else "evidence"

    @staticmethod
    def pools(config: "LossConfig") -> Collection[Pool]:
        return POOLS

    @staticmethod
    def reads_option_logits(config: "LossConfig") -> bool:
        return True

    @staticmethod
    def reads(config: "LossConfig") -> Collection[str]:
        return ("decisions", "option_spans", "option_tokens", "evidence")

    def needs(self, side: Side) -> Wanted:
        coarse, refine = (frozenset(self.heads[side][pool]) for pool in POOLS)
        looks: Looks = "decisions" if self.config.route == "decision" else "options"
        return Wanted(patterns=coarse, looks=frozenset({looks}), writes=refine, scale=True)

    def count(self, marks: "Marks") -> "Tensor":
        return marks.count_rows(marks.asked, self.config.per)

    def loss(self, marks: "Marks", teacher: "Reading", student: "Reading") -> "Loss":
        from workbench.distill.losses.losses import interaction_loss

        (theirs, wrote_theirs), (ours, wrote_ours) = (
            (
                reading.mass(self.heads[side]["coarse"], marks, self.looking),
                reading.contribution(self.heads[side]["refine"], marks, self.unembeddings[side]),
            )
            for side, reading in zip(SIDES, (teacher, student), strict=True)
        )
        return interaction_loss(
            theirs,
            wrote_theirs,
            ours,
            wrote_ours,
            marks.asked,
            marks.offered[:, None].expand_as(theirs),
            temperature=self.config.interaction_temperature,
            per=self.config.per,
        )
