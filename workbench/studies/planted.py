"""Small Llama models whose weights are set by hand, so that the heads that matter are known.

A planted model answers a made-up task: `<start> filler… evidence option … option <decide>`. The
evidence names one label; nine options, three of each of three clusters, are on offer. Two chains of
two heads answer it, one for each phase:

    filter      an option of the evidence's cluster attends to the evidence and takes over its
                *cluster* ("relevant"); any other option attends to the start
    read-out    the decision token attends to the options, more to those marked relevant, and raises
                every label of the cluster that it finds there
    match       the option that is the evidence's label attends to the evidence and takes over its
                *label* ("exact")
    read-out    the decision token raises the label that it finds there

The evidence lies before the aligned suffix, so something must carry it to the decision; that is why
a phase is a chain. No head of one chain reads what the other chain writes, so the truth is exact:
coarse = {filter, its read-out}, refine = {match, its read-out}. A single head that carried the
evidence as a whole would be part of both phases, and no pool would be right for it.

Every model also has three distractors, which the method must leave out:

    twin        attends as the filter does, and writes where nothing reads
    prior       raises the options on offer, some labels more than others, whatever the evidence
    copier      copies the evidence's label from everywhere to where nothing reads

All other heads have random weights: their attention is far from uniform, and what they write is
small. MLPs write nothing. Under grouped-query attention other query heads share the keys and values
of the heads above; the twin then sits in the filter's own group.

Two properties of Llama are neutralised. *RMSNorm*: a constant feature dominates the norm of the
residual stream, and the norm's weight undoes it, so that a layer reads the features as they were
written. *Rotary positions*: the base is so large that only two of the pairs of dimensions rotate
within a prompt; the planted heads use the others. Features are directions of a random orthonormal
basis, so no neuron has a meaning of its own.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from transformer_lens.utilities.statistics import derive_generator
from transformers import LlamaForCausalLM

from workbench.errors import InputError
from workbench.heads import Head
from workbench.models.hooked import HookedModel
from workbench.models.llama import LlamaShape
from workbench.prompts.prompt import DecisionEvent, Option, PromptSet, Role

N_CLUSTERS, CLUSTER_SIZE = 4, 4
N_LABELS = N_CLUSTERS * CLUSTER_SIZE
OFFERED_CLUSTERS, OFFERED_SIZE = 3, 3

START, DECIDE, FILLERS = 0, 1, range(2, 10)
EVIDENCE = range(10, 10 + N_LABELS)
OPTION = range(10 + N_LABELS, 10 + 2 * N_LABELS)
D_VOCAB = 10 + 2 * N_LABELS
"""Tokens: start, decide, fillers, one evidence and one option token for each label."""

D_HEAD = 32
ROPE_THETA = 1e30
ROTATING = 2
"""Pairs of dimensions that rotate within a prompt (pair i is dimensions i and i + D_HEAD / 2)."""

CONSTANT = 60.0
"""Size of the constant feature; the others are about 1, so the norm varies by less than 0.5 %."""

LOGIT_SCALE = 10.0
"""Logits per unit of an `out` feature."""

BACKGROUND = 0.15
"""About the norm of what a random head writes, where a feature is about 1."""

ROLES = ("filter", "coarse_readout", "match", "refine_readout", "twin", "prior", "copier")
COARSE, REFINE, DISTRACTORS = ROLES[:2], ROLES[2:4], ROLES[4:]


@dataclass(frozen=True)
class Planted:
    """A model, prompts on which it does its task, and the heads that do it (or only look like it).

    Heads in none of the three sets are random.
    """

    model: HookedModel
    prompts: PromptSet
    coarse: frozenset[Head]
    refine: frozenset[Head]
    distractors: frozenset[Head]


def plant(
    seed: int = 0,
    n_layers: int = 3,
    n_heads: int = 4,
    n_kv_heads: int | None = None,
    *,
    n_prompts: int = 24,
    without: Iterable[str] = (),
) -> Planted:
    """A model of this shape with the planted heads at random places, and prompts for it.

    `n_kv_heads` is `n_heads` unless given. Heads whose role (see `ROLES`) is in `without` stay in
    place and attend as they would, but write nothing; the declared sets still hold them. The logits
    that the cluster (9 to 11) and the label (4 to 5) gain differ from seed to seed.

    Raises:
        InputError: a shape without room for the planted heads, fewer than 2 prompts, or an unknown
            role.
    """
    groups = n_heads if n_kv_heads is None else n_kv_heads
    muted = set(without)
    _check(n_layers, n_heads, groups, n_prompts, muted)
    generator = derive_generator(seed, "planted", n_layers, n_heads, groups)
    place = _places(generator, n_layers, n_heads, groups)
    hf_model = _Weights(generator, n_layers, n_heads, groups, place, muted).build()
    kinds = [frozenset(place[role] for role in roles) for roles in (COARSE, REFINE, DISTRACTORS)]
    model = HookedModel.from_pretrained_model(hf_model, name=f"planted-{seed}")
    events = tuple(_event(generator, index) for index in range(n_prompts))
    return Planted(model, PromptSet("planted", events), *kinds)


def _check(n_layers: int, n_heads: int, groups: int, n_prompts: int, muted: set[str]) -> None:
    if groups < 1 or n_heads % groups:
        raise InputError(f"{n_heads} heads cannot share {groups} key-value heads evenly")
    # A twin has the filter's own keys, so only without shared ones does it need its own.
    needed = len(ROLES) - (groups < n_heads)
    if n_layers < 2 or n_heads < 4 or n_layers * groups < needed:
        raise InputError(
            f"{n_layers} layers of {n_heads} heads with {groups} key-value heads have no room: "
            f"needs at least 2 layers, 4 heads and {needed} key-value heads in all"
        )
    if n_prompts < 2:
        raise InputError(f"n_prompts is {n_prompts}, must be at least 2")
    unknown = sorted(muted - set(ROLES))
    if unknown:
        raise InputError(f"role {unknown[0]!r} is not one of {', '.join(ROLES)}")


def _places(
    generator: torch.Generator, n_layers: int, n_heads: int, groups: int
) -> dict[str, Head]:
    """Role → head. Read-outs lie above the heads that they read; key-value heads are not shared."""
    size = n_heads // groups
    roles = [role for role in ROLES if size == 1 or role != "twin"]
    while True:
        slots = torch.randperm(n_layers * groups, generator=generator)[: len(roles)].tolist()
        layer = {role: slot // groups for role, slot in zip(roles, slots, strict=True)}
        if layer["filter"] < layer["coarse_readout"] and layer["match"] < layer["refine_readout"]:
            break
    inside = torch.randint(0, size, (len(roles),), generator=generator).tolist()
    place = {
        role: (slot // groups, slot % groups * size + offset)
        for role, slot, offset in zip(roles, slots, inside, strict=True)
    }
    if "twin" not in place:
        at, head = place["filter"]
        place["twin"] = (at, head // size * size + (head + 1) % size)
    return place


class _Weights:
    """Builds one model; `feature[name]` holds the directions of a feature, one in each row."""

    def __init__(
        self,
        generator: torch.Generator,
        n_layers: int,
        n_heads: int,
        groups: int,
        place: Mapping[str, Head],
        muted: set[str],
    ) -> None:
        self.generator = generator
        self.n_heads, self.groups = n_heads, groups
        self.place, self.muted = place, muted
        self.d_model = n_heads * D_HEAD
        rope = {"rope_type": "default", "rope_theta": ROPE_THETA}
        self.model: Any = LlamaShape(n_layers, n_heads, groups, self.d_model, d_mlp=4).build(
            D_VOCAB, context=64, tie_word_embeddings=False, rope_parameters=rope
        )
        self.feature = self._features()

    def _features(self) -> dict[str, Float[Tensor, "_ d_model"]]:
        basis = torch.linalg.qr(self._normal(self.d_model, self.d_model))[0]
        sizes = dict.fromkeys(("constant", "start", "option", "decide", "evidence"), 1)
        sizes |= {"salience": 1, "relevant": N_CLUSTERS}
        sizes |= {f"{kind}_cluster": N_CLUSTERS for kind in ("evidence", "option")}
        labels = ("evidence_label", "option_label", "exact", "out", "unread")
        sizes |= dict.fromkeys(labels, N_LABELS)
        rest = self.d_model - sum(sizes.values())
        return dict(zip([*sizes, "noise"], basis.split([*sizes.values(), rest]), strict=True))

    def _normal(self, *shape: int) -> Tensor:
        return torch.randn(*shape, generator=self.generator)

    def _uniform(self, low: float, high: float) -> float:
        return low + (high - low) * float(torch.rand((), generator=self.generator))

    @torch.no_grad()
    def build(self) -> LlamaForCausalLM:
        for name, parameter in self.model.named_parameters():
            if parameter.ndim == 1:  # a norm, which then gives back what it was given
                parameter.fill_(CONSTANT / self.d_model**0.5)
            elif "mlp" in name:
                parameter.zero_()
        self._embed()
        self._fill_at_random()
        self._plant_filters()
        self._plant_readouts()
        self._plant_others()
        for role in self.muted:
            self._rows(role, "o_proj").zero_()
        return self.model

    def _embed(self) -> None:
        feature = self.feature
        tokens = CONSTANT * feature["constant"].expand(D_VOCAB, -1).clone()
        tokens += 0.2 * self._normal(D_VOCAB, len(feature["noise"])) @ feature["noise"]
        tokens[START] += feature["start"][0]
        tokens[DECIDE] += feature["decide"][0]
        for kind, ids in (("evidence", EVIDENCE), ("option", OPTION)):
            clusters = feature[f"{kind}_cluster"].repeat_interleave(CLUSTER_SIZE, dim=0)
            tokens[list(ids)] += feature[kind] + clusters + feature[f"{kind}_label"]
        tokens[list(OPTION)] += self._normal(N_LABELS, 1) * feature["salience"]
        self.model.get_input_embeddings().weight.copy_(tokens)
        unembedding = self.model.lm_head.weight
        # Options must not differ by the constant feature, which would swamp all that is written.
        unembedding.zero_()
        unembedding[list(OPTION)] = LOGIT_SCALE * feature["out"]

    def _fill_at_random(self) -> None:
        """Random heads, blind to the constant feature: it would make their attention uniform."""
        blind = torch.eye(self.d_model) - self.feature["constant"].T @ self.feature["constant"]
        for layer in self.model.model.layers:
            attention = layer.self_attn
            for name in ("q_proj", "k_proj"):
                weight = getattr(attention, name).weight
                weight.copy_(0.5 * self._normal(*weight.shape) @ blind)
            weight = attention.v_proj.weight
            weight.copy_(self._normal(*weight.shape) / D_HEAD**0.5 @ blind)
            weight = attention.o_proj.weight
            weight.copy_(BACKGROUND / 2 * self._normal(*weight.shape) / self.d_model**0.5)

    def _rows(self, role: str, name: str) -> Float[Tensor, "d_head d_model"]:
        """A head's own slice of a projection, as a view: row i belongs to dimension i of the head.

        Keys and values are those of the head's group.
        """
        layer, head = self.place[role]
        projection = getattr(self.model.model.layers[layer].self_attn, name).weight
        if name in ("k_proj", "v_proj"):
            head = head // (self.n_heads // self.groups)
        rows = slice(head * D_HEAD, (head + 1) * D_HEAD)
        return projection[:, rows].T if name == "o_proj" else projection[rows]

    def _attend(
        self, role: str, pairs: Iterable[tuple[float, Tensor, Tensor]], *, keys: bool = True
    ) -> None:
        """Scores: the sum over (weight, query, key) of weight · Σ_i (x · query_i)(y · key_i).

        Each row i takes one dimension of the head that does not rotate. `keys` False leaves the
        keys alone, which another head of the group has set.
        """
        half = D_HEAD // 2
        still = [*range(ROTATING, half), *range(half + ROTATING, D_HEAD)]
        query, key = self._rows(role, "q_proj"), self._rows(role, "k_proj")
        query.zero_()
        if keys:
            key.zero_()
        for weight, asked, answered in pairs:
            for one, other in zip(asked, answered, strict=True):
                dimension = still.pop(0)
                query[dimension] = weight * D_HEAD**0.5 * one
                if keys:
                    key[dimension] = other

    def _copy(self, role: str, read: Tensor, write: Tensor, *, values: bool = True) -> None:
        """Add, for each row i, (x · read_i) · write_i of the tokens that are attended to."""
        value, output = self._rows(role, "v_proj"), self._rows(role, "o_proj")
        output.zero_()
        output[: len(write)] = write
        if values:
            value.zero_()
            value[: len(read)] = read

    def _plant_filters(self) -> None:
        """Filter, match and twin: what an option shares with the evidence decides where it looks.

        An option that shares nothing looks at the start, which weighs half of a match: e^7 against
        1 for every other token.
        """
        feature, always = self.feature, self.feature["constant"] / CONSTANT
        for role, kind, target in (
            ("filter", "cluster", "relevant"),
            ("match", "label", "exact"),
            ("twin", "cluster", "unread"),
        ):
            shared = role == "twin" and self.groups < self.n_heads
            evidence = feature[f"evidence_{kind}"]
            pairs = [(14.0, feature[f"option_{kind}"], evidence), (7.0, always, feature["start"])]
            self._attend(role, pairs, keys=not shared)
            self._copy(role, evidence, feature[target][: len(evidence)], values=not shared)

    def _plant_readouts(self) -> None:
        """Attention of the decision token on marked options is e² or e³ times that on others."""
        feature, always = self.feature, self.feature["constant"] / CONSTANT
        members = feature["out"].reshape(N_CLUSTERS, CLUSTER_SIZE, -1).sum(dim=1)
        for role, mark, more, marked, write, gain in (
            ("coarse_readout", "relevant", 2.0, OFFERED_SIZE, members, self._uniform(9.0, 11.0)),
            ("refine_readout", "exact", 3.0, 1, feature["out"], self._uniform(4.0, 5.0)),
        ):
            pairs = [
                (8.0, feature["decide"], feature["option"]),
                (more, feature["decide"], feature[mark].sum(dim=0, keepdim=True)),
                (4.0, always, feature["start"]),
            ]
            self._attend(role, pairs)
            on_marked = marked * torch.tensor(more).exp()
            share = on_marked / (on_marked + OFFERED_CLUSTERS * OFFERED_SIZE - marked)
            self._copy(role, feature[mark], gain / LOGIT_SCALE / share * write)

    def _plant_others(self) -> None:
        feature, always = self.feature, self.feature["constant"] / CONSTANT
        on_offer = [
            (8.0, feature["decide"], feature["option"]),
            (0.5, feature["decide"], feature["salience"]),
            (4.0, always, feature["start"]),
        ]
        self._attend("prior", on_offer)
        self._copy("prior", feature["option_label"], 0.3 * feature["out"])
        self._attend("copier", [(10.0, always, feature["evidence"])])
        self._copy("copier", feature["evidence_label"], feature["unread"])


def _event(generator: torch.Generator, index: int) -> DecisionEvent:
    """Nine options in random order; far evidence names an option of another cluster, near evidence
    another of the same; up to two fillers before the evidence."""

    def draw(count: int, of: int) -> list[int]:
        return torch.randperm(of, generator=generator)[:count].tolist()

    offered = [
        [cluster * CLUSTER_SIZE + item for item in draw(OFFERED_SIZE, CLUSTER_SIZE)]
        for cluster in draw(OFFERED_CLUSTERS, N_CLUSTERS)
    ]
    (gold, near, *_), (far, *_), *_ = offered
    labels = [label for cluster in offered for label in cluster]
    order = [labels[at] for at in draw(len(labels), len(labels))]
    fillers = [FILLERS[at] for at in draw(draw(1, 3)[0], len(FILLERS))]
    suffix = [*(OPTION[label] for label in order), DECIDE]
    start = len(fillers) + 1

    def role(label: int) -> Role:
        if label == gold:
            return "gold"
        return "near" if label in offered[0] else "far"

    def variant(label: int) -> tuple[int, ...]:
        return (START, *fillers, EVIDENCE[label], *suffix)

    return DecisionEvent(
        id=f"p{index}",
        event=0,
        clean=variant(gold),
        far=variant(far),
        near=variant(near),
        aligned_suffix=len(suffix),
        evidence=(start, start + 1),
        options=tuple(
            Option(f"label {label}", OPTION[label], role(label), (start + at, start + at + 1))
            for at, label in enumerate(order, start=1)
        ),
    )
