"""Which student head is to learn from which teacher head.

A `HeadMap` pairs every pooled head of a teacher with a head of a student. `match_by_depth` is for a
student from scratch, whose heads are all alike: only the place counts. `match_by_attention` is for
a student that can do something already: each teacher head goes to the student head that looks where
it looks. `match_copied` is for a student of some of the teacher's layers. `swap_teacher` makes
controls: other teacher heads, the same student heads.

Heads are (layer, head), from 0.
"""

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import torch
from jaxtyping import Float
from pydantic import BaseModel, ConfigDict, Field, model_validator
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from workbench.distill.matching.depth import place_heads, place_layers
from workbench.errors import InputError
from workbench.heads import ModelShape, _Record, head_name
from workbench.headsets.consistency import WEIGHTS_OFF
from workbench.headsets.headset import HeadSet
from workbench.phases import POOLS, Pool

SCHEMA = "workbench.headmap/1"

Head = tuple[Annotated[int, Field(ge=0)], Annotated[int, Field(ge=0)]]
Method = Literal["depth", "attention", "copied", "given"]


class PooledHead(BaseModel):
    """The little that matching needs of a head."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, allow_inf_nan=False)

    layer: int = Field(ge=0)
    head: int = Field(ge=0)
    pool: Pool
    weight: float = Field(default=1.0, ge=0)


class Pair(_Record):
    """One teacher head, the student head that learns from it, and its share of the pool."""

    pool: Pool
    teacher: Head
    student: Head
    weight: float = Field(ge=0, le=1)


@dataclass(frozen=True)
class Group:
    """What one student layer learns of one pool: the pooled patterns to be compared."""

    pool: Pool
    layer: int
    weight: float
    teacher: dict[Head, float]
    student: dict[Head, float]
    """Weights of the heads on either side; both sum to `weight`."""


class HeadMap(_Record):
    """Pairs of heads, coarse first, in each pool by weight; weights sum to 1 in each pool."""

    schema_: Literal["workbench.headmap/1"] = Field(alias="schema")
    method: Method
    teacher: ModelShape
    student: ModelShape
    pairs: tuple[Pair, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _heads_exist(self) -> "HeadMap":
        seen: set[tuple[Pool, Head]] = set()
        for index, pair in enumerate(self.pairs):
            for side in ("teacher", "student"):
                _check_head(getattr(pair, side), getattr(self, side), f"pairs[{index}].{side}")
            if (pair.pool, pair.teacher) in seen:
                raise InputError(
                    f"teacher head {head_name(*pair.teacher)} is paired twice in pool {pair.pool!r}"
                )
            seen.add((pair.pool, pair.teacher))
        for pool in POOLS:
            pairs = self.in_pool(pool)
            whole = sum(pair.weight for pair in pairs)
            if pairs and abs(whole - 1) > WEIGHTS_OFF:
                raise InputError(f"weights of pool {pool!r} sum to {whole:.6g}, must be 1")
        return self

    def in_pool(self, pool: Pool) -> tuple[Pair, ...]:
        """Pairs of one pool, strongest first."""
        return tuple(pair for pair in self.pairs if pair.pool == pool)

    def groups(self, pool: Pool) -> tuple[Group, ...]:
        """Pairs of one pool by student layer; a student head weighs what its teachers weigh."""
        by_layer: dict[int, list[Pair]] = {}
        for pair in self.in_pool(pool):
            by_layer.setdefault(pair.student[0], []).append(pair)
        groups = []
        for layer, pairs in sorted(by_layer.items()):
            student: dict[Head, float] = {}
            for pair in pairs:
                student[pair.student] = student.get(pair.student, 0.0) + pair.weight
            teacher = {pair.teacher: pair.weight for pair in pairs}
            weight = sum(teacher.values())
            groups.append(Group(pool, layer, weight, teacher, student))
        return tuple(groups)


def pooled_heads(found: HeadSet) -> tuple[PooledHead, ...]:
    """Heads that a student may learn each phase from; a label carrier may stand in both."""
    read = set(PooledHead.model_fields)
    return tuple(
        PooledHead(**head.model_dump(include=read))
        for phase in POOLS
        for head in found.of_phase(phase)
    )


Pools = HeadSet | Sequence[PooledHead] | Mapping[Pool, Sequence[Head]]
"""A head set, heads read by `heads_for`, or plain heads by pool, which weigh the same."""


def listed(pools: Pools | None) -> list[Any]:
    """Pools as JSON holds them: what decides matching."""
    if pools is None:
        return []
    if isinstance(pools, Mapping):
        return [[pool, [list(head) for head in heads]] for pool, heads in pools.items()]
    heads = pooled_heads(pools) if isinstance(pools, HeadSet) else pools
    return [[head.pool, head.layer, head.head, head.weight] for head in heads]


def from_listed(pools: Sequence[Any]) -> Pools | None:
    """The pools of `listed`; None for none."""
    if not pools:
        return None
    if len(pools[0]) == 2:
        return {pool: [(layer, head) for layer, head in heads] for pool, heads in pools}
    names = ("pool", "layer", "head", "weight")
    return tuple(PooledHead(**dict(zip(names, one, strict=True))) for one in pools)


def check_pools(pools: Pools, teacher: ModelShape) -> Counter[Pool]:
    """How many heads each pool has that has any.

    Raises:
        InputError: no heads, heads that are not the teacher's, or a head listed twice in a pool.
    """
    return Counter(head.pool for head in _listed(pools, teacher))


def match_by_depth(pools: Pools, teacher: ModelShape, student: ModelShape) -> HeadMap:
    """Pair by place, for a student from scratch.

    A layer goes to the student layer of the same relative depth, (layer + ½) / n_layers. A refine
    head lies in a later student layer than the coarse heads before it in the teacher (or in its
    layer), the order of layers is kept, and the layers found are those nearest to the exact depths
    (least squares, on a tie the earlier) that leave a layer to read them where the teacher has one;
    only where the student is too shallow are pools mixed.
    Within a layer, the coarse pool first and by weight, each teacher head gets a student head of
    its own while there are any: in a fresh key-value group if its own group is new, in the group of
    its group's others if not. The rest share.

    Raises:
        InputError: no heads, heads that are not the teacher's, or a head listed twice in a pool.
    """
    heads = _listed(pools, teacher)
    # First layers, for all heads of a pool in a teacher layer at once; then heads within them.
    layers = place_layers(
        [(head.layer, head.pool) for head in heads], teacher.n_layers, student.n_layers
    )
    found = place_heads(
        [(layers[head.layer, head.pool], head.layer, head.head, head.pool) for head in heads],
        (teacher.n_heads, teacher.n_kv_heads),
        (student.n_heads, student.n_kv_heads),
    )
    return _head_map("depth", heads, found, teacher, student)


def match_by_attention(
    pools: Pools,
    distances: Callable[[Sequence[Head]], Float[Tensor, "teacher_head student_head"]],
    teacher: ModelShape,
    student: ModelShape,
) -> HeadMap:
    """Pair by what heads look at, for a pretrained student with the teacher's tokenizer.

    Every pooled teacher head is compared with every student head; the pairing with the least sum of
    distances, each student head used once, is taken (linear sum assignment). Teacher heads beyond
    the number of student heads go to their nearest one.

    Args:
        pools: teacher heads.
        distances: of these teacher heads from all of the student, layer by layer; see
            `attention_distances`.
        teacher: shape of the teacher.
        student: shape of the student.

    Raises:
        InputError: as `match_by_depth`, and what `distances` raises.
    """
    heads = _listed(pools, teacher)
    found_at = distances([(head.layer, head.head) for head in heads])
    columns = found_at.argmin(dim=1)
    chosen, partner = linear_sum_assignment(found_at.numpy())
    columns[torch.as_tensor(chosen)] = torch.as_tensor(partner)
    found = [divmod(int(column), student.n_heads) for column in columns]
    return _head_map("attention", heads, found, teacher, student)


def match_copied(
    pools: Pools,
    layers: Sequence[int],
    distances: Callable[[Sequence[Head]], Float[Tensor, "teacher_head student_head"]],
    teacher: ModelShape,
    student: ModelShape,
) -> HeadMap:
    """Pair for a student of copied layers of the teacher: a head that was copied is itself.

    A head of a layer that was not copied goes to the student layer that was copied from the nearest
    one (of two as near, either), to the head there that looks where it looks: as in
    `match_by_attention`, and to one that nobody has as long as there is one. In both pools it is
    the same head.

    Args:
        pools: teacher heads.
        layers: of the teacher, one for each of the student's.
        distances: as in `match_by_attention`; asked for heads of layers that were not copied.
        teacher: shape of the teacher.
        student: shape of the student.

    Raises:
        InputError: as `match_by_depth`, and what `distances` raises.
    """
    heads = _listed(pools, teacher)
    asked = list(dict.fromkeys((head.layer, head.head) for head in heads))
    own = {head: (layers.index(head[0]), head[1]) for head in asked if head[0] in layers}
    left = [head for head in asked if head not in own]
    if left:
        far, taken = 1e3, 10.0  # divergences are at most ln 2
        costs = distances(left).double()
        for row, (layer, _) in enumerate(left):
            off = torch.tensor([abs(one - layer) for one in layers])
            costs[row] += far * (off > off.min()).repeat_interleave(student.n_heads)
        for layer, head in own.values():
            costs[:, layer * student.n_heads + head] += taken
        columns = costs.argmin(dim=1)
        for row, column in zip(*linear_sum_assignment(costs.numpy()), strict=True):
            if costs[row, column] < far:
                columns[row] = int(column)
        own |= {
            head: divmod(int(column), student.n_heads)
            for head, column in zip(left, columns, strict=True)
        }
    found = [own[head.layer, head.head] for head in heads]
    return _head_map("copied", heads, found, teacher, student)


def swap_teacher(headmap: HeadMap, pools: Mapping[Pool, Sequence[Head]]) -> HeadMap:
    """A control: the same student heads and weights, learning from other teacher heads.

    The i-th head given takes the place of the pool's i-th pair.

    Raises:
        InputError: not as many heads as the pool has pairs, or heads that are not the teacher's.
    """
    for pool in POOLS:
        expected, got = len(headmap.in_pool(pool)), len(pools.get(pool, ()))
        if expected != got:
            raise InputError(f"pool {pool!r}: {got} heads are given for {expected} pairs")
    _listed(pools, headmap.teacher)
    pairs = [
        pair.model_copy(update={"teacher": tuple(head)})
        for pool in POOLS
        for pair, head in zip(headmap.in_pool(pool), pools.get(pool, ()), strict=True)
    ]
    return headmap.model_copy(update={"method": "given", "pairs": tuple(pairs)})


def map_layers(n_teacher: int, n_student: int) -> list[int]:
    """Teacher layer of each student layer for whole-layer baselines, the last to the last.

    The i-th of M (from 1) learns from layer ⌈i · N / M⌉ of N, TinyBERT's uniform mapping (Jiao et
    al. 2020) also where M does not divide N.
    """
    return [-(-(layer + 1) * n_teacher // n_student) - 1 for layer in range(n_student)]


def describe(shape: ModelShape) -> str:
    """In words."""
    return f"{shape.n_layers} layers × {shape.n_heads} heads ({shape.n_kv_heads} key-value heads)"


def _check_head(head: Head, shape: ModelShape, where: str) -> None:
    if not (0 <= head[0] < shape.n_layers and 0 <= head[1] < shape.n_heads):
        raise InputError(f"{where}: head {head_name(*head)} is outside {describe(shape)}")


def _listed(pools: Pools, teacher: ModelShape) -> list[PooledHead]:
    """Heads, coarse first and strongest first, with weights that sum to 1 in each pool."""
    if isinstance(pools, HeadSet):
        made_for = ModelShape.of(pools.model)
        if made_for != teacher:
            raise InputError(
                f"head set is of a model of {describe(made_for)}, the teacher has "
                f"{describe(teacher)}"
            )
        given = list(pooled_heads(pools))
    elif isinstance(pools, Mapping):
        given = [
            PooledHead(layer=layer, head=head, pool=pool)
            for pool, heads in pools.items()
            for layer, head in heads
        ]
    else:
        given = list(pools)
    if not isinstance(pools, Mapping):  # of which the order is the caller's
        given.sort(key=lambda head: (-head.weight, head.layer, head.head))
    if not given:
        raise InputError("no teacher heads to match, at least one is needed")
    seen: set[tuple[Pool, int, int]] = set()
    for one in given:
        _check_head((one.layer, one.head), teacher, "teacher")
        if (one.pool, one.layer, one.head) in seen:
            name = head_name(one.layer, one.head)
            raise InputError(f"teacher head {name} is listed twice in pool {one.pool!r}")
        seen.add((one.pool, one.layer, one.head))
    return [head for pool in POOLS for head in _shared_out(given, pool)]


def _shared_out(given: Sequence[PooledHead], pool: Pool) -> list[PooledHead]:
    heads = [head for head in given if head.pool == pool]
    whole = sum(head.weight for head in heads)
    if heads and not 0 < whole < math.inf:
        raise InputError(f"pool {pool!r}: weights of its heads sum to {whole:g}")
    return [head.model_copy(update={"weight": head.weight / whole}) for head in heads]


def _head_map(
    method: Method,
    heads: Sequence[PooledHead],
    found: Sequence[Head],
    teacher: ModelShape,
    student: ModelShape,
) -> HeadMap:
    pairs = tuple(
        Pair(pool=head.pool, teacher=(head.layer, head.head), student=place, weight=head.weight)
        for head, place in zip(heads, found, strict=True)
    )
    return HeadMap(schema=SCHEMA, method=method, teacher=teacher, student=student, pairs=pairs)
