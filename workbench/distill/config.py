"""What a student is trained on, as settings: which terms count how much, and where."""

from collections.abc import Iterable
from dataclasses import make_dataclass
from typing import Annotated, Any, Literal

from pydantic import Field

import workbench.distill.losses.terms  # noqa: F401 (registers all terms)
from workbench.distill.losses.term import TERMS, Per, Term
from workbench.errors import InputError
from workbench.files import settings
from workbench.models.llama import LlamaShape
from workbench.organism.mix import ExampleMix
from workbench.phases import POOLS, Pool

Rows = Literal["all", "options", "target"]
Route = Literal["evidence", "decision"]
Matching = Literal["auto", "depth", "attention"]
Heads = Literal["pools", "random", "norm"]
UpdateSpace = Literal["residual", "options"]
HiddenKind = Literal["mse", "cosine"]
Supervision = Literal["teacher", "gold"]
Over = Literal["step", "forward"]


def weights(terms: Iterable[type[Term]]) -> Any:
    """A dataclass with a field for each term: its weight, 0 to turn it off."""
    fields = [
        (
            term.name,
            Annotated[float, Field(ge=0, allow_inf_nan=False, description=term.help)],
            term.weight,
        )
        for term in terms
    ]
    return make_dataclass("Weights", fields, frozen=True)


@settings
class LossConfig(weights(TERMS.values())):
    """The weight of every term of the loss (`TERMS`), and what the terms look at.

    Raises:
        InputError: all weights are 0, or a value is outside its range.
    """

    lambda_p1: Annotated[
        float, Field(ge=0, allow_inf_nan=False, description="Factor of the terms of phase 1, p1_….")
    ] = 1.0
    lambda_p2: Annotated[
        float, Field(ge=0, allow_inf_nan=False, description="Factor of the terms of phase 2, p2_….")
    ] = 1.0
    supervision: Annotated[
        Supervision,
        Field(
            description="What terms of phases bring the student's heads to: what the teacher's do, "
            "or what the labels say, without a teacher."
        ),
    ] = "teacher"
    pools: Annotated[
        tuple[Pool, ...], Field(min_length=1, description="Pools that attention and update teach.")
    ] = POOLS
    logit_temperature: Annotated[float, Field(gt=0, description="Temperature of logit.")] = 2.0
    update_space: Annotated[
        UpdateSpace,
        Field(
            description="Where update compares: what heads write, at decisions and ends of "
            "options, by 1 − CKA; or what it adds to the options' logits at decisions, by KL."
        ),
    ] = "residual"
    interaction_temperature: Annotated[
        float,
        Field(
            gt=0,
            description="What contributions to logits are divided by, in interaction and in update "
            "over options.",
        ),
    ] = 1.0
    rows: Annotated[
        Rows,
        Field(
            description="Query positions of patterns and hidden states: every token, those from "
            "the first option on, or those that write the chain and the answer."
        ),
    ] = "options"
    per: Annotated[
        Per, Field(description="Average rows over the batch, or over each example first.")
    ] = "row"
    route: Annotated[
        Route,
        Field(
            description="Coarse attention in interaction: from the options on the evidence, or "
            "from the decision on the options."
        ),
    ] = "evidence"
    debiased: Annotated[
        bool, Field(description="Unbiased CKA; the biased one is near 1 where samples are few.")
    ] = True
    cka: Annotated[
        Over,
        Field(
            description="Samples of CKA: those of a whole step, of all its forwards and processes, "
            "or of each forward alone."
        ),
    ] = "step"
    hidden_kind: Annotated[HiddenKind, Field(description="Distance of hidden states.")] = "mse"
    layers: Annotated[
        tuple[tuple[int, int], ...] | None,
        Field(
            description="Pairs of student layer and teacher layer for minilm and hidden; unless "
            "given, the student's layers are spread evenly over the teacher's."
        ),
    ] = None

    def __post_init__(self) -> None:
        if not self.on:
            raise InputError("all loss weights are 0, so there is nothing to train on")

    @property
    def on(self) -> dict[str, float]:
        """Terms that count, with their weights; those of a phase times its lambda."""
        # A term that was registered since is a setting of a class derived from this one.
        factors = {None: 1.0, "p1": self.lambda_p1, "p2": self.lambda_p2}
        found = {
            name: getattr(self, name, 0.0) * factors[term.phase] for name, term in TERMS.items()
        }
        return {name: weight for name, weight in found.items() if weight}

    @property
    def _terms(self) -> list[type[Term]]:
        return [TERMS[name] for name in self.on]

    @property
    def reads_option_logits(self) -> bool:
        """Whether heads' direct contribution to option logits is compared."""
        return any(term.reads_option_logits(self) for term in self._terms)

    @property
    def taught_pools(self) -> set[Pool]:
        """Pools of which heads must be there; any at all mean that a head map is needed."""
        return {pool for term in self._terms for pool in term.pools(self)}

    @property
    def about_heads(self) -> str:
        """Names of the terms that need heads of the teacher, for a message."""
        return ", ".join(term.name for term in self._terms if term.pools(self) or term.by_ablation)

    def of_pool(self, pool: Pool) -> str:
        """Names of the terms that need heads of a pool, for a message."""
        return ", ".join(term.name for term in self._terms if pool in term.pools(self))

    def without(self, pool: Pool) -> str:
        """How to do without heads of a pool, for a message."""
        phase = "p1" if pool == "coarse" else "p2"
        if any(term.phase == phase for term in self._terms):
            return f"--lambda-{phase} 0 leaves the terms of its phase out"
        return "without interaction (--interaction 0) one pool can be taught alone"

    @property
    def by_ablation(self) -> bool:
        """Whether any term needs heads that are paired by ablation effect."""
        return any(term.by_ablation for term in self._terms)

    @property
    def batch_keys(self) -> dict[str, tuple[str, ...]]:
        """Keys that a batch must have for each term that counts."""
        return {term.name: tuple(term.reads(self)) for term in self._terms}

    @property
    def needs_teacher(self) -> bool:
        """Whether the teacher runs beside the student at all."""
        return any(term.runs_teacher(self) for term in self._terms)


@settings
class StudentShape(LlamaShape):
    """A Llama to be made from nothing, with the teacher's vocabulary and tied embeddings."""

    n_layers: Annotated[int, Field(ge=1, description="Layers of a new student.")] = 4
    n_heads: Annotated[int, Field(ge=1, description="Heads of a layer of a new student.")] = 4
    n_kv_heads: Annotated[
        int, Field(ge=1, description="Key-value heads of a layer of a new student.")
    ] = 2
    d_model: Annotated[int, Field(ge=1, description="Width of a new student.")] = 128
    d_mlp: Annotated[int, Field(ge=1, description="Width of a new student's MLPs.")] = 384


@settings
class CopiedLayers:
    """A student of some layers of a model, whose embeddings, final norm and head it keeps.

    Raises:
        InputError: a single layer that is not named, or layers that are not in rising order.
    """

    layers: Annotated[
        int | tuple[Annotated[int, Field(ge=0)], ...],
        Field(description="How many layers, evenly spread from first to last; or which, from 0."),
    ]
    from_: Annotated[
        str | None, Field(description="Model that they are copied from; the teacher unless given.")
    ] = None

    def __post_init__(self) -> None:
        if isinstance(self.layers, int):
            if isinstance(self.layers, bool) or self.layers < 2:
                raise InputError(
                    f"layers: {self.layers} cannot be spread from first to last; give at least 2, "
                    "or name them"
                )
        elif not self.layers or list(self.layers) != sorted(set(self.layers)):
            raise InputError("layers: must be named in rising order, each once")

    def of(self, n_layers: int) -> tuple[int, ...]:
        """The layers that are copied, of a model of so many.

        Raises:
            InputError: it has too few.
        """
        if isinstance(self.layers, int):
            last, gaps = n_layers - 1, self.layers - 1
            found = tuple((2 * at * last + gaps) // (2 * gaps) for at in range(self.layers))
            enough = self.layers <= n_layers
        else:
            found, enough = self.layers, self.layers[-1] < n_layers
        if not enough:
            asked = self.layers if isinstance(self.layers, int) else f"layer {self.layers[-1]}"
            raise InputError(f"layers: {asked} cannot be copied from a model of {n_layers} layers")
        return found


Saved = Literal["merged", "adapter"]


@settings
class LoraConfig:
    """An adapter (peft) on all linear layers of a student, whose own weights stay as they are."""

    rank: Annotated[int, Field(ge=1, description="Rank of the student's adapter.")] = 16
    alpha: Annotated[
        float, Field(gt=0, allow_inf_nan=False, description="Scale of the adapter, over its rank.")
    ] = 32.0
    saved: Annotated[
        Saved, Field(description="What the student's folder holds: a whole model, or its adapter.")
    ] = "merged"


@settings
class DistillationConfig:
    """Everything that decides what the student becomes, besides teacher, heads and labels.

    Raises:
        InputError: a value outside its range, or a kind of example that is not made here.
    """

    loss: Annotated[LossConfig, Field(description="Terms of the loss.")] = LossConfig()
    heads: Annotated[
        Heads,
        Field(
            description="Teacher heads to learn from: the pools', or as many others, random ones "
            "of the same layers or those of the largest output."
        ),
    ] = "pools"
    student: Annotated[
        StudentShape | CopiedLayers | str,
        Field(
            description="Shape of a new student, layers to copy, or folder or hub id of a "
            "pretrained one."
        ),
    ] = StudentShape()
    lora: Annotated[
        LoraConfig | None, Field(description="An adapter that is trained in the student's place.")
    ] = None
    matching: Annotated[
        Matching,
        Field(
            description="How student heads are matched with the teacher's: by depth, by what they "
            "look at, or the first for a new student and the second for a pretrained one; of "
            "copied layers of the teacher, heads that are there are themselves."
        ),
    ] = "auto"
    steps: Annotated[int, Field(ge=1, description="Training steps.")] = 2400
    batch_size: Annotated[int, Field(ge=1, description="Examples of a forward.")] = 128
    accumulation: Annotated[int, Field(ge=1, description="Forwards of a step.")] = 1
    context: Annotated[int, Field(ge=1, description="Examples have fewer tokens than this.")] = 512
    n_traces: Annotated[
        int, Field(ge=1, description="Chains to draw from the teacher; wrong ones are left out.")
    ] = 100_000
    max_new_tokens: Annotated[
        int, Field(ge=1, description="Most tokens of a chain and its answer.")
    ] = 256
    learning_rate: Annotated[
        float, Field(ge=0, allow_inf_nan=False, description="Peak of the schedule.")
    ] = 2e-3
    warmup_steps: Annotated[int, Field(ge=0, description="Steps up to the peak.")] = 200
    weight_decay: Annotated[float, Field(ge=0, allow_inf_nan=False, description="Of AdamW.")] = 0.1
    mix: Annotated[
        ExampleMix, Field(description="Kinds of examples; partial and invented must be 0.")
    ] = ExampleMix(partial=0.0)
    bf16: Annotated[bool, Field(description="Mixed precision.")] = True
    trace_seed: Annotated[int, Field(description="Of the prompts that traces are drawn for.")] = 0
    seed: Annotated[
        int, Field(description="Of weights, direct examples, and heads drawn at random.")
    ] = 0

    def __post_init__(self) -> None:
        for name in ("partial", "invented"):
            if getattr(self.mix, name):
                raise InputError(f"mix: {name} is {getattr(self.mix, name)}, must be 0 here")
        if self.lora is None:
            return
        if isinstance(self.student, StudentShape):
            raise InputError(
                "lora: an adapter is trained beside weights that stay as they are, and those of a "
                "new student are random; name a pretrained student, or layers to copy"
            )
        if self.lora.saved == "adapter" and isinstance(self.student, CopiedLayers):
            raise InputError(
                "lora: an adapter needs its base, and copied layers are in no folder; save the "
                "student merged"
            )
        if self.loss.hidden:
            raise InputError(
                "lora: hidden learns projections, which an adapter's checkpoints do not hold; "
                "train whole weights, or set hidden to 0"
            )


DEFAULTS = DistillationConfig()


def plain(value: Any) -> Any:
    """A configuration's dictionary as JSON holds it: tuples become lists."""
    if isinstance(value, dict):
        return {name: plain(entry) for name, entry in value.items()}
    return [plain(entry) for entry in value] if isinstance(value, tuple | list) else value
