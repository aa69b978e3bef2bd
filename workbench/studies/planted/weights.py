"""The weights of a planted model: a small Llama in which some heads do as their `Part` says.

All other heads have random weights: their attention is far from uniform, and what they write is
small. MLPs write nothing, but for the one that counts votes where a kind has it. Under
grouped-query attention other query heads share the keys and values of planted ones.

Two properties of Llama are neutralised. *RMSNorm*: a constant feature dominates the norm of the
residual stream, and the norm's weight undoes it, so that a layer reads the features as they were
written. *Rotary positions*: the base is so large that only two of the pairs of dimensions rotate
within a prompt; the planted heads use the others. Features are directions of a random orthonormal
basis, so no neuron has a meaning of its own.
"""

from collections.abc import Collection, Iterable, Mapping
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from transformers import LlamaForCausalLM

from workbench.heads import Head
from workbench.models.llama import LlamaShape
from workbench.studies.planted.kinds import Kind
from workbench.studies.planted.parts import LOGIT_SCALE, Part
from workbench.studies.planted.task import (
    CLUSTER_SIZE,
    D_VOCAB,
    DECIDE,
    EVIDENCE,
    N_CLUSTERS,
    N_LABELS,
    OPTION,
    START,
)

D_HEAD = 32
ROPE_THETA = 1e30
ROTATING = 2
"""Pairs of dimensions that rotate within a prompt (pair i is dimensions i and i + D_HEAD / 2)."""

CONSTANT = 60.0
"""Size of the constant feature; the others are about 1, so the norm varies by less than 0.5 %."""

BACKGROUND = 0.15
"""About the norm of what a random head writes, where a feature is about 1."""

SIZES = {
    **dict.fromkeys(("constant", "start", "option", "decide", "evidence", "salience"), 1),
    **dict.fromkeys(("relevant", "evidence_cluster", "option_cluster"), N_CLUSTERS),
    **dict.fromkeys(("evidence_label", "option_label", "exact", "out", "unread"), N_LABELS),
}
"""Features and the number of their rows."""

STEEP = 80.0
"""Slope of the vote's steps: one vote of seven more or less saturates them."""


class Weights:
    """Builds one model; `place` says where each part of the kind stands."""

    def __init__(
        self,
        generator: torch.Generator,
        n_layers: int,
        n_heads: int,
        groups: int,
        kind: Kind,
        place: Mapping[str, Head],
    ) -> None:
        self.generator = generator
        self.n_heads, self.groups = n_heads, groups
        self.kind, self.place = kind, place
        self.d_model = n_heads * D_HEAD
        rope = {"rope_type": "default", "rope_theta": ROPE_THETA}
        d_mlp = 2 * N_LABELS if kind.mlp else 4
        self.model: Any = LlamaShape(n_layers, n_heads, groups, self.d_model, d_mlp).build(
            D_VOCAB, context=64, tie_word_embeddings=False, rope_parameters=rope
        )
        basis = torch.linalg.qr(self._normal(self.d_model, self.d_model))[0]
        rest = self.d_model - sum(SIZES.values())
        split = basis.split([*SIZES.values(), rest])
        self._features = dict(zip([*SIZES, "noise"], split, strict=True))

    @torch.no_grad()
    def build(self, muted: Collection[str]) -> LlamaForCausalLM:
        """The model; parts in `muted` attend as they would, and write nothing."""
        for name, parameter in self.model.named_parameters():
            if parameter.ndim == 1:  # a norm, which then gives back what it was given
                parameter.fill_(CONSTANT / self.d_model**0.5)
            elif "mlp" in name:
                parameter.zero_()
        self._embed()
        self._fill_at_random()
        for part in self.kind.all_parts:
            self._plant(part)
        if self.kind.mlp:
            self._count_votes(*self.kind.mlp)
        for name in muted:
            self._rows(name, "o_proj").zero_()
        return self.model

    def feature(self, name: str) -> Float[Tensor, "row d_model"]:
        """Directions of a feature, by a name as parts have it."""
        if name == "always":
            return self._features["constant"] / CONSTANT
        if name == "members":
            return self._features["out"].reshape(N_CLUSTERS, CLUSTER_SIZE, -1).sum(dim=1)
        if name.startswith("any_"):
            return self._features[name.removeprefix("any_")].sum(dim=0, keepdim=True)
        whole, _, row = name.partition(":")
        return self._features[whole][int(row)][None] if row else self._features[whole]

    def _normal(self, *shape: int) -> Tensor:
        return torch.randn(*shape, generator=self.generator)

    def _uniform(self, low: float, high: float) -> float:
        if low == high:
            return low
        return low + (high - low) * float(torch.rand((), generator=self.generator))

    def _embed(self) -> None:
        feature = self._features
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
        constant = self._features["constant"]
        blind = torch.eye(self.d_model) - constant.T @ constant
        for layer in self.model.model.layers:
            attention = layer.self_attn
            for name in ("q_proj", "k_proj"):
                weight = getattr(attention, name).weight
                weight.copy_(0.5 * self._normal(*weight.shape) @ blind)
            weight = attention.v_proj.weight
            weight.copy_(self._normal(*weight.shape) / D_HEAD**0.5 @ blind)
            weight = attention.o_proj.weight
            weight.copy_(BACKGROUND / 2 * self._normal(*weight.shape) / self.d_model**0.5)

    def _plant(self, part: Part) -> None:
        read = self.feature(part.reads)
        write = self.feature(part.writes)[: len(read)] * self._uniform(*part.size)
        # A part that shares a group finds its keys and values set.
        own = not (self.groups < self.n_heads and part.shares in self.place)
        looks = [(weight, self.feature(q), self.feature(k)) for weight, q, k in part.looks]
        self._attend(part.name, looks, keys=own)
        self._copy(part.name, read, write, values=own)

    def _rows(self, part: str, name: str) -> Float[Tensor, "d_head d_model"]:
        """A head's own slice of a projection, as a view: row i belongs to dimension i of the head.

        Keys and values are those of the head's group.
        """
        layer, head = self.place[part]
        projection = getattr(self.model.model.layers[layer].self_attn, name).weight
        if name in ("k_proj", "v_proj"):
            head = head // (self.n_heads // self.groups)
        rows = slice(head * D_HEAD, (head + 1) * D_HEAD)
        return projection[:, rows].T if name == "o_proj" else projection[rows]

    def _attend(
        self, part: str, looks: Iterable[tuple[float, Tensor, Tensor]], *, keys: bool
    ) -> None:
        """Scores: the sum over (weight, query, key) of weight · Σ_i (x · query_i)(y · key_i).

        Each row i takes one dimension of the head that does not rotate. `keys` False leaves the
        keys alone, which another head of the group has set.
        """
        half = D_HEAD // 2
        still = [*range(ROTATING, half), *range(half + ROTATING, D_HEAD)]
        query, key = self._rows(part, "q_proj"), self._rows(part, "k_proj")
        query.zero_()
        if keys:
            key.zero_()
        for weight, asked, answered in looks:
            for one, other in zip(asked, answered, strict=True):
                dimension = still.pop(0)
                query[dimension] = weight * D_HEAD**0.5 * one
                if keys:
                    key[dimension] = other

    def _copy(self, part: str, read: Tensor, write: Tensor, *, values: bool) -> None:
        """Add, for each row i, (x · read_i) · write_i of the tokens that are attended to."""
        value, output = self._rows(part, "v_proj"), self._rows(part, "o_proj")
        output.zero_()
        output[: len(write)] = write
        if values:
            value.zero_()
            value[: len(read)] = read

    def _count_votes(self, low: float, high: float) -> None:
        """An MLP above all heads that write `exact`: step(exact > ½) · logits, label by label.

        The step is the difference of two ramps, relu(u) − relu(u − 1) with u = STEEP · (exact − ½).
        """
        voters = [part.name for part in self.kind.parts if part.writes == "exact"]
        lowest = max(self.place[name][0] for name in voters)
        layers = self.model.model.layers
        at = int(torch.randint(lowest, len(layers), (1,), generator=self.generator))
        mlp = layers[at].mlp
        exact, always, out = (self.feature(name) for name in ("exact", "always", "out"))
        ramp = STEEP * (exact - always / 2)
        mlp.gate_proj.weight.copy_(torch.cat([ramp, ramp - always]))
        mlp.up_proj.weight.copy_(always.expand(2 * N_LABELS, -1))
        step = self._uniform(low, high) / LOGIT_SCALE * out.T
        mlp.down_proj.weight.copy_(torch.cat([step, -step], dim=1))
