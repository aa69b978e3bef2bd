"""What every head of a model does on one decision event, from one clean run.

Of each head: the attention rows of a few query tokens, how much attention goes from each region of
the prompt to each other one, how each option and the evidence look at one another, and what the
head writes at the decision straight onto each option's logit.

*Regions* part the tokens of the clean prompt: the evidence, the options of each role, the first
token (where many heads look when they have nothing else to do), the decision token, and the rest.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
import torch
from einops import einsum
from jaxtyping import Float
from torch import Tensor

from workbench.analysis.looks.straight import Straight
from workbench.analysis.readout import select_options, widen
from workbench.analysis.scores.attention import decision_mass, evidence_routes
from workbench.analysis.scores.attribution import (
    added_to_stream,
    check_whole,
    head_outputs,
    projection_hooks,
)
from workbench.errors import InputError
from workbench.heads import Head, as_head, head_name
from workbench.models.hooked import HookedModel
from workbench.models.hooks import Hook
from workbench.models.pattern_rows import attention_rows
from workbench.prompts.given_chains import step_ends
from workbench.prompts.prompt import ROLES, DecisionEvent, as_event

DECISION, EVIDENCE, FIRST, REST = "decision", "evidence", "first token", "rest"
REGIONS = (EVIDENCE, *ROLES, FIRST, DECISION, REST)
MOST_BYTES = 512 * 2**20
"""Whole attention patterns are kept while all of them, in half precision, are no larger."""

Query = tuple[str, int]
"""Name and position of a token that looks at others."""


@dataclass(frozen=True, repr=False)
class Look:
    """What one head does on one event; numbers only, no text and no token.

    `summary` has a row per region that asks and a column per region that is looked at: mean
    attention mass, so that a row sums to 1; the first token can look at itself only, and has no
    row. `options` has the columns label, role, reads_evidence (mass that the option's tokens put on
    the evidence, mean over them), read_by_evidence (mass that the evidence's tokens put on the
    option), read_at_decision (mass that the decision puts on it), and logit (what the head adds at
    the decision straight to the option's logit, the norms as they are in this run).
    """

    layer: int
    head: int
    id: str
    event: int
    queries: tuple[Query, ...]
    weights: Float[np.ndarray, "query token"]
    """Attention of the clean run from each of `queries`."""
    regions: tuple[str, ...]
    """Region of each token."""
    summary: pd.DataFrame
    options: pd.DataFrame
    kv_head: int
    """The key and value head that it reads through."""
    notes: tuple[str, ...] = ()
    """What is not known of this head, and why; what it shares with others."""

    @property
    def name(self) -> str:
        """The head's name, `3-0`."""
        return head_name(self.layer, self.head)

    def __repr__(self) -> str:
        """A few lines: attention between regions, and what it writes on options of each role."""
        numbers: Any = self.options.drop(columns="label").groupby("role", sort=False).mean()
        numbers = numbers.reindex([role for role in ROLES if role in numbers.index])
        return "\n".join(
            [
                f"head {self.name} on prompt {self.id!r}, event {self.event}",
                *self.notes,
                "attention from × to",
                self.summary.round(2).to_string(),
                "options, means by role",
                numbers.round(2).to_string(),
            ]
        )


@dataclass(frozen=True)
class Looks:
    """All heads on one event; made once by `of`, and then read head by head in milliseconds."""

    model: HookedModel = field(repr=False)
    event: DecisionEvent = field(repr=False)
    queries: tuple[Query, ...]
    rows: list[Float[Tensor, "head query token"]] = field(repr=False)
    """Attention of each layer from each of `queries`."""
    masses: Float[Tensor, "layer head asks looked_at"] = field(repr=False)
    """Attention from region to region, in the order of `REGIONS`; NaN where no token asks."""
    routes: Float[Tensor, "layer way option head"] = field(repr=False)
    """Reads evidence, read by evidence, read at decision."""
    writes: Float[Tensor, "layer head option"] = field(repr=False)
    """Added to the options' logits at the decision; NaN where it is not known."""
    straight: Straight = field(repr=False)
    logits: Float[Tensor, " option"] = field(repr=False)
    """The model's own."""
    patterns: list[Float[Tensor, "head token token"]] = field(repr=False)
    """Whole, in half precision; empty where they are too large to keep."""
    further: dict[int, list[Tensor]] = field(default_factory=dict, repr=False)

    @classmethod
    @torch.no_grad()
    def of(
        cls, model: HookedModel, event: DecisionEvent, *, most_bytes: int = MOST_BYTES
    ) -> "Looks":
        """Run the clean prompt once.

        Raises:
            InputError: a prompt that the model cannot run, or a layer that shows no attention.
        """
        tokens, info = list(as_event(event).clean), model.info
        model.check_sequences([tokens])
        ways = model.ways  # found by a forward of its own, before this one's hooks
        queries = query_tokens(event, event.tokenizer or model.tokenizer)
        whole = 2 * info.n_layers * info.n_heads * len(tokens) ** 2 <= most_bytes
        regions = region_of_tokens(event)
        found = _Found(queries, _masks(regions), event, whole)
        z: list[Tensor] = [torch.empty(0)] * info.n_layers
        projected: list[Tensor] = [torch.empty(0)] * info.n_layers
        stream: list[Tensor] = []

        def keep(layer: int, tensor: Tensor, hook: Any) -> None:
            check_whole(model, tensor, len(tokens))
            z[layer] = widen(tensor[0, -1].detach())

        def end(tensor: Tensor, hook: Any) -> None:
            stream.append(tensor[0, -1].detach())

        layers = range(info.n_layers)
        hooks: list[Hook] = [
            (f"blocks.{at}.attn.hook_pattern", partial(found.reduce, at)) for at in layers
        ]
        hooks += [(f"blocks.{at}.attn.hook_z", partial(keep, at)) for at in layers]
        hooks += [*projection_hooks(info.n_layers, projected)]
        hooks.append((f"blocks.{info.n_layers - 1}.hook_resid_post", end))
        try:
            ids = torch.tensor([tokens], device=model.device)
            logits = model.logits_at(ids, [len(tokens) - 1], hooks)[0, -1]
        except KeyError as missing:
            raise InputError(f"model {info.name!r} has no {missing.args[0]}") from None
        if silent := [at for at in layers if at not in found.rows]:
            raise InputError(f"model {info.name!r} shows no attention in layer {silent[0]}")
        logits = select_options(logits, event)
        straight = Straight.of(model, stream[-1], event.option_tokens, logits)
        device = z[0].device
        z = [one.to(device) for one in z]
        written = head_outputs(torch.stack(z), model.output_weights())
        added = added_to_stream(ways, written, [one.to(device) for one in projected])
        carried = [_carried(ways, at) for at in layers]
        added = added * torch.tensor(carried, device=device)[:, None, None]
        return cls(
            model,
            event,
            queries,
            [found.rows[at] for at in layers],
            torch.stack([found.masses[at] for at in layers]),
            torch.stack([found.routes[at] for at in layers]),
            straight(added).cpu(),
            straight,
            logits.cpu(),
            [found.patterns[at] for at in layers] if whole else [],
        )

    def look(self, head: Head | str) -> Look:
        """One head.

        Raises:
            InputError: a head that the model does not have.
        """
        layer, number = self._checked(head)
        event, info = self.event, self.model.info
        share = info.n_heads // info.n_kv_heads
        summary = pd.DataFrame(
            self.masses[layer, number].numpy(),
            index=pd.Index(REGIONS, name="from"),
            columns=list(REGIONS),
        )
        there = summary.notna().all(axis=1)
        names = ("reads_evidence", "read_by_evidence", "read_at_decision")
        options = pd.DataFrame(
            {
                "label": [option.label for option in event.options],
                "role": [option.role for option in event.options],
                **dict(zip(names, self.routes[layer, :, :, number].numpy(), strict=True)),
                "logit": self.writes[layer, number].numpy(),
            }
        )
        return Look(
            layer,
            number,
            event.id,
            event.event,
            self.queries,
            self.rows[layer][number].numpy(),
            tuple(region_of_tokens(event)),
            summary.loc[there & (summary.index != FIRST), summary.columns[there]],
            options,
            number // share,
            tuple(self._notes(layer, number, share)),
        )

    def row(self, head: Head | str, position: int) -> Float[np.ndarray, " token"]:
        """Attention from any token of the clean prompt.

        Read from the whole patterns where they are kept; else a forward, once for all heads.

        Raises:
            InputError: a head that the model does not have, or a position outside the prompt.
        """
        layer, number = self._checked(head)
        if not 0 <= position < len(self.event.clean):
            raise InputError(
                f"position {position} is outside the clean prompt of {len(self.event.clean)} tokens"
            )
        for at, (_, place) in enumerate(self.queries):
            if place == position:
                return self.rows[layer][number, at].numpy()
        if self.patterns:
            return self.patterns[layer][number, position].float().numpy()
        if position not in self.further:
            made = attention_rows(self.model, self.event.clean, [position])
            self.further[position] = [rows[:, 0].float().cpu() for rows in made]
        return self.further[position][layer][number].numpy()

    def _checked(self, head: Head | str) -> Head:
        layer, number = as_head(head)
        self.model.check_head(layer, number)
        return layer, number

    def _notes(self, layer: int, head: int, share: int) -> list[str]:
        notes = []
        if share > 1:
            first = head // share * share
            others = [head_name(layer, at) for at in range(first, first + share) if at != head]
            notes.append(f"shares its keys and values with {', '.join(others)}")
        if self.straight.unknown:
            notes.append(
                "what heads write on the logits is not known of this model: "
                + self.straight.unknown
            )
        elif bool(self.writes[layer, head].isnan().any()):
            notes.append(
                "what this head writes on the logits is not known: what lies between it and the "
                "final residual stream is not"
            )
        return notes


def look(model: HookedModel, event: DecisionEvent, head: Head | str) -> Look:
    """What one head does on one event; `Looks.of` shares the run among heads.

    Raises:
        InputError: a prompt that the model cannot run, or a head that it does not have.
    """
    model.check_head(*as_head(head))
    return Looks.of(model, event).look(head)


def query_tokens(event: DecisionEvent, tokenizer: Any = None) -> tuple[Query, ...]:
    """The tokens whose attention is kept: the decision, the last ones of evidence and options.

    Where the prompt holds a chain of thought, the last token of each of its steps, too.
    """
    queries = [(DECISION, len(event.clean) - 1), (EVIDENCE, event.evidence[1] - 1)]
    if event.fine_evidence:
        queries.append(("fine evidence", event.fine_evidence[1] - 1))
    queries += [(f"{one.role} {one.label}", one.span[1] - 1) for one in event.options]
    ends = step_ends(event, tokenizer)
    return (*queries, *((f"step {at}", end) for at, end in enumerate(ends, start=1)))


def region_of_tokens(event: DecisionEvent) -> list[str]:
    """The region of each token of the clean prompt; evidence counts before options."""
    regions = [REST] * len(event.clean)
    regions[0] = FIRST
    regions[-1] = DECISION
    spans = [(one.span, str(one.role)) for one in event.options]
    for span, name in [*spans, (event.evidence, EVIDENCE)]:
        regions[slice(*span)] = [name] * (span[1] - span[0])
    return regions


def _masks(regions: Sequence[str]) -> Float[Tensor, "region token"]:
    return torch.tensor([[float(name == one) for one in regions] for name in REGIONS])


def _carried(ways: Sequence[Any], layer: int) -> float:
    """What later blocks, and this one, multiply the whole stream by; NaN where not known."""
    product = 1.0
    for way in ways[layer:]:
        product *= torch.nan if way is None else way.carry
    return product


class _Found:
    """What is kept of each layer's pattern, inside its hook."""

    def __init__(
        self, queries: Sequence[Query], masks: Tensor, event: DecisionEvent, whole: bool
    ) -> None:
        self.places = [place for _, place in queries]
        self.masks, self.event, self.whole = masks, event, whole
        self.rows: dict[int, Tensor] = {}
        self.masses: dict[int, Tensor] = {}
        self.routes: dict[int, Tensor] = {}
        self.patterns: dict[int, Tensor] = {}

    def reduce(self, layer: int, pattern: Tensor, hook: Any) -> None:
        rows = widen(pattern[0].detach())
        masks = self.masks.to(rows)
        seen = einsum(rows, masks, "head query key, region key -> head query region")
        asks = masks / masks.sum(dim=1, keepdim=True)  # NaN where no token does
        self.masses[layer] = einsum(
            asks, seen, "asks query, head query looked_at -> head asks looked_at"
        ).cpu()
        spans = [option.span for option in self.event.options]
        routes = [*evidence_routes(rows, spans, self.event.evidence), decision_mass(rows, spans)]
        self.routes[layer] = torch.stack(routes).cpu()
        self.rows[layer] = rows[:, self.places].float().cpu()
        if self.whole:
            self.patterns[layer] = rows.half().cpu()
