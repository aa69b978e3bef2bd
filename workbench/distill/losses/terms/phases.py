"""Terms of a phase, at its places in the chain: the paper's six.

Phase 1 looks at early rows, where a chain shortlists, with the coarse pool; phase 2 at late rows,
where it weighs candidates, with the refine pool. In each the attention of matched heads, what they
write, and both together are compared. With `supervision="gold"` the labels stand in the teacher's
place: the same heads, rows and forms of loss.

How heads are pooled, the forms of the losses and their weights are this project's; the paper's text
is not to be had. The weights are those of the objective without phases, shared out evenly.
"""

from collections.abc import Collection
from typing import TYPE_CHECKING

from workbench.distill.losses.term import ByGroup, Side, register
from workbench.distill.losses.terms.phase import Both, Phase, Write, label_keys
from workbench.distill.reading.wanted import Wanted
from workbench.phases import Pool

if TYPE_CHECKING:
    from torch import Tensor

    from workbench.distill.config import LossConfig
    from workbench.distill.losses.losses import Loss
    from workbench.distill.matching.head_map import Group
    from workbench.distill.reading.capture import Reading
    from workbench.distill.reading.positions import Marks


@register
class P1Attention(ByGroup, Phase):
    """KL between pooled attention patterns.

    By labels: minus the logarithm of the mass on gold's evidence and the options of its family.
    """

    name = "p1_attention"
    help = "Weight of the KL between the coarse pool's attention patterns at early rows."
    phase = "p1"
    share = 1.0

    @staticmethod
    def pools(config: "LossConfig") -> Collection[Pool]:
        return ("coarse",)

    @staticmethod
    def reads(config: "LossConfig") -> Collection[str]:
        by_labels = config.supervision == "gold"
        return ("early", *((*label_keys("p1"), "evidence") if by_labels else ()))

    def needs(self, side: Side) -> Wanted:
        return Wanted(patterns=self.heads(side), looks=self.looks)

    def of_group(
        self, marks: "Marks", teacher: "Reading", student: "Reading", group: "Group"
    ) -> "Loss":
        from workbench.distill.losses.chain_rows import all_on_first, at_rows, set_mass
        from workbench.distill.losses.losses import attention_loss

        counted, per = self.counted(marks), self.config.per
        ours = at_rows(student.pooled(group.student), marks.early.rows)
        if self.by_labels:
            mass = set_mass(ours, [self.places(marks)])
            return attention_loss(all_on_first(mass), mass, counted, per=per)
        theirs = at_rows(teacher.pooled(group.teacher), marks.early.rows)
        return attention_loss(theirs, ours, counted, marks.real, per=per)

    def places(self, marks: "Marks") -> "Tensor":
        """Tokens [batch, place, token] of gold's evidence and of the options of its family."""
        from workbench.distill.losses.chain_rows import families, of_decision
        from workbench.distill.losses.features import span_members

        n_tokens = marks.real.shape[1]
        family = families(marks.gold, marks.near_options, marks.spans.shape[1])
        options = span_members(marks.spans, n_tokens)
        within = family.float() @ options.float() > 0
        shown = span_members(marks.evidence, n_tokens) & (marks.gold >= 0)[..., None]
        return of_decision(within | shown, marks.early.decision, unknown=True)


@register
class P1Write(Write):
    """1 − CKA of what the coarse pool writes."""

    name = "p1_write"
    help = "Weight of the distance between what the coarse pool writes at early rows."
    phase = "p1"


@register
class P1Interaction(Both):
    """The coarse pool, attention × contribution."""

    name = "p1_interaction"
    help = (
        "Weight of the KL between the coarse pool's attention × contribution, over the options at "
        "early rows."
    )
    phase = "p1"


@register
class P2Loop(ByGroup, Phase):
    """KL between attention on the chain's own true shortlist, on near misses and on the rest.

    Rows that see no shortlist of their decision do not count. By labels: minus the logarithm of the
    mass on the shortlist.
    """

    name = "p2_loop"
    help = (
        "Weight of the KL between the refine pool's attention on the chain's own true shortlist, "
        "near misses and the rest, at late rows."
    )
    phase = "p2"
    share = 1.0

    @staticmethod
    def pools(config: "LossConfig") -> Collection[Pool]:
        return ("refine",)

    @staticmethod
    def reads(config: "LossConfig") -> Collection[str]:
        return ("late", "late_decision", "shortlist", "near")

    def needs(self, side: Side) -> Wanted:
        return Wanted(patterns=self.heads(side), looks=self.looks)

    def counted(self, marks: "Marks") -> "Tensor":
        late, (decision, start, _) = marks.late, marks.shortlist.unbind(dim=-1)
        mine = (late.decision[..., None] == decision[:, None]) & (decision >= 0)[:, None]
        seen = start[:, None] <= late.positions[..., None]
        return late.there & (mine & seen).any(dim=-1)

    def of_group(
        self, marks: "Marks", teacher: "Reading", student: "Reading", group: "Group"
    ) -> "Loss":
        from workbench.distill.losses.chain_rows import (
            all_on_first,
            at_rows,
            named_tokens,
            of_decision,
            set_mass,
        )
        from workbench.distill.losses.losses import attention_loss

        late, sizes = marks.late, (marks.decisions.shape[1], marks.real.shape[1])
        own, near = (
            of_decision(named_tokens(named, *sizes), late.decision, unknown=False)
            for named in (marks.shortlist, marks.near)
        )
        sets = [own, near & ~own]
        ours = set_mass(at_rows(student.pooled(group.student), late.rows), sets)
        if self.by_labels:
            theirs = all_on_first(ours)
        else:
            theirs = set_mass(at_rows(teacher.pooled(group.teacher), late.rows), sets)
        return attention_loss(theirs, ours, self.counted(marks), per=self.config.per)


@register
class P2Write(Write):
    """1 − CKA of what the refine pool writes."""

    name = "p2_write"
    help = "Weight of the distance between what the refine pool writes at late rows."
    phase = "p2"


@register
class P2Interaction(Both):
    """The refine pool, attention × contribution."""

    name = "p2_interaction"
    help = (
        "Weight of the KL between the refine pool's attention × contribution, over the options at "
        "late rows."
    )
    phase = "p2"
