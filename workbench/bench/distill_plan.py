"""A measurement of distillation between two shapes: what is measured, and what it takes a card.

The estimate counts weights, gradients and optimizer exactly, activations by their widths (see
`models/memory`), logits and attention maps by the copies that forward and backward hold at once.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

import torch

from workbench.bench.shapes import SHAPES, build, check_shape
from workbench.distill.arms import find_arm
from workbench.errors import InputError
from workbench.models.memory import HEADS, INNER, STREAMS

GIB = 2**30
CONTEXT_BYTES = int(1.5 * GIB)
"""What CUDA and NCCL take on a card before anything else."""
LOGIT_BYTES, CHAIN_BYTES = 4, 16
"""A student's logit and its gradient in bfloat16; where the chain is, four times in float32."""
TARGET_BYTES = 32
"""A logit of both models where their next-token distributions are compared: eight in float32."""
MAPS_TAUGHT, MAPS_LEARNT = 4, 10
"""Maps in float32 of a read head on either side, with its share of pooled ones and gradients."""
GATHERED = 4
"""Copies of a block's gathered weights at once: two blocks, each also as it came."""

Source = Literal["whole", "sharded", "disk"]


@dataclass(frozen=True)
class Plan:
    """What is measured; `batch` and `tokens` are of a forward on one card.

    Raises:
        InputError: shapes, arms or numbers that cannot be.
    """

    teacher: str
    student: str
    arms: tuple[str, ...]
    tokens: int = 2048
    batch: int = 1
    steps: int = 8
    heads: int = 8
    """Of each pool."""
    options: int = 16
    decisions: int = 4
    source: Source = "whole"
    """Where the teacher is: whole on every card, sharded over them, or its targets on disk."""
    checkpointing: bool = False
    layers: tuple[int, int] | None = None
    """Of teacher and student, where not all of their shapes' are taken."""

    def __post_init__(self) -> None:
        for shape in (self.teacher, self.student):
            check_shape(shape)
        for name in self.arms:
            arm = find_arm(name)
            if arm.loss.by_ablation or arm.heads != "pools":
                raise InputError(f"arm {name!r} needs scores of real models; leave it out")
        least = {"tokens": 256, "batch": 1, "steps": 2, "heads": 1, "options": 2, "decisions": 1}
        for name, number in least.items():
            if getattr(self, name) < number:
                raise InputError(f"{name} is {getattr(self, name)}, must be at least {number}")
        if self.room < 4 * self.options:
            raise InputError(f"{self.options} options do not fit into {self.tokens} tokens")

    @property
    def question(self) -> int:
        """Tokens of a prompt; the rest is chain and answer."""
        return self.tokens * 3 // 4

    @property
    def room(self) -> int:
        """Tokens in which a prompt lists its options; before them is the note."""
        return self.question // 3

    def n_layers(self, side: int) -> int:
        """Of the teacher (0) or the student (1)."""
        if self.layers is not None:
            return self.layers[side]
        return SHAPES[(self.teacher, self.student)[side]][0].n_layers


def find_shape(name: str) -> str:
    """A shape by its name, or by its size alone: "8b"."""
    return f"llama3-{name}" if f"llama3-{name}" in SHAPES else name


def estimate(plan: Plan, world: int, *, sharded: bool = False) -> dict[str, dict[str, float]]:
    """GiB on a card by phase ("start", "forward", "backward"): of each part, and "all".

    Where targets are kept on disk there is a phase before, "targets", in which they are made, by a
    teacher that is `sharded` over the cards or whole on each.
    """
    sizes = [_sizes((plan.teacher, plan.student)[side], plan.n_layers(side)) for side in (0, 1)]
    (teacher, block_t, ends_t), (student, block_s, ends_s) = sizes
    n = plan.batch * plan.tokens
    shapes = [SHAPES[name][0] for name in (plan.teacher, plan.student)]
    ours, vocabulary = SHAPES[plan.student]
    shared = world > 1
    part = world if shared else 1
    sharded = shared and (sharded if plan.source == "disk" else plan.source == "sharded")
    held = 2 * teacher / (part if sharded else 1)
    weights = 0 if plan.source == "disk" else held
    heads = (ours.n_heads + 2 * ours.n_kv_heads) * ours.d_model // ours.n_heads
    layer = 2 * (STREAMS * ours.d_model + INNER * ours.d_mlp + HEADS * heads) * n
    layers = plan.n_layers(1)
    kept = 2 * ours.d_model * n * layers + layer if plan.checkpointing else layer * layers
    chain = plan.batch * (plan.tokens - plan.question)
    needs: list[tuple[int, int]] = []
    for name in plan.arms:
        loss = find_arm(name).loss
        logits = n * LOGIT_BYTES + chain * CHAIN_BYTES
        if loss.logit:
            logits += chain * TARGET_BYTES + (0 if plan.source == "disk" else 2 * n)
        read = 2 * plan.heads if loss.attention or loss.interaction else 0
        read = ours.n_heads * plan.n_layers(1) if loss.minilm else read
        maps = read * (chain + plan.room * plan.batch) * plan.tokens * 4
        needs.append((logits * vocabulary, maps * (MAPS_TAUGHT + MAPS_LEARNT)))
    logits, reads = max(needs, key=sum)
    always = {
        "CUDA and NCCL": CONTEXT_BYTES,
        "teacher": weights,
        "student, float32": 4 * student / part,
    }
    gathered_t = 2 * (GATHERED * block_t + 2 * ends_t) if sharded else 0
    gathered_s = (2 * (GATHERED * block_s + ends_s) + 4 * 2 * block_s) if shared else 2 * student
    phases = {
        "start": always | {"student before it is sharded": 4 * student if shared else 0},
        "forward": always
        | {
            "AdamW": 8 * student / part,
            "teacher's gathered weights": gathered_t if weights else 0,
            "a block of the teacher": _layer(shapes[0], n) if weights else 0,
        },
        "backward": always
        | {
            "AdamW": 8 * student / part,
            "gradients": 4 * student / part,
            "student's gathered weights": gathered_s,
            "activations": kept,
            "logits and losses": logits,
            "attention maps": reads,
        },
    }
    if plan.source == "disk":
        making = {
            "CUDA and NCCL": CONTEXT_BYTES,
            "teacher": held,
            "teacher's gathered weights": gathered_t,
            "a block of the teacher": _layer(shapes[0], n),
            "student, to ask its terms": 2 * student,
            "logits and losses": logits,
            "attention maps": reads,
        }
        phases = {"targets": making, **phases}
    return {
        phase: {name: size / GIB for name, size in parts.items() if size}
        | {"all": sum(parts.values()) / GIB}
        for phase, parts in phases.items()
    }


def table(estimated: dict[str, dict[str, float]]) -> list[str]:
    """The estimate in lines: a part in each, a column for each phase."""
    names = list(dict.fromkeys(name for parts in estimated.values() for name in parts))
    names = [*(name for name in names if name != "all"), "all"]
    lines = [f"{'estimate, GiB a card':32}" + "".join(f"{phase:>10}" for phase in estimated)]
    for name in names:
        numbers = [parts.get(name) for parts in estimated.values()]
        lines.append(
            f"  {name:30}" + "".join(f"{'' if x is None else f'{x:.1f}':>10}" for x in numbers)
        )
    return lines


def check_memory(
    estimated: dict[str, dict[str, float]], device: torch.device, there: int | None = None
) -> None:
    """Refuse what does not fit on a card, before anything is made there.

    Args:
        estimated: by `estimate`.
        device: of this process.
        there: bytes that it has; asked of it unless given.

    Raises:
        InputError: saying what it takes, what there is, and what would make it less.
    """
    if there is None:
        if device.type != "cuda":
            return
        there = torch.cuda.mem_get_info(device)[1]
    phase, most = max(((name, x["all"]) for name, x in estimated.items()), key=lambda one: one[1])
    if most * GIB > there:
        raise InputError(
            f"{phase} takes about {most:.0f} GiB a card, which has {there / GIB:.0f}: take more "
            "cards, a smaller --batch, --checkpointing, or --teacher-sharded"
        )


@cache
def _sizes(shape: str, n_layers: int) -> tuple[int, int, int]:
    """Numbers of a model, of one of its blocks, and of what is no block."""
    with torch.device("meta"):
        model: Any = build(shape, torch.float32, n_layers)
    whole = sum(weight.numel() for weight in model.parameters())
    block = sum(weight.numel() for weight in model.model.layers[0].parameters())
    return whole, block, whole - block * n_layers


def _layer(shape: Any, n: int) -> int:
    return 2 * n * (4 * shape.d_model + 3 * shape.d_mlp)


def pools(plan: Plan) -> dict[Any, list[tuple[int, int]]]:
    """Made-up heads of the teacher: coarse ones from its middle on, refine ones after them."""
    n_layers, n_heads = plan.n_layers(0), SHAPES[plan.teacher][0].n_heads

    def spread(first: float, last: float, shift: int) -> list[tuple[int, int]]:
        start, stop = int(first * n_layers), max(int(first * n_layers) + 1, int(last * n_layers))
        every = [
            (layer, (shift + 5 * turn) % n_heads)
            for turn in range(n_heads)
            for layer in range(start, stop)
        ]
        step = max(1, min(len(every), stop - start) // plan.heads)
        chosen: Sequence[tuple[int, int]] = list(dict.fromkeys(every[::step]))[: plan.heads]
        return list(chosen)

    return {"coarse": spread(0.3, 0.6, 1), "refine": spread(0.6, 0.95, 2)}
