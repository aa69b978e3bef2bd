"""Where planted heads stand: drawn at random, read-outs above what they read."""

from collections.abc import Mapping, Sequence

import torch

from workbench.errors import InputError
from workbench.heads import Head
from workbench.studies.planted.parts import Part

TRIES = 100_000


def check_room(parts: Sequence[Part], n_layers: int, n_heads: int, groups: int) -> None:
    """Refuse a shape without room for these parts.

    Raises:
        InputError: it has too few layers, heads or key-value heads, or they share unevenly.
    """
    if groups < 1 or n_heads % groups:
        raise InputError(f"{n_heads} heads cannot share {groups} key-value heads evenly")
    needed = len(_with_own_keys(parts, n_heads // groups))
    layers = _depth(parts)
    if n_layers < layers or n_heads < 4 or n_layers * groups < needed:
        raise InputError(
            f"{n_layers} layers of {n_heads} heads with {groups} key-value heads have no room: "
            f"needs at least {layers} layers, 4 heads and {needed} key-value heads in all"
        )


def has_room(parts: Sequence[Part], n_layers: int, n_heads: int, groups: int) -> bool:
    """Whether `check_room` would pass."""
    try:
        check_room(parts, n_layers, n_heads, groups)
    except InputError:
        return False
    return True


def draw_places(
    generator: torch.Generator, parts: Sequence[Part], n_layers: int, n_heads: int, groups: int
) -> dict[str, Head]:
    """Part → head. Each has a key-value head of its own, but for those that share on purpose.

    Raises:
        InputError: no place was found in `TRIES` draws.
    """
    size = n_heads // groups
    own = _with_own_keys(parts, size)
    names = [part.name for part in own]
    for _ in range(TRIES):
        slots = torch.randperm(n_layers * groups, generator=generator)[: len(names)].tolist()
        layer = {name: slot // groups for name, slot in zip(names, slots, strict=True)}
        if all(layer[below] < layer[part.name] for part in own for below in part.above):
            break
    else:
        raise InputError(f"no places found for {len(names)} heads in {n_layers} layers")
    inside = torch.randint(0, size, (len(names),), generator=generator).tolist()
    place = {
        name: (slot // groups, slot % groups * size + offset)
        for name, slot, offset in zip(names, slots, inside, strict=True)
    }
    for part in parts:
        if part.name not in place:
            place[part.name] = _neighbour(place, part, size)
    return place


def _neighbour(place: Mapping[str, Head], part: Part, size: int) -> Head:
    """The next head of the group that it shares."""
    layer, head = place[part.shares]
    return layer, head // size * size + (head + 1) % size


def _with_own_keys(parts: Sequence[Part], size: int) -> list[Part]:
    names = {part.name for part in parts}
    return [part for part in parts if size == 1 or part.shares not in names]


def _depth(parts: Sequence[Part]) -> int:
    """Layers that the longest chain needs."""
    depth: dict[str, int] = {}
    left = list(parts)
    while left:
        part = next(part for part in left if all(below in depth for below in part.above))
        depth[part.name] = 1 + max((depth[below] for below in part.above), default=0)
        left.remove(part)
    return max(depth.values())
