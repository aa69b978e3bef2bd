"""What terms of a phase share: their rows and heads, and labels in the teacher's place.

See `phases`, which has the terms themselves.
"""

from collections.abc import Collection
from typing import TYPE_CHECKING, ClassVar

from workbench.distill.losses.term import SIDES, ByGroup, PhaseName, Side, Term
from workbench.distill.reading.wanted import Looks, Wanted
from workbench.heads import Head
from workbench.phases import Pool

if TYPE_CHECKING:
    from torch import Tensor

    from workbench.distill.config import LossConfig
    from workbench.distill.losses.losses import Loss
    from workbench.distill.matching.head_map import Group
    from workbench.distill.reading.capture import Reading
    from workbench.distill.reading.positions import ChainRows, Marks, Written
    from workbench.distill.training.terms import Models

POOL_OF: dict[PhaseName, Pool] = {"p1": "coarse", "p2": "refine"}


class Phase(Term):
    """A term of one phase, for the heads of its pool at its rows."""

    phase: ClassVar[PhaseName]

    def __init__(self, models: "Models") -> None:
        super().__init__(models)
        assert models.headmap is not None
        self.by_labels = self.config.supervision == "gold"
        self.groups = models.headmap.groups(POOL_OF[self.phase])
        self.what: Written = "early" if self.phase == "p1" else "late"
        self.looks: frozenset[Looks] = frozenset({self.what})

    @classmethod
    def runs_teacher(cls, config: "LossConfig") -> bool:
        return config.supervision == "teacher"

    def heads(self, side: Side) -> frozenset[Head]:
        """Heads of the phase's pool; where labels stand for the teacher, none of its."""
        if side == "teacher" and self.by_labels:
            return frozenset()
        return frozenset(head for group in self.groups for head in getattr(group, side))

    def rows(self, marks: "Marks") -> "ChainRows":
        """Rows of the phase."""
        return marks.early if self.phase == "p1" else marks.late

    def labelled(self, marks: "Marks") -> "Tensor":
        """Options [batch, place, option] that labels say are meant at each row.

        In phase 1 gold and its near misses, of all decisions where a row's is not known; in phase 2
        gold, or the near miss that the row's part of the chain speaks of.
        """
        import torch

        from workbench.distill.losses.chain_rows import families, of_decision

        early = self.phase == "p1"
        near = marks.near_options if early else None
        found = families(marks.gold, near, marks.spans.shape[1])
        rows = self.rows(marks)
        meant = of_decision(found, rows.decision, unknown=early)
        if early:
            return meant
        options = torch.arange(found.shape[-1], device=found.device)
        # Where gold is not known, an option that a part speaks of is no label either.
        spoken = (rows.option[..., None] == options) & meant.any(dim=-1, keepdim=True)
        return torch.where((rows.option >= 0)[..., None], spoken, meant)

    def counted(self, marks: "Marks") -> "Tensor":
        """Rows [batch, place] that count."""
        there = self.rows(marks).there
        return there & self.labelled(marks).any(dim=-1) if self.by_labels else there

    def count(self, marks: "Marks") -> "Tensor":
        return marks.count_rows(self.counted(marks), self.config.per)


def label_keys(phase: PhaseName) -> tuple[str, ...]:
    """Keys of a batch that say which options are right at a phase's rows."""
    late = ("late_decision", "late_option")
    own = ("early_decision", "near_options") if phase == "p1" else late
    return ("option_spans", "gold", *own)


class Write(ByGroup, Phase):
    """Distance between what the pool's heads write; see `Update`.

    By labels they are to write what raises the logits of the right options: the rows of the
    student's own unembedding, or the distribution that is all on these options.
    """

    share = 0.15

    def __init__(self, models: "Models") -> None:
        super().__init__(models)
        self.over_options = self.reads_option_logits(self.config)
        self.together = models.together
        needed = self.over_options or self.by_labels
        self.unembeddings = models.unembeddings() if needed else {}

    @classmethod
    def pools(cls, config: "LossConfig") -> Collection[Pool]:
        return (POOL_OF[cls.phase],)

    @staticmethod
    def reads_option_logits(config: "LossConfig") -> bool:
        return config.update_space == "options"

    @classmethod
    def by_cka(cls, config: "LossConfig") -> bool:
        return not cls.reads_option_logits(config)

    @classmethod
    def reads(cls, config: "LossConfig") -> Collection[str]:
        by_labels = config.supervision == "gold"
        options = by_labels or cls.reads_option_logits(config)
        return (
            "early" if cls.phase == "p1" else "late",
            *(("option_spans", "option_tokens") if options else ()),
            *(label_keys(cls.phase) if by_labels else ()),
        )

    def needs(self, side: Side) -> Wanted:
        heads = self.heads(side)
        return Wanted(writes=heads, scale=self.over_options and bool(heads))

    def counted(self, marks: "Marks") -> "Tensor":
        counted = super().counted(marks)
        return counted & marks.offered.any(dim=1)[:, None] if self.over_options else counted

    def count(self, marks: "Marks") -> "Tensor":
        from workbench.distill.losses.divergence import sample_count

        if self.over_options:
            return super().count(marks)
        return sample_count(self.counted(marks), self.config.debiased)

    def of_group(
        self, marks: "Marks", teacher: "Reading", student: "Reading", group: "Group"
    ) -> "Loss":
        from workbench.distill.losses.chain_rows import shares
        from workbench.distill.losses.losses import FLOOR, option_update_loss
        from workbench.distill.reading.through import token_directions

        counted = self.counted(marks)
        if not self.over_options:
            if self.by_labels:
                rows = token_directions(self.unembeddings["student"], marks.tokens)
                theirs = shares(self.labelled(marks)) @ rows
            else:
                theirs = teacher.summed(group.teacher, marks, self.what)
            ours = student.summed(group.student, marks, self.what)
            return self.together.loss(theirs, ours, counted, self.config.debiased)
        ours = student.contribution(group.student, marks, self.unembeddings["student"], self.what)
        if self.by_labels:
            likely = shares(self.labelled(marks)).clamp(min=FLOOR).log()
            theirs = likely * self.config.interaction_temperature
        else:
            theirs = teacher.contribution(
                group.teacher, marks, self.unembeddings["teacher"], self.what
            )
        return option_update_loss(
            theirs,
            ours,
            counted,
            marks.offered[:, None].expand_as(theirs),
            temperature=self.config.interaction_temperature,
            per=self.config.per,
        )


class Both(Phase):
    """KL between attention on the options × contribution to their logits, of a whole pool.

    As `Interaction`, from a row of the chain onto the options, with one pool for both.
    By labels the distribution is all on the right options.
    """

    share = 0.15

    def __init__(self, models: "Models") -> None:
        super().__init__(models)
        self.unembeddings = models.unembeddings()
        self.whole = {side: models.pooled_heads(side)[POOL_OF[self.phase]] for side in SIDES}

    @classmethod
    def pools(cls, config: "LossConfig") -> Collection[Pool]:
        return (POOL_OF[cls.phase],)

    @staticmethod
    def reads_option_logits(config: "LossConfig") -> bool:
        return True

    @classmethod
    def reads(cls, config: "LossConfig") -> Collection[str]:
        own = ("early" if cls.phase == "p1" else "late", "option_spans", "option_tokens")
        return (*own, *(label_keys(cls.phase) if config.supervision == "gold" else ()))

    def needs(self, side: Side) -> Wanted:
        heads = self.heads(side)
        return Wanted(patterns=heads, looks=self.looks, writes=heads, scale=bool(heads))

    def counted(self, marks: "Marks") -> "Tensor":
        return super().counted(marks) & marks.offered.any(dim=1)[:, None]

    def loss(self, marks: "Marks", teacher: "Reading", student: "Reading") -> "Loss":
        from workbench.distill.losses.losses import interaction_loss

        ours, wrote = self.product(marks, "student", student)
        if self.by_labels:
            theirs, theirs_wrote = self.labelled(marks).float(), wrote.new_zeros(wrote.shape)
        else:
            theirs, theirs_wrote = self.product(marks, "teacher", teacher)
        return interaction_loss(
            theirs,
            theirs_wrote,
            ours,
            wrote,
            self.counted(marks),
            marks.offered[:, None].expand_as(ours),
            temperature=self.config.interaction_temperature,
            per=self.config.per,
        )

    def product(self, marks: "Marks", side: Side, reading: "Reading") -> "tuple[Tensor, Tensor]":
        """Attention mass and contribution [batch, place, option]."""
        heads = self.whole[side]
        mass = reading.mass(heads, marks, "early" if self.phase == "p1" else "late")
        return mass, reading.contribution(heads, marks, self.unembeddings[side], self.what)
