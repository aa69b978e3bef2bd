"""What a student is trained on, as numbers: which terms count how much, and where."""

import math
from dataclasses import dataclass, field, fields
from typing import Any, Literal, get_args

from workbench.distill.losses.losses import Per
from workbench.errors import InputError
from workbench.organism.mix import ExampleMix
from workbench.phases import POOLS, Pool

Rows = Literal["all", "options", "target"]
Route = Literal["evidence", "decision"]
Matching = Literal["auto", "depth", "attention"]
Heads = Literal["pools", "random", "norm"]
UpdateSpace = Literal["residual", "options"]
HiddenKind = Literal["mse", "cosine"]

CHOICES = {
    "rows": get_args(Rows),
    "per": get_args(Per),
    "route": get_args(Route),
    "update_space": get_args(UpdateSpace),
    "hidden_kind": get_args(HiddenKind),
}
"""What fields of `MechanisticDistillationConfig` that are names can be."""

TERMS = (
    "chain",
    "logit",
    "attention",
    "update",
    "interaction",
    "minilm",
    "hidden",
    "circuit",
)
"""Every term of the loss, in the order in which they are logged; also their weights' names."""

MAPPED = ("attention", "update", "interaction")
"""Terms that need a head map."""


@dataclass(frozen=True)
class MechanisticDistillationConfig:
    """Loss weights (0 turns a term off) and what each term looks at.

    Attributes:
        chain: weight of the cross-entropy on the teacher's written chains and answers.
        logit: of the KL between next-token distributions over chain and answer.
        attention: of the KL between pooled attention patterns of matched heads.
        update: of the distance between what matched heads write, in `update_space`.
        interaction: of the KL between coarse attention × refine contribution over the options.
        minilm: of the KL between all heads' patterns in mapped layers, the MiniLM baseline.
        hidden: of the distance between hidden states of mapped layers, the hidden-state baseline.
        circuit: of 1 − CKA between single heads that were matched by ablation effect.
        pools: the pools that `attention` and `update` teach.
        logit_temperature: of `logit`.
        update_space: where `update` compares: what is written, at decisions and ends of options, by
            1 − CKA; or its direct contribution to the options' logits at decisions, by KL.
        interaction_temperature: by which contributions to logits are divided, in `interaction` and
            in `update` over options.
        rows: query positions of patterns and hidden states: every token, those from the first
            option on, or those that write the chain and the answer.
        per: whether rows are averaged over the batch or in each example first.
        route: coarse attention in `interaction`: from the options' tokens on the evidence, or from
            the decision on the options.
        debiased: unbiased CKA; the biased one is near 1 where samples are few.
        hidden_kind: "mse" or "cosine".
        layers: (student layer, teacher layer) for `minilm` and `hidden`; None spreads the student's
            layers evenly over the teacher's.

    Raises:
        InputError: a weight that is negative or no number, all weights 0, or a value that is not
            one of those named.
    """

    chain: float = 1.0
    logit: float = 0.0
    attention: float = 0.5
    update: float = 0.0
    interaction: float = 0.0
    minilm: float = 0.0
    hidden: float = 0.0
    circuit: float = 0.0
    pools: tuple[Pool, ...] = POOLS
    logit_temperature: float = 2.0
    update_space: UpdateSpace = "residual"
    interaction_temperature: float = 1.0
    rows: Rows = "options"
    per: Per = "row"
    route: Route = "evidence"
    debiased: bool = True
    hidden_kind: HiddenKind = "mse"
    layers: tuple[tuple[int, int], ...] | None = None

    def __post_init__(self) -> None:
        for name in TERMS:
            weight = getattr(self, name)
            if not (weight >= 0 and math.isfinite(weight)):
                raise InputError(f"loss weight {name} is {weight}, must be a number from 0")
        if not self.on:
            raise InputError("all loss weights are 0, so there is nothing to train on")
        for name, values in CHOICES.items():
            if getattr(self, name) not in values:
                raise InputError(
                    f"{name} is {getattr(self, name)!r}, must be one of {', '.join(values)}"
                )
        if not self.pools or not set(self.pools) <= set(POOLS):
            raise InputError(f"pools {list(self.pools)} must be some of {', '.join(POOLS)}")
        for name in ("logit_temperature", "interaction_temperature"):
            if not getattr(self, name) > 0:
                raise InputError(f"{name} is {getattr(self, name)}, must be above 0")

    @property
    def on(self) -> dict[str, float]:
        """Terms that count, with their weights."""
        return {name: getattr(self, name) for name in TERMS if getattr(self, name)}

    @property
    def reads_logits_of_heads(self) -> bool:
        """Whether heads' direct contribution to option logits is compared."""
        over_options = "update" in self.on and self.update_space == "options"
        return over_options or "interaction" in self.on

    @property
    def needs_map(self) -> bool:
        """Whether any term compares matched heads."""
        return any(name in self.on for name in MAPPED)

    @property
    def taught_pools(self) -> set[Pool]:
        """Pools of which heads must be there."""
        found: set[Pool] = set(self.pools if {"attention", "update"} & set(self.on) else ())
        return found | (set(POOLS) if "interaction" in self.on else set())

    @property
    def needs_teacher(self) -> bool:
        """Whether the teacher runs beside the student at all."""
        return bool(set(self.on) - {"chain"})


@dataclass(frozen=True)
class StudentShape:
    """A Llama to be made from nothing, with the teacher's vocabulary and tied embeddings.

    Raises:
        InputError: sizes that do not go together.
    """

    n_layers: int = 4
    n_heads: int = 4
    n_kv_heads: int = 2
    d_model: int = 128
    d_mlp: int = 384

    def __post_init__(self) -> None:
        for one in fields(self):
            if getattr(self, one.name) < 1:
                raise InputError(f"{one.name} is {getattr(self, one.name)}, must be at least 1")
        if self.n_heads % self.n_kv_heads or self.d_model % self.n_heads:
            raise InputError(
                f"n_heads {self.n_heads} must divide d_model {self.d_model} and be a multiple of "
                f"n_kv_heads {self.n_kv_heads}"
            )


@dataclass(frozen=True)
class DistillationConfig:
    """Everything that decides what the student becomes, besides teacher, heads and labels.

    Attributes:
        loss: the terms of the loss.
        heads: teacher heads that the student learns from: the pools', or as many others, random
            ones of the same layers or those of the largest output.
        student: shape of a new student, or the folder of a pretrained one.
        matching: how student heads are found: by depth, by what they look at, or the first for a
            new student and the second for a pretrained one.
        steps: of the optimizer.
        batch_size: examples of a forward.
        accumulation: forwards of a step.
        context: examples have fewer tokens than this.
        n_traces: chains to draw from the teacher; those that are wrong are left out.
        max_new_tokens: of a chain and its answer.
        mix: `direct` is the share of examples without a chain, `prompt_weight` the loss weight of
            the prompt's tokens, `ramp` the share of traces, and of direct examples, that starts
            with mentions written out. `partial` and `invented` must be 0.
        bf16: mixed precision.
        trace_seed: of the prompts that traces are drawn for.
        seed: of weights, direct examples, and heads drawn at random.

    Raises:
        InputError: a size below 1, a rate below 0, or a kind of example that is not made here.
    """

    loss: MechanisticDistillationConfig = MechanisticDistillationConfig()
    heads: Heads = "pools"
    student: StudentShape | str = StudentShape()
    matching: Matching = "auto"
    steps: int = 2400
    batch_size: int = 128
    accumulation: int = 1
    context: int = 512
    n_traces: int = 100_000
    max_new_tokens: int = 256
    learning_rate: float = 2e-3
    warmup_steps: int = 200
    weight_decay: float = 0.1
    mix: ExampleMix = field(default_factory=lambda: ExampleMix(partial=0.0))
    bf16: bool = True
    trace_seed: int = 0
    seed: int = 0

    def __post_init__(self) -> None:
        sizes = ("steps", "batch_size", "accumulation", "context", "n_traces", "max_new_tokens")
        for name in sizes:
            if getattr(self, name) < 1:
                raise InputError(f"{name} is {getattr(self, name)}, must be at least 1")
        for name in ("learning_rate", "warmup_steps", "weight_decay"):
            if not (getattr(self, name) >= 0 and math.isfinite(getattr(self, name))):
                raise InputError(f"{name} is {getattr(self, name)}, must be a number from 0")
        for name, values in {"matching": get_args(Matching), "heads": get_args(Heads)}.items():
            if getattr(self, name) not in values:
                raise InputError(
                    f"{name} is {getattr(self, name)!r}, must be one of {', '.join(values)}"
                )
        for name in ("partial", "invented"):
            if getattr(self.mix, name):
                raise InputError(f"mix: {name} is {getattr(self.mix, name)}, must be 0 here")


DEFAULTS = DistillationConfig()


def plain(value: Any) -> Any:
    """A configuration's dictionary as JSON holds it: tuples become lists."""
    if isinstance(value, dict):
        return {name: plain(entry) for name, entry in value.items()}
    return [plain(entry) for entry in value] if isinstance(value, tuple | list) else value
