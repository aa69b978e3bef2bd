"""What attention of each layer was computed from, while a model runs."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

from torch import nn

from workbench.distill.reading.parts import attention_modules
from workbench.models.attention import KEPT, Kept, kept_attention


@contextmanager
def keeping(model: Any, attentions: Sequence[nn.Module]) -> Iterator[list[list[Kept]]]:
    """While it lasts, each layer's list takes what its attention was computed from."""
    kept: list[list[Kept]] = [[] for _ in attentions]
    for attention, into in zip(attentions, kept, strict=True):
        setattr(attention, KEPT, into)
    try:
        with kept_attention(model, attentions):
            yield kept
    finally:
        for attention in attentions:
            delattr(attention, KEPT)


@contextmanager
def showing(model: Any, see: Callable[[int, Kept], None]) -> Iterator[None]:
    """While it lasts, every layer is shown when it is done, and let go of before the next."""
    attentions, blocks = attention_modules(model)
    with keeping(model, attentions) as kept, ExitStack() as stack:
        for layer, block in enumerate(blocks):
            stack.callback(
                block.register_forward_hook(
                    lambda *_, layer=layer: see(layer, kept[layer].pop())
                ).remove
            )
        yield
