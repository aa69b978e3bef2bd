"""The terms of the loss, from what was read of teacher and student on the same tokens."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformers import PreTrainedModel

from workbench.distill.config import MechanisticDistillationConfig
from workbench.distill.losses.compiling import fused
from workbench.distill.losses.features import (
    evidence_mass,
    option_contribution,
    option_mass,
    pool_over_layers,
)
from workbench.distill.losses.losses import (
    HiddenLoss,
    Loss,
    attention_loss,
    chain_loss,
    interaction_loss,
    logit_loss,
    minilm_attention_loss,
    option_update_loss,
    update_loss,
)
from workbench.distill.matching.head_map import Group, HeadMap, map_layers
from workbench.distill.reading.capture import (
    Head,
    Reading,
    Wanted,
    all_heads,
    final_norm,
    shape_of,
)
from workbench.distill.reading.positions import Marks
from workbench.errors import InputError
from workbench.phases import POOLS, Pool

Side = Literal["teacher", "student"]
SIDES: tuple[Side, Side] = get_args(Side)

PROJECTIONS = "workbench_projections"
"""Attribute of the student that holds the learnt projections of `hidden` while it trains."""


class Terms:
    """What must be read of both models, and the losses between the two readings.

    With `hidden` on, its projections become a submodule of the student, so that they are trained,
    kept in checkpoints and shared between processes like the rest; `drop_projections` ends that.

    Args:
        config: the terms and their weights.
        teacher: the frozen model.
        student: the model that is trained.
        headmap: pairs of matched heads, for `attention`, `update` and `interaction`.
        circuit: (teacher head, student head) matched by ablation effect, for `circuit`.

    Raises:
        InputError: a map that a term needs is missing, lacks a pool, or is for models of another
            shape; mapped layers that are not there.
    """

    def __init__(
        self,
        config: MechanisticDistillationConfig,
        teacher: PreTrainedModel,
        student: PreTrainedModel,
        headmap: HeadMap | None = None,
        circuit: Sequence[tuple[Head, Head]] = (),
    ) -> None:
        self.config = config
        self._teacher, self._student = teacher, student
        self._headmap = headmap if config.needs_map else None
        self._pairs = tuple(circuit) if "circuit" in config.on else ()
        self._check_maps()
        self.layers = self._mapped_layers()
        self._projections: Any = self._add_projections() if "hidden" in config.on else ()
        # What the losses look up is plain data and modules: compiled code asks for no more.
        self._groups = self._grouped()
        self._pools = {side: self._pooled_heads(side) for side in SIDES}
        self._ends = {
            side: (model.get_output_embeddings(), final_norm(model))
            for side, model in zip(SIDES, (teacher, student), strict=True)
            if config.reads_logits_of_heads
        }
        self._fused = fused(self._some)
        self.wanted = {side: self._wanted(side) for side in SIDES}

    def __call__(
        self, batch: Mapping[str, Tensor], teacher: Reading, student: Reading
    ) -> dict[str, Loss]:
        """Every term that is on, unweighted, as total and count over this batch."""
        # `logit` chooses positions before it computes anything: of how many nothing is known
        # beforehand, as a graph would have to.
        alone = [name for name in self.config.on if name == "logit"]
        others = [name for name in self.config.on if name not in alone]
        found = self._fused(batch, teacher, student, others) if others else {}
        found |= self._some(batch, teacher, student, alone) if alone else {}
        return {name: found[name] for name in self.config.on}

    def _some(
        self,
        batch: Mapping[str, Tensor],
        teacher: Reading,
        student: Reading,
        names: Sequence[str],
    ) -> dict[str, Loss]:
        marks = Marks.of(batch, self.config.rows)
        found: dict[str, Loss] = {}
        for name in names:
            if name == "chain":
                assert student.logits is not None
                found[name] = chain_loss(student.logits, batch["labels"], batch["weights"])
            else:
                found[name] = getattr(self, f"_{name}")(marks, teacher, student)
        return found

    def _logit(self, marks: Marks, teacher: Reading, student: Reading) -> Loss:
        assert teacher.logits is not None and student.logits is not None
        return logit_loss(
            teacher.logits,
            student.logits,
            marks.targets,
            temperature=self.config.logit_temperature,
            per=self.config.per,
        )

    def _attention(self, marks: Marks, teacher: Reading, student: Reading) -> Loss:
        losses = [
            attention_loss(
                _pooled(teacher, group.teacher),
                _pooled(student, group.student),
                marks.rows,
                marks.real,
                per=self.config.per,
            )
            for group in self._groups
        ]
        return _average(losses, [group.weight for group in self._groups])

    def _update(self, marks: Marks, teacher: Reading, student: Reading) -> Loss:
        compare = self._in_options if self.config.update_space == "options" else self._in_residual
        losses = [compare(marks, teacher, student, group) for group in self._groups]
        return _average(losses, [group.weight for group in self._groups])

    def _in_residual(self, marks: Marks, teacher: Reading, student: Reading, group: Group) -> Loss:
        return update_loss(
            _sum_written(teacher, list(group.teacher)),
            _sum_written(student, list(group.student)),
            marks.sampled,
            debiased=self.config.debiased,
        )

    def _in_options(self, marks: Marks, teacher: Reading, student: Reading, group: Group) -> Loss:
        theirs = _contribution(marks, teacher, list(group.teacher), self._ends["teacher"])
        ours = _contribution(marks, student, list(group.student), self._ends["student"])
        return option_update_loss(
            theirs,
            ours,
            marks.decided,
            marks.offered[:, None].expand_as(theirs),
            temperature=self.config.interaction_temperature,
            per=self.config.per,
        )

    def _circuit(self, marks: Marks, teacher: Reading, student: Reading) -> Loss:
        losses = [
            update_loss(
                teacher.written[theirs],
                student.written[ours],
                marks.sampled,
                debiased=self.config.debiased,
            )
            for theirs, ours in self._pairs
        ]
        return _average(losses, [1.0] * len(losses))

    def _interaction(self, marks: Marks, teacher: Reading, student: Reading) -> Loss:
        sides: list[tuple[Tensor, Tensor]] = []
        for side, reading in zip(SIDES, (teacher, student), strict=True):
            heads = self._pools[side]
            mass = self._mass(marks, _pooled(reading, heads["coarse"]))
            wrote = _contribution(marks, reading, list(heads["refine"]), self._ends[side])
            sides.append((mass, wrote))
        (theirs, wrote_theirs), (ours, wrote_ours) = sides
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

    def _mass(
        self, marks: Marks, pattern: Float[Tensor, "batch query key"]
    ) -> Float[Tensor, "batch decision option"]:
        if self.config.route == "decision":
            rows = torch.arange(len(pattern), device=pattern.device)[:, None]
            return option_mass(pattern[rows, marks.decisions], marks.spans)
        return evidence_mass(pattern, marks.spans, marks.evidence)

    def _minilm(self, marks: Marks, teacher: Reading, student: Reading) -> Loss:
        return minilm_attention_loss(
            [_whole_layer(teacher, layer) for _, layer in self.layers],
            [_whole_layer(student, layer) for layer, _ in self.layers],
            marks.rows,
            marks.real,
            per=self.config.per,
        )

    def _hidden(self, marks: Marks, teacher: Reading, student: Reading) -> Loss:
        losses = [
            projection(
                teacher.hidden[theirs], student.hidden[ours], marks.rows, per=self.config.per
            )
            for projection, (ours, theirs) in zip(self._projections, self.layers, strict=True)
        ]
        return _average(losses, [1.0] * len(losses))

    def _grouped(self) -> tuple[Group, ...]:
        if self._headmap is None:
            return ()
        return tuple(group for pool in self.config.pools for group in self._headmap.groups(pool))

    def _pooled_heads(self, side: Side) -> dict[Pool, dict[Head, float]]:
        """Heads of each whole pool on one side, with their weights."""
        weights: dict[Pool, dict[Head, float]] = {pool: {} for pool in POOLS}
        if self._headmap is not None:
            for pool, heads in weights.items():
                for group in self._headmap.groups(pool):
                    heads |= getattr(group, side)
        return weights

    def _wanted(self, side: Side) -> Wanted:
        on = self.config.on
        patterns: set[Head] = set()
        writes: set[Head] = set()
        if "attention" in on:
            patterns |= {head for group in self._groups for head in getattr(group, side)}
        if "update" in on:
            writes |= {head for group in self._groups for head in getattr(group, side)}
        if "interaction" in on:
            patterns |= set(self._pools[side]["coarse"])
            writes |= set(self._pools[side]["refine"])
        writes |= {pair[side == "student"] for pair in self._pairs}
        own = {pair[side == "teacher"] for pair in self.layers}
        if "minilm" in on:
            model = self._teacher if side == "teacher" else self._student
            patterns |= all_heads(own, shape_of(model).n_heads)
        # The student always runs to its end: in several processes every weight must take part.
        logits = side == "student" or "logit" in on
        return Wanted(
            patterns=frozenset(patterns),
            writes=frozenset(writes),
            hidden=frozenset(own) if "hidden" in on else frozenset(),
            scale=self.config.reads_logits_of_heads,
            logits=logits,
        )

    def _check_maps(self) -> None:
        config = self.config
        terms = ", ".join(config.on)
        if config.needs_map and self._headmap is None:
            raise InputError(f"loss terms {terms} need a head map, none is given")
        if "circuit" in config.on and not self._pairs:
            raise InputError("loss term circuit needs pairs matched by ablation effect, none given")
        if self._headmap is None:
            return
        for side, model in (("teacher", self._teacher), ("student", self._student)):
            made_for, shape = getattr(self._headmap, side), shape_of(model)
            if made_for != shape:
                raise InputError(f"the head map is for a {side} of {made_for!r}, not of {shape!r}")
        missing = sorted(pool for pool in config.taught_pools if not self._headmap.in_pool(pool))
        if missing:
            raise InputError(f"the head map has no heads of the {missing[0]} pool")

    def _mapped_layers(self) -> tuple[tuple[int, int], ...]:
        """(student layer, teacher layer) of the whole-layer baselines."""
        if not {"minilm", "hidden"} & set(self.config.on):
            return ()
        n_teacher, n_student = (shape_of(x).n_layers for x in (self._teacher, self._student))
        if self.config.layers is None:
            return tuple(enumerate(map_layers(n_teacher, n_student)))
        for ours, theirs in self.config.layers:
            if not (0 <= ours < n_student and 0 <= theirs < n_teacher):
                raise InputError(
                    f"layers: {(ours, theirs)} is outside the student's {n_student} and the "
                    f"teacher's {n_teacher} layers"
                )
        return self.config.layers

    def _add_projections(self) -> nn.ModuleList:
        widths = [
            model.config.get_text_config().hidden_size for model in (self._student, self._teacher)
        ]
        kind = self.config.hidden_kind
        projections = nn.ModuleList([HiddenLoss(*widths, kind=kind) for _ in self.layers])
        self._student.add_module(PROJECTIONS, projections)
        return projections


def drop_projections(student: PreTrainedModel) -> None:
    """Take the projections off a student that is trained."""
    if hasattr(student, PROJECTIONS):
        delattr(student, PROJECTIONS)


def _pooled(reading: Reading, heads: Mapping[Head, float]) -> Float[Tensor, "batch query key"]:
    # Each pattern stands as a layer of one head; pooling asks for no more.
    one_by_one = {number: reading.patterns[head][:, None] for number, head in enumerate(heads)}
    names = [(number, 0) for number in one_by_one]
    return pool_over_layers(one_by_one, names, list(heads.values()))


def _sum_written(reading: Reading, heads: Sequence[Head]) -> Float[Tensor, "batch sample d_model"]:
    return torch.stack([reading.written[head] for head in heads]).sum(dim=0)


def _whole_layer(reading: Reading, layer: int) -> Float[Tensor, "batch head query key"]:
    heads = sorted(head for head in reading.patterns if head[0] == layer)
    return torch.stack([reading.patterns[head] for head in heads], dim=1)


def _contribution(
    marks: Marks, reading: Reading, heads: Sequence[Head], end: tuple[Any, Any]
) -> Float[Tensor, "batch decision option"]:
    """Direct contribution of heads to the options' logits at the decisions.

    `end` is the model's unembedding and the norm before it. The norm's factor is that of the
    model's own residual stream, taken as a constant.
    """
    assert reading.scale is not None
    n = marks.decisions.shape[1]
    update = _sum_written(reading, heads)[:, :n] * reading.scale[:, :n, None]
    unembedding, norm = end
    # A model spread over several devices has these on its last one.
    there = unembedding.weight.device
    directions = unembedding.weight[marks.tokens.to(there)].float() * norm.weight.to(there).float()
    return option_contribution(update, directions.to(update.device))


def _average(losses: Sequence[Loss], weights: Sequence[float]) -> Loss:
    """Weighted mean of losses that have the same count."""
    whole = sum(weights)
    total = torch.stack(
        [loss.total * (weight / whole) for loss, weight in zip(losses, weights, strict=True)]
    ).sum()
    return Loss(total, losses[0].count)
