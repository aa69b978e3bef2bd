"""The terms of the loss for two loaded models: what they need of them, and their sum's parts."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import reduce
from operator import or_
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformers import PreTrainedModel

from workbench.distill.config import LossConfig
from workbench.distill.losses.compiling import fused
from workbench.distill.losses.losses import Loss
from workbench.distill.losses.term import SIDES, TERMS, Side
from workbench.distill.losses.terms.unpooled import PROJECTIONS
from workbench.distill.losses.together import Step, Together
from workbench.distill.matching.head_map import Group, HeadMap, map_layers
from workbench.distill.reading.capture import Reading
from workbench.distill.reading.parts import shape_of
from workbench.distill.reading.positions import Marks
from workbench.distill.reading.wanted import Wanted
from workbench.distill.targets.requests import Answers
from workbench.errors import InputError
from workbench.heads import Head, ModelShape
from workbench.phases import POOLS, Pool


@dataclass(frozen=True)
class Models:
    """A frozen teacher and the student that is trained, and how their parts belong together.

    Attributes:
        config: the terms and their weights.
        teacher: the frozen model.
        student: the model that is trained.
        headmap: pairs of matched heads, where a term compares pools.
        circuit: (teacher head, student head) paired by ablation effect, where a term needs them.
        n_tokens: token ids that both read; None for as many as both have rows.
        together: through which terms take CKA.

    Raises:
        InputError: a map that a term needs is missing, lacks a pool, or is for models of another
            shape.
    """

    config: LossConfig
    teacher: PreTrainedModel
    student: PreTrainedModel
    headmap: HeadMap | None = None
    circuit: Sequence[tuple[Head, Head]] = ()
    n_tokens: int | None = None
    together: Together = field(default_factory=Together)

    def __post_init__(self) -> None:
        taught = self.config.taught_pools
        if taught and self.headmap is None:
            terms = ", ".join(self.config.on)
            raise InputError(f"loss terms {terms} need a head map, none is given")
        if self.config.by_ablation and not self.circuit:
            raise InputError("loss term circuit needs pairs matched by ablation effect, none given")
        if not taught or self.headmap is None:
            return
        for side, shape in self.shapes.items():
            made_for = getattr(self.headmap, side)
            if made_for != shape:
                raise InputError(f"the head map is for a {side} of {made_for!r}, not of {shape!r}")
        missing = sorted(pool for pool in taught if not self.headmap.in_pool(pool))
        if missing:
            raise InputError(f"the head map has no heads of the {missing[0]} pool")

    @property
    def shapes(self) -> dict[Side, ModelShape]:
        """Layers and heads of both sides."""
        return {side: shape_of(getattr(self, side)) for side in SIDES}

    def groups(self) -> tuple[Group, ...]:
        """Matched heads of the taught pools, by student layer."""
        assert self.headmap is not None
        return tuple(group for pool in self.config.pools for group in self.headmap.groups(pool))

    def pooled_heads(self, side: Side) -> dict[Pool, dict[Head, float]]:
        """Heads of each whole pool on one side, with their weights."""
        assert self.headmap is not None
        weights: dict[Pool, dict[Head, float]] = {pool: {} for pool in POOLS}
        for pool, heads in weights.items():
            for group in self.headmap.groups(pool):
                heads |= getattr(group, side)
        return weights

    def unembeddings(self) -> dict[Side, Any]:
        """The module of each side that makes logits."""
        return {side: getattr(self, side).get_output_embeddings() for side in SIDES}

    def layers(self) -> tuple[tuple[int, int], ...]:
        """(student layer, teacher layer) of the whole-layer baselines.

        Raises:
            InputError: a layer that is not there.
        """
        n_teacher, n_student = (shape.n_layers for shape in self.shapes.values())
        if self.config.layers is None:
            return tuple(enumerate(map_layers(n_teacher, n_student)))
        for ours, theirs in self.config.layers:
            if not (0 <= ours < n_student and 0 <= theirs < n_teacher):
                raise InputError(
                    f"layers: {(ours, theirs)} is outside the student's {n_student} and the "
                    f"teacher's {n_teacher} layers"
                )
        return self.config.layers


class Terms:
    """What must be read of both models, the normalisers, and the losses between two readings."""

    def __init__(self, models: Models) -> None:
        self.config = models.config
        # What the terms look up is plain data and modules: compiled code asks for no more.
        self._terms = {name: TERMS[name](models) for name in self.config.on}
        self._together = models.together
        self._by_cka = [name for name in self._terms if TERMS[name].by_cka(self.config)]
        self._one_graph = [name for name, term in self._terms.items() if term.one_graph]
        self._fused_losses = fused(self._losses)
        self.counts = fused(self._counts)
        # The student always runs to its end: in several processes every weight must take part.
        least = {"teacher": Wanted(), "student": Wanted(logits=True)}
        self.wanted = {side: self._needs(side, self._terms) | least[side] for side in SIDES}
        self.collected = {side: self._needs(side, self._by_cka) for side in SIDES}

    def _needs(self, side: Side, names: Collection[str]) -> Wanted:
        return reduce(or_, (self._terms[name].needs(side) for name in names), Wanted())

    @property
    def by_cka(self) -> bool:
        """Whether any term is a CKA that is to be taken over whole steps."""
        return bool(self._by_cka) and self.config.cka == "step"

    def __call__(
        self,
        batch: Mapping[str, Tensor],
        teacher: Reading,
        student: Reading,
        step: Step | None = None,
    ) -> dict[str, Loss]:
        """Every term that is on, unweighted, as total and count over this batch.

        With a step, of which it is the next forward, CKA is that of the whole step.
        """
        read = batch, teacher, student
        # Answers are plain data, which a graph would hold as constants.
        fuses = [] if isinstance(teacher, Answers) else self._one_graph
        fuses = fuses if step is None else [name for name in fuses if name not in self._by_cka]
        found = self._fused_losses(*read, fuses) if fuses else {}
        alone = [name for name in self._terms if name not in fuses]
        with self._in_step(step):
            found |= self._losses(*read, alone) if alone else {}
        return {name: found[name] for name in self._terms}

    def collect(
        self, batch: Mapping[str, Tensor], teacher: Reading, student: Reading, step: Step
    ) -> None:
        """Let a step have the samples of its next forward; of readings it takes `collected`."""
        with self._in_step(step):
            self._losses(batch, teacher, student, self._by_cka)

    @contextmanager
    def _in_step(self, step: Step | None) -> Iterator[None]:
        self._together.step = step
        try:
            yield
        finally:
            self._together.step = None

    def of(
        self, name: str, batch: Mapping[str, Tensor], teacher: Reading, student: Reading
    ) -> Loss:
        """One term, as it is in the sum."""
        return self._losses(batch, teacher, student, [name])[name]

    def _losses(
        self, batch: Mapping[str, Tensor], teacher: Reading, student: Reading, names: Sequence[str]
    ) -> dict[str, Loss]:
        marks = Marks.of(batch, self.config.rows)
        return {name: self._terms[name].loss(marks, teacher, student) for name in names}

    def _counts(self, batch: Mapping[str, Tensor]) -> dict[str, Float[Tensor, ""]]:
        """What each term is a sum over in this batch, known before any model has run."""
        marks = Marks.of(batch, self.config.rows)
        return {name: term.count(marks) for name, term in self._terms.items()}


def drop_projections(student: PreTrainedModel) -> None:
    """Take learnt projections off a student that is trained."""
    if hasattr(student, PROJECTIONS):
        delattr(student, PROJECTIONS)


@torch.no_grad()
def keep_widths(student: PreTrainedModel) -> None:
    """Let learnt projections begin by changing nothing, where both sides are of one width.

    For a student of copied layers, whose hidden states are the teacher's to begin with.
    """
    for module in getattr(student, PROJECTIONS, ()):
        if module.projection.in_features == module.projection.out_features:
            nn.init.eye_(module.projection.weight)
