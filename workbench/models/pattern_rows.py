"""Attention rows of a run: where each head looks from some positions."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from workbench.errors import InputError
from workbench.models.hooked import HookedModel


@torch.no_grad()
def attention_rows(
    model: HookedModel, tokens: Sequence[int], queries: Sequence[int]
) -> list[Float[Tensor, "head query key"]]:
    """Attention patterns of every layer's heads at some positions of a plain run.

    Of the bridge's own eager attention, one layer's whole pattern at a time.

    Raises:
        InputError: tokens that the model cannot run, or a layer that shows no pattern.
    """
    model.check_sequences([tokens])
    kept: dict[int, Tensor] = {}
    at = torch.tensor(list(queries), dtype=torch.long)

    def keep(layer: int, pattern: Tensor, hook: Any) -> None:
        kept[layer] = pattern[0, :, at.to(pattern.device)].clone()

    layers = range(model.info.n_layers)
    hooks = [(f"blocks.{layer}.attn.hook_pattern", partial(keep, layer)) for layer in layers]
    ids = torch.tensor([list(tokens)], device=model.device)
    model.logits_at(ids, [len(tokens) - 1], hooks)
    silent = [layer for layer in layers if layer not in kept]
    if silent:
        raise InputError(
            f"model {model.info.name!r} shows no attention pattern in layer {silent[0]}; patch z"
        )
    return [kept[layer] for layer in layers]
