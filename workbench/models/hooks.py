"""Hook functions: keep an activation, replace heads' outputs or their attention."""

from collections.abc import Callable
from typing import Any

from torch import Tensor

Hook = tuple[str, Callable[..., Tensor | None]]
"""Hook name, and function of (activation, hook) whose result, if any, replaces the activation."""


def store(name: str, into: dict[str, Tensor]) -> Hook:
    """Hook that keeps the activation under its name."""

    def function(value: Tensor, hook: Any) -> None:
        into[name] = value.detach()

    return name, function


def replace_z(layer: int, index: tuple[Any, ...], value: Tensor) -> Hook:
    """Hook that sets entries of a layer's per-head attention outputs.

    `index` addresses [batch, position, head] of `hook_z`, whose shape is
    [batch, position, head, d_head]; `value` broadcasts to the entries.
    """

    def function(z: Tensor, hook: Any) -> Tensor:
        z = z.clone()  # whoever kept the activation before keeps the value of that moment
        z[index] = value.to(z)
        return z

    return f"blocks.{layer}.attn.hook_z", function


def replace_pattern(layer: int, index: tuple[Any, ...], rows: Tensor) -> Hook:
    """Hook that sets attention rows of a layer: what heads look at, not what they find there.

    `index` addresses [batch, head, query] of `hook_pattern`, whose shape is
    [batch, head, query, key]; `rows` broadcasts to the entries.
    """

    def function(pattern: Tensor, hook: Any) -> Tensor:
        pattern = pattern.clone()
        pattern[index] = rows.to(pattern)
        return pattern

    return f"blocks.{layer}.attn.hook_pattern", function
