"""What later heads would put out if earlier heads had written something else, along one edge each.

The edge from a sender to a receiver carries the sender's change, (z_source − z) · W_O, straight
through the residual stream into the receiver's query, key or value; the receiver reads everything
else from the unpatched run (Wang et al. 2022, path patching with nothing in between recomputed).

1. Add each sender's change to the residual stream that enters the receiver's block, a row each.
2. Run the block as far as its queries, keys and values.
3. Per route, attend with that one part changed and the other two unpatched.
"""

from collections.abc import Collection, Sequence
from contextlib import suppress
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from workbench.errors import InputError
from workbench.heads import Head
from workbench.models.attention import Attention
from workbench.models.forked import FORKED, can_fork
from workbench.models.hooked import HookedModel
from workbench.models.prefix import Prefix
from workbench.models.shared_attention import over_prefix
from workbench.models.steered import Call, Job, Run, Taken

Route = Literal["q", "k", "v"]
ROUTES: tuple[Route, ...] = ("q", "k", "v")

Received = dict[tuple[int, Route], Float[Tensor, "sender position head d_head"]]
"""(receiving layer, route) → every head's changed output; senders at or above it change nothing."""


@torch.no_grad()
def receive(
    model: HookedModel,
    prefix: Prefix,
    source: Float[Tensor, "layer position head d_head"],
    senders: Sequence[Head],
    layers: Collection[int],
    routes: Collection[Route] = ROUTES,
) -> Received:
    """Outputs of all heads of some layers, for each sender's change along each route.

    `source` is the senders' `hook_z` in the other run over its last `position` tokens, which the
    prefix must have recorded. A change of keys or values reaches every query head of a group.

    Raises:
        InputError: a model that cannot fork, or one whose heads do not add z · W_O to the residual
            stream; or a source longer than what the prefix recorded.
    """
    check_paths(model, prefix.tokens)
    positions = source.shape[1]
    if positions > prefix.recorded:
        raise InputError(
            f"the source covers {positions} positions, the prefix recorded {prefix.recorded}"
        )
    job = _Receiving(model, prefix, source, senders, frozenset(layers), tuple(routes))
    start = len(prefix.tokens) - positions
    model.view.run(
        job,
        torch.tensor([prefix.tokens[-1:]], device=model.device),
        torch.arange(start, len(prefix.tokens), device=model.device)[None],
        [0],
    )
    return job.received


class _Receiving(Job):
    """Blocks run on made-up residuals, as far as attention."""

    def __init__(
        self,
        model: HookedModel,
        prefix: Prefix,
        source: Tensor,
        senders: Sequence[Head],
        layers: frozenset[int],
        routes: tuple[Route, ...],
    ) -> None:
        self.prefix = prefix
        self.positions = source.shape[1]
        self.senders = senders
        self.layers = layers
        self.routes = routes
        self.columns = torch.tensor([0])  # the logits are of no use
        self.changes = [_change(model, prefix, source, sender) for sender in senders]
        self.received: Received = {}

    def block(self, layer: int, run: Run, hidden: Tensor, call: Call) -> Any:
        """Taken apart where it receives; what leaves it does not matter."""
        if layer in self.layers:
            residual = self.prefix.residuals[layer][:, -self.positions :]
            changed = [
                change.to(residual) if sender[0] < layer else torch.zeros_like(residual[0])
                for change, sender in zip(self.changes, self.senders, strict=True)
            ]
            rows = torch.cat([residual, residual + torch.stack(changed)])
            with suppress(Taken):
                run(rows, call)
        return hidden

    def attend(self, layer: int, given: Attention) -> Float[Tensor, "row position head d_head"]:
        """Attention of every row with the first row's queries, keys and values but for one."""
        start = len(self.prefix.tokens) - self.positions
        at = torch.arange(start, start + self.positions, device=given.query.device)
        keys = torch.arange(start + self.positions, device=at.device)
        mask = None if given.plain else given.mask(at, keys)[None]
        shared = self.prefix.keys[layer][:, :, :start], self.prefix.values[layer][:, :, :start]
        count = len(self.senders)
        for route in self.routes:
            query, key, value = (
                part[1:] if name == route else part[:1].expand(count, -1, -1, -1)
                for name, part in zip(ROUTES, (given.query, given.key, given.value), strict=True)
            )
            changed = Attention(query, key, value, given.scaling, given.softcap, given.may_attend)
            self.received[layer, route] = over_prefix(
                changed, shared, (key, value), mask
            ).contiguous()
        raise Taken


def _change(
    model: HookedModel, prefix: Prefix, source: Tensor, sender: Head
) -> Float[Tensor, "position d_model"]:
    """What the sender would write more, over the last positions."""
    layer, head = sender
    before = prefix.z_by_layer[layer][-source.shape[1] :, head]
    weights = model.bridge.blocks[layer].attn.W_O[head]
    return (source[layer, :, head].to(before) - before) @ weights.to(before)


def check_paths(model: HookedModel, tokens: Sequence[int]) -> None:
    """Refuse models in which the edge between two heads is not z · W_O, at this prompt's length.

    Raises:
        InputError: the model cannot fork, or normalises or scales what its attention writes.
    """
    name = model.info.name
    if not can_fork(model, tokens):
        raise InputError(
            f"model {name!r} cannot run branches of {len(tokens)} tokens, so its paths cannot be "
            f"patched ({model.shortcuts[FORKED].reason})"
        )
    if not all(way is not None and way.plain for way in model.ways):
        raise InputError(
            f"model {name!r} normalises or scales what its heads write before adding it, so a path "
            "from one head into another is not defined by hook_z · W_O"
        )
