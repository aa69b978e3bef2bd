"""The attention implementations that the workbench registers with transformers.

Set on a model as `NAME`, it is torch's scaled_dot_product_attention as transformers itself calls
it, with two ways to take part, each an attribute of the attention module:

- `STEERED`: a function that computes attention in place of it. It gets the rule of the mask, not a
  mask, since it may attend to keys from elsewhere (see `steered`).
- `KEPT`: a list that takes what attention was computed from. Appending is all that a compiled
  block has to do, so it stays one graph (see `distill/reading/capture`).

A model that computes attention in another way keeps it: `keeping` names an implementation that is
that one, and can be `KEPT`.
"""

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from transformers import AttentionInterface, PretrainedConfig, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import (
    ALL_MASK_ATTENTION_FUNCTIONS,
    AttentionMaskInterface,
    causal_mask_function,
    sdpa_mask,
)
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

NAME = "workbench"
STEERED = "workbench_steered"
KEPT = "workbench_kept"

MaskFunction = Callable[[Any, Any, Tensor, Tensor], Tensor]
"""(batch, head, query position, key position) → may attend; transformers' form of a mask."""


@dataclass(frozen=True)
class Attention:
    """What one layer's attention is given, after rotary embeddings and head norms."""

    query: Float[Tensor, "row head position d_head"]
    key: Float[Tensor, "row kv_head position d_head"]
    value: Float[Tensor, "row kv_head position d_head"]
    scaling: float
    softcap: float | None
    may_attend: MaskFunction

    @property
    def plain(self) -> bool:
        """Whether every query sees all keys up to its own position."""
        return self.may_attend is causal_mask_function

    def mask(
        self, queries: Int[Tensor, "*row query"], keys: Int[Tensor, "*row key"]
    ) -> Bool[Tensor, "*row query key"]:
        """Which of the keys at these positions each query may attend."""
        zero = torch.zeros((), dtype=torch.long, device=queries.device)
        allowed = self.may_attend(zero, zero, queries[..., :, None], keys[..., None, :])
        return allowed.expand(*queries.shape, keys.shape[-1])


class Kept(NamedTuple):
    """What attention was computed from, and what it gave."""

    query: Float[Tensor, "batch head token d_head"]
    key: Float[Tensor, "batch kv_head key d_head"]
    value: Float[Tensor, "batch kv_head key d_value"]
    mask: Any
    """Which keys may be seen (bool) or what is added (float), [_, _, token, key]; real keys of each
    example [batch, key], under a causal mask; None is causal."""
    scaling: float
    softcap: float | None
    window: int | None
    """Keys that a query sees, itself included, where `mask` does not say it."""
    z: Float[Tensor, "batch token head d_value"]


def keeping(attention: nn.Module, own: str | None) -> str:
    """Name of the implementation that computes what `own` does, and lets it be `KEPT`."""
    if own in ("sdpa", NAME):
        return NAME
    # It has the other's name in its own, by which transformers knows what masks flash kernels need.
    name = f"{NAME}_{own or 'eager'}"
    compute = ALL_ATTENTION_FUNCTIONS.get(own or "eager")
    if compute is None:  # eager attention is each architecture's own
        home = next(
            home
            for kind in type(attention).__mro__
            if hasattr(home := sys.modules[kind.__module__], "eager_attention_forward")
        )
        name = f"{name}_{home.__name__.rpartition('.')[2]}"
        compute = home.eager_attention_forward
    if name not in ALL_ATTENTION_FUNCTIONS:
        AttentionInterface.register(name, partial(_kept, compute))
        if (own or "eager") in ALL_MASK_ATTENTION_FUNCTIONS:
            AttentionMaskInterface.register(name, ALL_MASK_ATTENTION_FUNCTIONS[own or "eager"])
    return name


@contextmanager
def kept_attention(model: PreTrainedModel, attentions: Sequence[nn.Module]) -> Iterator[None]:
    """While it lasts, attention can be `KEPT`; what a model computes stays the same."""
    own = {id(config): config for config in _configs(model, attentions)}
    before = [(config, config._attn_implementation) for config in own.values()]
    try:
        for config, name in before:
            config._attn_implementation = keeping(attentions[0], name)
        yield
    finally:
        for config, name in before:
            config._attn_implementation = name


def _configs(model: PreTrainedModel, attentions: Sequence[nn.Module]) -> Iterator[Any]:
    """Those that the attention modules and the makers of their masks look at."""
    yield model.config.get_text_config()
    for module in attentions:
        if getattr(module, "config", None) is not None:
            yield module.config


def let_steer(model: PreTrainedModel) -> None:
    """Use the implementation in a model whose attention modules will all be `STEERED`."""
    model.set_attn_implementation(NAME)
    for config in (model.config, model.config.get_text_config()):
        setattr(config, STEERED, True)


def _attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Any,
    scaling: float | None = None,
    dropout: float = 0.0,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """What transformers calls in place of attention. A sliding window is part of the mask."""
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    steered = getattr(module, STEERED, None)
    if steered is not None:
        if not callable(attention_mask):
            raise TypeError("its masks are not made by transformers' mask functions")
        if any(kwargs.get(name) is not None for name in ("s_aux", "position_bias")):
            raise TypeError("its attention has sinks or biases")
        rule: Any = attention_mask
        z = steered(Attention(query, key, value, scale, kwargs.get("softcap"), rule))
        return z.contiguous(), None  # as transformers has it: some modules look at it as a `view`
    return _kept(
        sdpa_attention_forward,
        module,
        query,
        key,
        value,
        attention_mask,
        scaling=scaling,
        dropout=dropout,
        **kwargs,
    )


def _kept(
    compute: Callable[..., Any],
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Any,
    scaling: float | None = None,
    dropout: float = 0.0,
    **kwargs: Any,
) -> tuple[Tensor, Any]:
    """What an implementation gives; a module that is `KEPT` says from what."""
    z, weights = compute(
        module, query, key, value, attention_mask, scaling=scaling, dropout=dropout, **kwargs
    )
    kept = getattr(module, KEPT, None)
    if kept is not None:
        scale = query.shape[-1] ** -0.5 if scaling is None else scaling
        cap, window = kwargs.get("softcap"), kwargs.get("sliding_window")
        kept.append(Kept(query, key, value, attention_mask, scale, cap, window, z))
    return z, weights


def _mask(*, config: PretrainedConfig, mask_function: MaskFunction, **given: Any) -> Any:
    """The mask, or its rule for a model that is steered: who steers knows the keys' positions."""
    if getattr(config, STEERED, False):
        return mask_function
    return sdpa_mask(mask_function=mask_function, config=config, **given)


AttentionInterface.register(NAME, _attention)
AttentionMaskInterface.register(NAME, _mask)
