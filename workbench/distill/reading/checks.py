"""Whether what is read of a model is what the model does, found out by short forwards of it.

Attention is read as torch's fused kernel computes it, what heads write as z · W_O and what lies
between that and the residual stream, and their part in the logits through the final norm and the
unembedding alone. Caps on attention scores, sinks, gates before the output projection or scales of
logits make it something else; then the model is refused.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from workbench.errors import InputError
from workbench.models.attention import KEPT
from workbench.models.residual import Way, find_ways


def check_attention(model: Any, implementation: str) -> None:
    """Set a model's attention implementation; it must give what eager attention gives.

    Raises:
        InputError: it does not, so the model has a kind of attention that fused kernels lack.
    """
    with _short_forward(model) as forward, torch.no_grad():
        model.set_attn_implementation("eager")
        expected = forward().logits
        try:
            model.set_attn_implementation(implementation)
            wrong = _differ(forward().logits, expected)
        except ValueError:  # transformers knows that the model has no such attention
            wrong = True
    if wrong:
        raise InputError(
            f"{type(model).__name__} cannot be read: its attention has a cap, sinks or biases, "
            "which fused attention leaves out"
        )


def find_written(
    model: Any, attentions: Sequence[nn.Module], blocks: Sequence[nn.Module], layers: set[int]
) -> dict[int, Way]:
    """The way from z · W_O to the residual stream in some layers, whose attention is read.

    Raises:
        InputError: what a layer's heads add to the residual stream is not known.
    """
    projections: list[Any] = [attention.o_proj for attention in attentions]
    put_out: dict[int, Tensor] = {}
    hooks = [
        projection.register_forward_hook(
            lambda module, args, output, layer=layer: put_out.update({layer: output.detach()})
        )
        for layer, projection in enumerate(projections)
    ]
    kept: list[list[Any]] = [[] for _ in attentions]
    for attention, into in zip(attentions, kept, strict=True):
        setattr(attention, KEPT, into)
    try:
        with _short_forward(model) as forward:
            ways = find_ways(forward, blocks, projections)
    finally:
        for hook in hooks:
            hook.remove()
        for attention in attentions:
            delattr(attention, KEPT)
    for layer in sorted(layers):
        way, weight, bias = ways[layer], projections[layer].weight, projections[layer].bias
        known = way is not None and way.splits and bool(kept[layer])
        if known:
            z = kept[layer][-1].z.detach().flatten(-2)
            known = not _differ(nn.functional.linear(z, weight, bias), put_out[layer])
        if not known:
            raise InputError(
                f"{type(model).__name__} cannot be read: what heads of layer {layer} add to the "
                "residual stream is not known"
            )
    return {layer: way for layer, way in enumerate(ways) if way is not None and layer in layers}


def check_end(model: Any, norm: Any, ways: Sequence[Way]) -> None:
    """Refuse a model whose logits are not its final norm's output times its unembedding.

    Raises:
        InputError: they are capped or scaled, or a layer scales the stream on its way there.
    """
    seen: list[Tensor] = []
    hook = norm.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    try:
        with _short_forward(model) as forward, torch.no_grad():
            logits = forward().logits
            stream = seen[-1].float()
            scale = (stream.square().mean(-1, keepdim=True) + norm.variance_epsilon).rsqrt()
            end = model.get_output_embeddings()
            expected = (stream * scale * norm.weight.float()) @ end.weight.float().mT
    finally:
        hook.remove()
    if getattr(end, "bias", None) is not None:
        expected = expected + end.bias.float()
    if _differ(logits, expected) or any(way.carry != 1 for way in ways):
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


def _differ(value: Tensor, expected: Tensor) -> bool:
    """Whether they differ by more than rounding explains."""
    allowed = max(1e-3, 8 * torch.finfo(expected.dtype).eps)
    value, expected = (one.detach().double().cpu() for one in (value, expected))
    return not float((value - expected).norm()) <= allowed * float(expected.norm())
