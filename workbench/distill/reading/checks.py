"""Whether what is read of a model is what the model does, found out by short forwards of it.

Attention is read from queries, keys and mask, what heads write through the output module and what
lies between that and the residual stream, and their part in the logits through the final norm and
the unembedding alone. Caps that the model's own attention leaves out, sinks, gates before the
output module or scales of logits make it something else; then the model is refused.
"""

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from workbench.distill.reading.keeping import keeping
from workbench.distill.reading.parts import output_module
from workbench.distill.reading.patterns import patterns_of
from workbench.distill.reading.through import call, heads_write, norm_scale
from workbench.errors import InputError
from workbench.models.attention import Kept
from workbench.models.residual import Way, find_ways, multiple
from workbench.models.sharded import gathered

ROUGH = 0.05
"""How far the parts may be from the whole: modules that round their input (int8) do so to each."""


def check_attention(model: Any, attentions: Sequence[nn.Module], layers: Collection[int]) -> None:
    """Patterns that are read in these layers times the values must be what attention gives.

    Raises:
        InputError: it is not, so the model has a kind of attention that is not known.
    """
    if not layers:
        return
    with _short_forward(model) as forward, torch.no_grad():
        expected = forward().logits
        with keeping(model, attentions) as kept:
            wrong = _differ(forward().logits, expected)
    if wrong or not all(_explained(kept[layer]) for layer in layers):
        name = model.config.get_text_config()._attn_implementation
        raise InputError(
            f"{type(model).__name__} cannot be read: attention {name!r} has a mask, cap, sinks or "
            'biases that are not known; load it with attn_implementation="eager" or "sdpa"'
        )


def _explained(runs: Sequence[Kept]) -> bool:
    """Whether attention ran once, and patterns times values are what it gave."""
    if len(runs) != 1 or not isinstance(runs[0].mask, Tensor | None):
        return False
    [kept] = runs
    n_heads, n_kv_heads = kept.query.shape[1], kept.key.shape[1]
    patterns = patterns_of(kept, torch.arange(n_heads, device=kept.query.device))
    values = kept.value.repeat_interleave(n_heads // n_kv_heads, dim=1).float()
    return not _differ((patterns @ values).transpose(1, 2), kept.z, kept.query.dtype)


def find_written(
    model: Any, attentions: Sequence[nn.Module], blocks: Sequence[nn.Module], layers: set[int]
) -> dict[int, Way]:
    """The way from the output module to the residual stream in some layers, whose heads are read.

    Raises:
        InputError: what a layer's heads add to the residual stream is not known.
    """
    outputs: list[Any] = [output_module(attention) for attention in attentions]
    put_out: dict[int, Tensor] = {}
    hooks = [
        output.register_forward_hook(
            lambda module, args, output, layer=layer: put_out.update({layer: output.detach()})
        )
        for layer, output in enumerate(outputs)
    ]
    try:
        with _short_forward(model) as forward, keeping(model, attentions) as kept:
            ways = find_ways(forward, blocks, outputs)
    finally:
        for hook in hooks:
            hook.remove()
    shape = model.config.get_text_config().num_attention_heads
    for layer in sorted(layers):
        way = ways[layer]
        known = way is not None and way.splits and len(kept[layer]) == 1
        with gathered(blocks[layer]):
            found = known and _adds_up(outputs[layer], kept[layer][0].z, put_out[layer], shape)
        if not found:
            raise InputError(
                f"{type(model).__name__} cannot be read: what heads of layer {layer} add to the "
                "residual stream is not known"
            )
    return {layer: way for layer, way in enumerate(ways) if way is not None and layer in layers}


@torch.no_grad()
def _adds_up(output: Any, z: Tensor, put_out: Tensor, n_heads: int) -> bool:
    """Whether a module gave that for all heads together, and for one after the other."""
    z = z.detach()
    if z.shape[2] != n_heads or _differ(call(output, z.flatten(-2)), put_out, put_out.dtype):
        return False
    parts = heads_write(output, z, torch.arange(n_heads, device=z.device)).sum(dim=2)
    itself = call(output, torch.zeros_like(z).flatten(-2))
    return not _differ(parts, put_out.float() - itself, put_out.dtype, ROUGH)


def check_end(model: Any, norm: Any, ways: Sequence[Way]) -> None:
    """Refuse a model whose logits are not its final norm's output times its unembedding.

    Raises:
        InputError: the norm takes a mean away; logits are capped or scaled, or a layer scales the
            stream on its way there.
    """
    seen: list[Tensor] = []
    hook = norm.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    try:
        with _short_forward(model) as forward, torch.no_grad():
            logits = forward().logits
            stream = seen[-1]
            scale = norm_scale(norm, stream)
            expected = call(model.get_output_embeddings(), scale * stream.float())
            other = norm_scale(norm, stream.roll(1, dims=-1))
            # Of a channel that is exactly 0 somewhere, as in bfloat16 some are, nothing is known.
            known = ((scale != 0) & (other != 0)).flatten(0, -2).all(dim=0)
            ratio = (scale / other)[..., known]
    finally:
        hook.remove()
    # One number for each channel, times one for each token: the same for any other stream.
    splits = multiple(ratio, ratio.mean(dim=-1, keepdim=True).expand_as(ratio)) is not None
    if not splits:
        raise InputError(
            f"{type(model).__name__} has no final root-mean-square norm, which direct "
            "contributions to logits need"
        )
    if _differ(logits, expected, logits.dtype) or any(way.carry != 1 for way in ways):
        raise InputError(
            f"{type(model).__name__} cannot be read: its logits are more than a final "
            "root-mean-square norm and the unembedding, which direct contributions need"
        )


@contextmanager
def _short_forward(model: Any) -> Iterator[Callable[[], Any]]:
    """A forward of a few tokens, without dropout."""
    training = model.training
    vocabulary = model.config.get_text_config().vocab_size
    ids = torch.tensor([[at % vocabulary for at in range(1, 9)]], device=model.device)
    model.eval()
    try:
        yield lambda: model(input_ids=ids, use_cache=False)
    finally:
        model.train(training)


def _differ(
    value: Tensor, expected: Tensor, dtype: torch.dtype | None = None, allowed: float = 1e-3
) -> bool:
    """Whether they differ by more than is allowed, or rounding in that dtype explains."""
    allowed = max(allowed, 8 * torch.finfo(dtype or expected.dtype).eps)
    value, expected = (one.detach().double().cpu() for one in (value, expected))
    return not float((value - expected).norm()) <= allowed * float(expected.norm())
