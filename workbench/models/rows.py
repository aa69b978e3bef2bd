"""The same prompt many times in one batch, each row with its own heads patched over a span.

1. Run the prompt once and record, for every decoder block, the residual that enters it and the
   other arguments it is called with (mask, positions).
2. Sort the rows by the lowest layer they patch. A row joins the batch at that layer: below it
   nothing differs from the recorded run, so nothing is computed.
3. Call the blocks one by one on the growing batch, replacing each row's heads on the way.
4. Hand the last position of the result to the model's own final norm and unembedding, in a forward
   of one token per row, whatever scaling or capping of logits the architecture has.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from workbench.models.hooked import Head, HookedModel
from workbench.models.hooks import Hook, constant, replace_z

Group = Sequence[Head]
"""Heads that are patched together, in one row."""


@dataclass(frozen=True)
class BlockCalls:
    """What each decoder block was given in one run of the prompt, and that run's last logits."""

    residuals: list[Float[Tensor, "1 position d_model"]]
    arguments: list[tuple[tuple[Any, ...], dict[str, Any]]]
    logits: Float[Tensor, " d_vocab"]


@torch.no_grad()
def patch_rows(
    model: HookedModel,
    base: Sequence[int],
    source: Float[Tensor, "layer position head d_head"],
    groups: Sequence[Group],
    *,
    row_tokens: int,
) -> Float[Tensor, "group d_vocab"]:
    """Logits at the last token of `base`, for each group with its heads replaced over a span.

    `source` holds the replacing `hook_z` for the last `position` tokens. A batch holds at most
    `row_tokens` tokens (always at least one row), which bounds memory and changes no result.
    """
    calls = record_blocks(model, base)
    logits = calls.logits.repeat(len(groups), 1)
    lowest = [min((layer for layer, _ in group), default=model.info.n_layers) for group in groups]
    patched = [row for row in range(len(groups)) if groups[row]]
    patched.sort(key=lambda row: lowest[row])
    resumable = model.supports("resumed forward", lambda: _resume_probe(model))
    pack_size = max(1, row_tokens // len(base))
    for start in range(0, len(patched), pack_size):
        pack = patched[start : start + pack_size]
        pack_groups = [groups[row] for row in pack]
        if resumable:
            starts = [lowest[row] for row in pack]
            logits[pack] = _resumed_rows(model, base, calls, source, pack_groups, starts)
        else:
            logits[pack] = _full_rows(model, base, source, pack_groups)
    return logits


@torch.no_grad()
def record_blocks(model: HookedModel, base: Sequence[int]) -> BlockCalls:
    """Run the prompt once, recording the call of every decoder block."""
    residuals: list[Tensor] = []
    arguments: list[tuple[tuple[Any, ...], dict[str, Any]]] = []

    def record(block: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        rest = dict(kwargs)
        residuals.append(args[0] if args else rest.pop("hidden_states"))
        arguments.append((args[1:], rest))

    handles = [
        block.register_forward_pre_hook(record, with_kwargs=True) for block in model.bridge.blocks
    ]
    try:
        tokens = torch.tensor([list(base)], device=model.device)
        logits = model.logits_at(tokens, [len(base) - 1])[0, 0]
    finally:
        for handle in handles:
            handle.remove()
    return BlockCalls(residuals, arguments, logits)


def _resumed_rows(
    model: HookedModel,
    base: Sequence[int],
    calls: BlockCalls,
    source: Tensor,
    groups: Sequence[Group],
    starts: Sequence[int],
) -> Tensor:
    """Rows that join at `starts`, which ascend."""
    batch = calls.residuals[starts[0]][:0]
    for layer in range(starts[0], model.info.n_layers):
        joining = sum(start <= layer for start in starts) - len(batch)
        residual = calls.residuals[layer]
        batch = torch.cat([batch.to(residual.device), residual.expand(joining, -1, -1)])
        args, kwargs = calls.arguments[layer]
        with model.bridge.hooks(fwd_hooks=_row_hooks(source, groups, layer, len(base))):
            output = model.bridge.blocks[layer](batch, *args, **kwargs)
        batch = output[0] if isinstance(output, tuple) else output
    return _logits_of(model, batch[:, -1:], base[-1])


def _row_hooks(source: Tensor, groups: Sequence[Group], layer: int, length: int) -> list[Hook]:
    """Hook that replaces this layer's heads, each in the row of its group; none if none is here."""
    cells = [(row, at[1]) for row, group in enumerate(groups) for at in group if at[0] == layer]
    if not cells:
        return []
    rows, heads = torch.tensor(cells, device=source.device).T
    span = torch.arange(length - source.shape[1], length, device=source.device)
    value = source[layer].transpose(0, 1)[heads]  # cell position d_head
    return [replace_z(layer, (rows[:, None], span[None, :], heads[:, None]), value)]


def _logits_of(
    model: HookedModel, residual: Float[Tensor, "row 1 d_model"], token: int
) -> Float[Tensor, "row d_vocab"]:
    """Logits of final residuals: one-token rows whose last block's output is replaced by them."""
    tokens = torch.full((len(residual), 1), token, device=model.device)
    last = f"blocks.{model.info.n_layers - 1}.hook_resid_post"
    return model.logits_at(tokens, [0], [constant(last, residual)])[:, 0]


def _full_rows(
    model: HookedModel, base: Sequence[int], source: Tensor, groups: Sequence[Group]
) -> Tensor:
    """The same rows through whole forwards, for blocks that cannot be called on their own."""
    tokens = torch.tensor([list(base)] * len(groups), device=model.device)
    hooks = [
        hook
        for layer in range(model.info.n_layers)
        for hook in _row_hooks(source, groups, layer, len(base))
    ]
    return model.logits_at(tokens, [len(base) - 1], hooks)[:, 0]


def _resume_probe(model: HookedModel) -> tuple[Tensor, Tensor]:
    """Two unpatched rows, one from the first block and one from the last, against a plain run."""
    tokens = [index % model.info.d_vocab for index in range(8)]
    calls = record_blocks(model, tokens)
    starts = [0, model.info.n_layers - 1]
    nothing = calls.residuals[0].new_zeros(model.info.n_layers, 0, 1, 1)
    rows = _resumed_rows(model, tokens, calls, nothing, [(), ()], starts)
    return rows, calls.logits.expand_as(rows)
