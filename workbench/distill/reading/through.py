"""What parts of a model's activations become in its linear modules, as the modules compute it.

A plain linear module is its weight, of which a few rows or columns are taken, in float32. Any other
is called: quantised, with adapters (LoRA), sharded, or of another class (GPT-2's). What it gives
for a part alone, less what it gives for nothing (its bias), is what the part becomes.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from einops import einsum, rearrange
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional

from workbench.distill.losses.compiling import fused
from workbench.distill.losses.features import option_contribution
from workbench.errors import InputError
from workbench.models.sharded import is_sharded


def heads_write(
    output: nn.Module, z: Float[Tensor, "batch position head d_head"], heads: Int[Tensor, " chosen"]
) -> Float[Tensor, "batch position chosen d_model"]:
    """What each of some heads of a layer writes, in float32, through the layer's output module.

    The module's bias belongs to no head and is left out.
    """
    if is_plain(output):
        return _columns(z, output.weight, heads)  # pyright: ignore[reportArgumentType]
    # One position more, where no head writes: what the module puts out by itself.
    padded = functional.pad(z, (0, 0, 0, 0, 0, 1))
    own = functional.one_hot(heads, z.shape[2]).bool()[:, None, None, :, None]
    put_out = call(output, torch.where(own, padded, 0.0).flatten(-2))
    return rearrange(
        put_out[:, :, :-1] - put_out[:, :, -1:],
        "head batch position d_model -> batch position head d_model",
    )


def token_logits(
    unembedding: nn.Module,
    update: Float[Tensor, "batch position d_model"],
    tokens: Int[Tensor, "batch option"],
) -> Float[Tensor, "batch position option"]:
    """What an update, after the final norm, adds to the logits of some tokens, in float32."""
    # A model spread over several devices has its unembedding on the last one.
    there = next((x.device for x in unembedding.parameters()), update.device)
    if is_plain(unembedding):
        rows: Any = unembedding.weight[tokens.to(there)]  # pyright: ignore[reportIndexIssue]
        return option_contribution(update, rows.to(update.device))
    put_out = call(unembedding, functional.pad(update.to(there), (0, 0, 0, 1)))
    added = (put_out[:, :-1] - put_out[:, -1:]).to(update.device)
    return added.gather(2, tokens[:, None].expand(-1, added.shape[1], -1).to(added.device))


def token_directions(
    unembedding: nn.Module, tokens: Int[Tensor, "batch option"]
) -> Float[Tensor, "batch option d_model"]:
    """What raises the logits of some tokens, after the final norm; in float32, a constant.

    Raises:
        InputError: the module is no plain linear map: quantised, with adapters, or sharded.
    """
    if not is_plain(unembedding):
        raise InputError(
            "supervision gold compares what heads write with the unembedding's rows, and it is "
            "quantised, sharded, or has an adapter; give --update-space options"
        )
    weight: Any = unembedding.weight
    return weight.detach()[tokens.to(weight.device)].float().to(tokens.device)


def norm_scale(
    norm: nn.Module, stream: Float[Tensor, "*any d_model"]
) -> Float[Tensor, "*any d_model"]:
    """What a norm multiplies each channel of this stream by, in float32.

    The stream is a constant; the norm's weight is not. For a norm that moves nothing (no mean taken
    away, no bias) times this is all that it does.
    """
    stream = stream.detach().float()
    # Not called: that would run the hooks of who asks, which stand at this norm.
    # Nothing is divided by 0: the gradient of what `where` leaves out would be NaN.
    zero = stream == 0
    return torch.where(zero, 0.0, norm.forward(stream).float() / stream.masked_fill(zero, 1.0))


@fused
def _columns(
    z: Float[Tensor, "batch position head d_head"],
    weight: Float[Tensor, "d_model head_d_head"],
    heads: Int[Tensor, " chosen"],
) -> Float[Tensor, "batch position chosen d_model"]:
    by_head = weight.unflatten(1, (-1, z.shape[-1]))
    with torch.autocast(z.device.type, enabled=False):
        return einsum(
            z.index_select(2, heads).float(),
            by_head.index_select(1, heads).float(),
            "batch position head d_head, d_model head d_head -> batch position head d_model",
        )


def is_plain(module: Any) -> bool:
    """Whether a module is a linear map by its own weight and nothing else."""
    sharded = is_sharded(module)  # of a class of its own, with hooks that gather its weights
    if (type(module).__mro__[2] if sharded else type(module)) is not nn.Linear:
        return False
    if "forward" in vars(module):
        return False
    if not sharded and (module._forward_hooks or module._forward_pre_hooks):
        return False
    return type(module.weight) in (Tensor, nn.Parameter) and module.weight.is_floating_point()


def call(module: nn.Module, given: Float[Tensor, "*any width"]) -> Float[Tensor, "*any d_out"]:
    """What a module puts out, without dropout and in float32.

    It computes in its weights' dtype where they are floating numbers, else as it would here.
    """
    dtype = next((x.dtype for x in module.parameters() if x.is_floating_point()), None)
    flat = given.flatten(0, -2)[None]  # bitsandbytes' int8 knows no more than three axes
    with _without_dropout(module):
        if dtype is None:
            put_out = module(flat)
        else:
            with torch.autocast(given.device.type, enabled=False):
                put_out = module(flat.to(dtype))
    return put_out.float().unflatten(1, given.shape[:-1])[0]


@contextmanager
def _without_dropout(module: nn.Module) -> Iterator[None]:
    # Adapters have dropout: that of every part would be another one.
    dropping = [
        inner
        for inner in module.modules()
        if isinstance(inner, nn.modules.dropout._DropoutNd) and inner.training
    ]
    for inner in dropping:
        inner.training = False
    try:
        yield
    finally:
        for inner in dropping:
            inner.training = True
