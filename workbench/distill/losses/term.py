"""One term of the loss, as a class: what it reads of the models, its normaliser, its value.

A term is one file in `terms/` with a registered class. Its weight becomes a setting of
`LossConfig`, a flag of the command line and a column of the log; nothing else names it. Settings
are read where torch must not be loaded, so files of terms import it inside of their methods.
"""

from abc import ABC, abstractmethod
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal, TypeVar, get_args

from workbench.distill.reading.wanted import Wanted
from workbench.phases import Pool

if TYPE_CHECKING:
    from torch import Tensor

    from workbench.distill.config import LossConfig
    from workbench.distill.losses.losses import Loss
    from workbench.distill.matching.head_map import Group
    from workbench.distill.reading.capture import Reading
    from workbench.distill.reading.positions import Marks
    from workbench.distill.training.terms import Models

Side = Literal["teacher", "student"]
SIDES: tuple[Side, Side] = get_args(Side)
Per = Literal["row", "example"]
PhaseName = Literal["p1", "p2"]
PHASE_NAMES: tuple[PhaseName, ...] = get_args(PhaseName)


class Term(ABC):
    """A term of the loss; an instance serves one training.

    Attributes:
        name: of its weight in the configuration, and of its column in the log.
        help: of its weight, as the command line shows it.
        weight: unless the configuration says otherwise.
        objective: weight in the full objective, the arm "mechanistic"; 0 where it is no part of it.
        phase: "p1" or "p2" for a term of a phase, which that phase's lambda multiplies.
        share: weight in the objective by phases, the arm "phases"; 0 where it is no part of it.
        baseline: weight beside chains alone in an arm of its own; 0 for no such arm.
        reads_teacher: whether the teacher has to run beside the student; see `runs_teacher`.
        by_ablation: whether it needs heads that are paired by ablation effect.
        one_graph: whether all of it can be compiled together with the other terms.
    """

    name: ClassVar[str]
    help: ClassVar[str]
    weight: ClassVar[float] = 0.0
    objective: ClassVar[float] = 0.0
    phase: ClassVar[PhaseName | None] = None
    share: ClassVar[float] = 0.0
    baseline: ClassVar[float] = 0.0
    reads_teacher: ClassVar[bool] = True
    by_ablation: ClassVar[bool] = False
    one_graph: ClassVar[bool] = True

    def __init__(self, models: "Models") -> None:
        self.config = models.config

    @classmethod
    def runs_teacher(cls, config: "LossConfig") -> bool:
        """Whether the teacher has to run beside the student."""
        return cls.reads_teacher

    @staticmethod
    def pools(config: "LossConfig") -> Collection[Pool]:
        """Pools whose matched heads it compares; none for a term that needs no head map."""
        return ()

    @staticmethod
    def reads_option_logits(config: "LossConfig") -> bool:
        """Whether it compares what heads add to the options' logits."""
        return False

    @classmethod
    def by_cka(cls, config: "LossConfig") -> bool:
        """Whether it is a CKA, so that it is taken over all samples of a step (`together`)."""
        return False

    @staticmethod
    def reads(config: "LossConfig") -> Collection[str]:
        """Keys that a batch must have for it, besides `input_ids`."""
        return ()

    def needs(self, side: Side) -> Wanted:
        """What must be read of one side."""
        return Wanted()

    @abstractmethod
    def count(self, marks: "Marks") -> "Tensor":
        """What `loss` is a sum over in this batch, known before any model has run.

        Counts of batches add up: their sum is the normaliser over an accumulated step.
        """

    @abstractmethod
    def loss(self, marks: "Marks", teacher: "Reading", student: "Reading") -> "Loss":
        """Total and count over a batch, unweighted."""


class ByGroup(Term):
    """Compares matched heads layer by layer of the student; a mean by pool weights."""

    groups: "Sequence[Group]"

    def loss(self, marks: "Marks", teacher: "Reading", student: "Reading") -> "Loss":
        """See `Term.loss`."""
        from workbench.distill.losses.losses import average

        losses = [self.of_group(marks, teacher, student, group) for group in self.groups]
        return average(losses, [group.weight for group in self.groups])

    @abstractmethod
    def of_group(
        self, marks: "Marks", teacher: "Reading", student: "Reading", group: "Group"
    ) -> "Loss":
        """Total and count of one group of matched heads."""


ROW_KEYS: dict[str, tuple[str, ...]] = {
    "all": (),
    "options": ("option_spans",),
    "target": ("labels",),
}
"""Keys of a batch that say which rows are compared, by `LossConfig.rows`."""

TERMS: dict[str, type[Term]] = {}
"""Terms by name, in the order in which they are summed and logged."""

_Registered = TypeVar("_Registered", bound=type[Any])


def register(term: _Registered) -> _Registered:
    """Class decorator: makes a term known by its name."""
    TERMS[term.name] = term
    return term
