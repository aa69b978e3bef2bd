"""What every head does at the queries of one chain: the numbers that the chain scores are made of.

Two plain forwards of document and chain. The first gives the gradient of each margin at the final
residual stream, and the attention sinks; in the second every layer is reduced as it runs, so that
no attention pattern is kept.

With Δ_q what the head writes into the residual stream at q, α_q its attention row, κ the excess
kurtosis of a row over the keys that it sees, u_a the centred vector of an anchor:

    early queries   κ(α_q) · <Δ_q/|Δ_q|, u_a>      guarded: κ(α̃_q) · <Δ_q/|stream_q|, u_a>
    late queries    (S_m − S_others) · <Δ_q, ∇_m>   guarded: (A_m − A_others) · <Δ_q, ∇_m>

α̃ is the row without sinks. S_m is the mean attention score (q·k / √d, less the row's mean) at the
places where the chain listed label m before q, A_m the share of α̃ that lies there, ∇_m the gradient
of logit(m) − logsumexp(the other members). Each member of a decision is put in gold's place, as the
null needs it; gold is the first.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from math import prod
from typing import Any, cast

import numpy as np
import pandas as pd
import torch
from einops import einsum
from jaxtyping import Bool, Float
from torch import Tensor

from workbench.analysis.chains.reading import ChainReading, ChainSettings
from workbench.analysis.readout import widen
from workbench.analysis.scores.attribution import check_whole, frozen_parameters
from workbench.errors import InputError
from workbench.models.hooked import HookedModel

EARLY = ("coarse_chain", "coarse_chain_guarded", "write_cosine", "write_share")
LATE = ("refine_chain", "refine_chain_guarded", "qk_shortlist", "qk_near", "ov_margin")
STAGED = ("qk_shortlist", "qk_near", "cos_margin")
COLUMNS = ["part", "group", "member", "layer", "head", "value"]
WRITES_AT_ONCE = 64
"""Queries whose writes are made together."""


def excess_kurtosis(
    rows: Float[Tensor, "*any key"], seen: Bool[Tensor, "*#any key"]
) -> Float[Tensor, "*any"]:
    """m4 / m2² − 3 over the keys seen, as `scipy.stats.kurtosis`; 0 where all are equal."""
    seen = seen.expand_as(rows)
    count = seen.sum(-1).clamp(min=1)
    mean = (rows * seen).sum(-1) / count
    off = (rows - mean[..., None]) * seen
    second, fourth = off.square().sum(-1) / count, off.pow(4).sum(-1) / count
    # Rows that are equal up to rounding have no shape.
    flat = second <= (1e-6 * mean).square()
    return torch.where(flat, 0.0, fourth / second.square().clamp(min=1e-38) - 3)


@dataclass
class _Queries:
    """Positions of the queries, and what is known of them before the second forward."""

    early: list[int]
    compared: list[list[int]]
    """Of each decision, chain tokens after its shortlist."""
    late: list[Bool[Tensor, " _"]]
    """Which of these are late."""
    stage: list[Tensor]
    gradient: list[Float[Tensor, "_ _ _"]] = field(default_factory=list)
    sinks: list[int] = field(default_factory=list)


def chain_parts(model: HookedModel, reading: ChainReading, given: ChainSettings) -> pd.DataFrame:
    """All parts of one chain, long: columns `COLUMNS`.

    Parts in `EARLY`: group 0 is the evidence, then a group per family, the mean over early queries
    of the product with the group's vector; "gram" (head −1) holds the vectors' dot products (group
    by member) of each layer. "kurtosis" and "kurtosis_guarded": means over early queries. Parts in
    `LATE`: group is the decision, member the label in gold's place, mean over late queries;
    "n_late" (layer and head −1) counts them. `STAGED` parts, with "stage " before them: group is
    the stage, member the decision, mean over its queries there, gold in its place.

    NaN where the way from heads to the residual stream is not known, and QK where a sliding window
    hides the shortlist.

    Raises:
        InputError: a chain that the model cannot run, or a layer that shows no attention.
    """
    model.check_sequences([reading.tokens])
    queries = _queries(reading, given)
    _ = model.ways  # found by a forward of its own, which must not run inside this one's hooks
    _prepare(model, reading, given, queries)
    found: dict[int, list[tuple[str, int, int, int, Tensor]]] = {}
    kept: dict[str, Tensor] = {}
    every = sorted(
        {reading.query(at) for at in queries.early}
        | {reading.query(at) for tokens in queries.compared for at in tokens}
    )

    def keep(layer: int, name: str, tensor: Tensor, hook: Any) -> None:
        if name == "stream":
            check_whole(model, tensor, len(reading.tokens))
            kept.clear()
            kept[name] = widen(tensor[0])
        else:
            at = tensor[0][:, every] if name in ("scores", "pattern") else tensor[0][every]
            kept[name] = widen(at)
        if name == "projected":
            found[layer] = _layer(model, layer, reading, given, queries, every, kept)

    points = {
        "stream": "hook_resid_pre", "scores": "attn.hook_attn_scores",
        "pattern": "attn.hook_pattern", "z": "attn.hook_z", "projected": "attn.o.hook_out",
    }  # fmt: skip
    if every:
        hooks = [
            (f"blocks.{layer}.{point}", partial(keep, layer, name))
            for layer in range(model.info.n_layers)
            for name, point in points.items()
        ]
        tokens = torch.tensor([reading.tokens], device=model.device)
        try:
            model.logits_at(tokens, [len(reading.tokens) - 1], hooks)
        except KeyError as missing:
            raise InputError(
                f"model {model.info.name!r} shows no attention {missing.args[0]} in some layer"
            ) from None
    rows = [row for layer in sorted(found) for row in found[layer]]
    rows += [("n_late", at, 0, -1, late.sum()[None]) for at, late in enumerate(queries.late)]
    heads = [range(len(row[-1])) if len(row[-1]) > 1 else [-1] for row in rows]
    columns: dict[str, Any] = {
        name: np.repeat(np.array([row[at] for row in rows]), [len(head) for head in heads])
        for at, name in enumerate(("part", "group", "member", "layer"))
    }
    columns["head"] = np.concatenate([np.array(head, int) for head in heads])
    columns["value"] = torch.cat([row[-1].cpu().double() for row in rows]).numpy()
    return pd.DataFrame(columns).reindex(columns=COLUMNS)


def _queries(reading: ChainReading, given: ChainSettings) -> _Queries:
    late = set(reading.late(given))
    compared = [reading.compared(at) for at in range(len(reading.decisions))]
    return _Queries(
        reading.early(given),
        compared,
        [torch.tensor([at in late for at in tokens], dtype=torch.bool) for tokens in compared],
        [torch.tensor([given.stage(at) for at in tokens]) for tokens in compared],
    )


def _prepare(
    model: HookedModel, reading: ChainReading, given: ChainSettings, queries: _Queries
) -> None:
    """The first forward: gradients of all margins at the final residual stream, and the sinks."""
    n_layers = model.info.n_layers
    attended = torch.zeros(len(reading.tokens), dtype=torch.float64)
    leaves: list[Tensor] = []

    def attend(pattern: Tensor, hook: Any) -> None:
        rows = widen(pattern[0])[:, max(reading.start - 1, 0) :]
        attended.add_(rows.mean(dim=(0, 1)).cpu().double() / n_layers)

    def leaf(stream: Tensor, hook: Any) -> Tensor:
        leaves.append(stream.detach().requires_grad_(True))
        return leaves[-1]

    hooks: list[Any] = [(f"blocks.{layer}.attn.hook_pattern", attend) for layer in range(n_layers)]
    hooks.append((f"blocks.{n_layers - 1}.hook_resid_post", leaf))
    asked = sorted({at for tokens in queries.compared for at in tokens})
    positions = [reading.query(at) for at in asked] or [len(reading.tokens) - 1]
    with frozen_parameters(model.bridge):
        tokens = torch.tensor([reading.tokens], device=model.device)
        logits = widen(model.logits_at(tokens, positions, hooks, grad=True)[0])
        # A token is of one decision, so one gradient serves all decisions for each member.
        margins: dict[int, list[Tensor]] = {}
        for decision, compared in zip(reading.decisions, queries.compared, strict=True):
            rows = logits[[asked.index(at) for at in compared]]
            members = reading.members(decision) if compared else ()
            said = [rows[:, list(reading.labels[at].next_tokens)].logsumexp(-1) for at in members]
            for member, one in enumerate(said):
                others = torch.stack([*said[:member], *said[member + 1 :]]).logsumexp(0)
                margins.setdefault(member, []).append((one - others).sum())
        sums = {member: cast(Tensor, sum(parts)) for member, parts in margins.items()}
        gradients = {
            member: torch.autograd.grad(total, leaves[0], retain_graph=True)[0][0]
            for member, total in sums.items()
        }
    for decision, compared in zip(reading.decisions, queries.compared, strict=True):
        at = [reading.query(token) for token in compared]
        members = reading.members(decision) if compared else ()
        own = [widen(gradients[member][at]) for member in range(len(members))]
        queries.gradient.append(torch.stack(own) if own else torch.empty(0, 0, 0))
    heavy = (attended[: reading.start] >= given.sink_share).nonzero().flatten().tolist()
    queries.sinks = sorted({0, *heavy})


def _layer(
    model: HookedModel,
    layer: int,
    reading: ChainReading,
    given: ChainSettings,
    queries: _Queries,
    every: Sequence[int],
    kept: dict[str, Tensor],
) -> list[tuple[str, int, int, int, Tensor]]:
    """The parts of one layer: (part, group, member, layer, value of each head)."""
    scores, pattern, stream = kept["scores"], kept["pattern"], kept["stream"]
    rows: list[tuple[str, int, int, int, Tensor]] = []
    places = torch.tensor(every, device=pattern.device)
    keys = torch.arange(pattern.shape[-1], device=pattern.device)
    seen = (keys <= places[:, None]) & (scores > torch.finfo(scores.dtype).min / 4).all(dim=0)
    free = seen.clone()
    free[:, queries.sinks] = False
    written = _writes(model, layer, kept["z"], kept["projected"])

    early = [every.index(reading.query(at)) for at in queries.early]
    if early:
        anchors = _anchors(model, reading, given, stream)
        unit = torch.nn.functional.normalize(written[early], dim=-1)
        share = written[early] / stream[places[early]].norm(dim=-1)[:, None, None]
        sharp = excess_kurtosis(pattern[:, early], seen[early])
        sharp_free = excess_kurtosis(pattern[:, early], free[early])
        one = torch.ones_like(sharp)
        factors = ((sharp, unit), (sharp_free, share), (one, unit), (one, share))
        for part, (weight, write) in zip(EARLY, factors, strict=True):
            mean = einsum(weight, write, "head query, query head d -> head d") / len(early)
            for group, value in enumerate(einsum(anchors, mean, "group d, head d -> group head")):
                rows.append((part, group, 0, layer, value))
        for group, dots in enumerate(anchors @ anchors.T):
            rows += [("gram", group, at, layer, dot[None]) for at, dot in enumerate(dots)]
        rows.append(("kurtosis", 0, 0, layer, sharp.mean(dim=-1)))
        rows.append(("kurtosis_guarded", 0, 0, layer, sharp_free.mean(dim=-1)))

    # What later blocks multiply the whole stream by.
    carried = prod(way.carry for way in model.ways[layer:] if way is not None)
    centred = scores - (scores * seen).sum(-1, keepdim=True) / seen.sum(-1)[:, None]
    free_rows = pattern * free
    free_rows = free_rows / free_rows.sum(-1, keepdim=True).clamp(min=1e-9)
    for number, (decision, tokens) in enumerate(
        zip(reading.decisions, queries.compared, strict=True)
    ):
        if not tokens:
            continue
        at = [every.index(reading.query(token)) for token in tokens]
        listed = torch.zeros(len(reading.members(decision)), len(keys), device=keys.device)
        for member, label in enumerate(reading.members(decision)):
            for start, end in reading.labels[label].listed:
                listed[member, start:end] = 1
        visible = listed[:, None] * seen[at]  # member query key
        similar = (
            einsum(
                torch.where(seen[at], centred[:, at], 0),
                visible,
                "head q key, member q key -> member head q",
            )
            / visible.sum(-1)[:, None]
        )
        share = einsum(free_rows[:, at], visible, "head q key, member q key -> member head q")
        gradient = queries.gradient[number].to(written) * carried
        moved = einsum(written[at], gradient, "q head d, member q d -> member head q")
        others = _others(similar)
        late = queries.late[number].to(keys.device)
        if late.any():
            values = (
                (similar - others) * moved, (share - _others(share)) * moved,
                similar, others, moved,
            )  # fmt: skip
            for part, value in zip(LATE, values, strict=True):
                for member, mean in enumerate(value[..., late].nanmean(dim=-1)):
                    rows.append((part, number, member, layer, mean))
        size = written[at].norm(dim=-1).T * gradient[0].norm(dim=-1)
        cosine = torch.where(size > 0, moved[0] / size, 0)
        for stage in queries.stage[number].unique().tolist():
            here = (queries.stage[number] == stage).to(keys.device)
            for part, value in zip(STAGED, (similar[0], others[0], cosine), strict=True):
                mean = value[:, here].nanmean(dim=-1)
                rows.append((f"stage {part}", stage, number, layer, mean))
    return rows


def _others(values: Float[Tensor, "member head q"]) -> Float[Tensor, "member head q"]:
    """For each member the mean of the others."""
    return (values.sum(dim=0) - values) / max(len(values) - 1, 1)


def _writes(
    model: HookedModel,
    layer: int,
    z: Float[Tensor, "q head d_head"],
    projected: Float[Tensor, "q d_model"],
) -> Float[Tensor, "q head d_model"]:
    """What each head adds to the residual stream; NaN where that is not known."""
    weights = model.bridge.blocks[layer].attn.W_O.detach()
    way = model.ways[layer]
    parts = []
    for start in range(0, len(z), WRITES_AT_ONCE):
        at = slice(start, start + WRITES_AT_ONCE)
        out = einsum(z[at], weights.to(z), "q head d_head, head d_head d -> q head d")
        if way is None or not way.splits:
            out = torch.full_like(out, torch.nan)
        else:
            out = out * way.scale(projected[at]).to(out)[:, None]
        parts.append(out)
    return torch.cat(parts)


def _anchors(
    model: HookedModel,
    reading: ChainReading,
    given: ChainSettings,
    stream: Float[Tensor, "position d_model"],
) -> Float[Tensor, "group d_model"]:
    """The evidence's vector, then each family's: means over phrases of means over tokens.

    Centred by the mean over the document's tokens behind the first, which is a sink. A group
    without a phrase is 0.
    """
    if given.anchor == "unembedding":
        weights: Any = model.bridge.original_model.get_output_embeddings()  # type: ignore[operator]
        stream = widen(weights.weight[list(reading.tokens)].detach()).to(stream)
    centred = stream - stream[1 : reading.start].mean(dim=0)
    groups = [list(reading.evidence)]
    groups += [
        [span for label in reading.labels if label.family == family for span in label.document]
        for family in range(reading.n_families)
    ]
    vectors = [
        torch.stack([centred[slice(*span)].mean(dim=0) for span in spans]).mean(dim=0)
        if spans
        else torch.zeros_like(centred[0])
        for spans in groups
    ]
    return torch.stack(vectors)
