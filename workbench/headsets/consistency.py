"""What a head set must not say against itself, beyond the type and range of every value."""

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from pydantic_core import PydanticCustomError

from workbench.heads import head_name
from workbench.roles import HEAD_POOLS

if TYPE_CHECKING:
    from workbench.headsets.headset import HeadSet

WEIGHTS_OFF = 1e-6
"""How far a pool's weights may be from a sum of 1: what writing decimals costs, and no more."""


def check(headset: "HeadSet") -> None:
    """Refuse a head set that contradicts itself.

    Raises:
        PydanticCustomError: "head_set", with the path of the key and the reason.
    """
    for part in (_check_sizes, _check_heads, _check_weights, _check_pools, _check_intervals):
        part(headset)


def _refuse(path: str, reason: str) -> None:
    raise PydanticCustomError("head_set", "{path}: {reason}", {"path": path, "reason": reason})


def _check_sizes(headset: "HeadSet") -> None:
    model, prompts = headset.model, headset.prompts
    if model.n_heads % model.n_kv_heads:
        _refuse("model.n_kv_heads", f"{model.n_kv_heads} does not divide n_heads {model.n_heads}")
    if prompts.n_choose + prompts.n_verify != prompts.n:
        halves = f"n_choose {prompts.n_choose} + n_verify {prompts.n_verify}"
        _refuse("prompts.n", f"{prompts.n} is not {halves}")
    if prompts.choose_sha256 == prompts.verify_sha256:
        _refuse("prompts.verify_sha256", "is that of the selection half; no prompt may be in both")


def _check_heads(headset: "HeadSet") -> None:
    model = headset.model
    seen: set[tuple[int, int]] = set()
    for index, item in enumerate(headset.heads):
        where = f"heads[{index}]"
        if item.layer >= model.n_layers:
            _refuse(f"{where}.layer", f"{item.layer} is not below n_layers {model.n_layers}")
        if item.head >= model.n_heads:
            _refuse(f"{where}.head", f"{item.head} is not below n_heads {model.n_heads}")
        kv_head = item.head * model.n_kv_heads // model.n_heads
        if item.kv_head != kv_head:
            _refuse(f"{where}.kv_head", f"{item.kv_head}, but head {item.head} reads {kv_head}")
        if (item.layer, item.head) in seen:
            _refuse(where, f"head {head_name(item.layer, item.head)} is listed twice")
        seen.add((item.layer, item.head))


def _check_weights(headset: "HeadSet") -> None:
    for pool in HEAD_POOLS:
        heads = headset.in_pool(pool)
        whole = math.fsum(head.weight for head in heads)
        if heads and abs(whole - 1) > WEIGHTS_OFF:
            _refuse("heads", f"weights of pool {pool!r} sum to {whole:.6g}, must be 1")


def _check_pools(headset: "HeadSet") -> None:
    listed: set[str] = set()
    for index, item in enumerate(headset.pools):
        where = f"pools[{index}]"
        if item.pool in listed:
            _refuse(f"{where}.pool", f"pool {item.pool!r} is listed twice")
        listed.add(item.pool)
        expected = [head_name(head.layer, head.head) for head in headset.in_pool(item.pool)]
        if sorted(item.heads) != sorted(expected):
            got = " ".join(item.heads) or "none"
            right = " ".join(expected) or "none"
            _refuse(f"{where}.heads", f"lists {got}, but 'heads' puts {right} into {item.pool!r}")
        orders = [(area.order, area.kind) for area in item.areas]
        if len(set(orders)) < len(orders):
            _refuse(f"{where}.areas", "lists the same order and kind twice")


def _check_intervals(headset: "HeadSet") -> None:
    for where, given in _intervals(headset):
        if hasattr(given, "n") and (given.low is None) != (given.high is None):
            _refuse(where, "has one end of an interval; give both, or null")
        if getattr(given, "n", None) == 0 and given.effect is not None:
            _refuse(f"{where}.n", "is 0, but there is an effect")
        if None not in (given.low, given.high) and given.low > given.high:
            _refuse(f"{where}.low", f"{given.low:g} is above high {given.high:g}")


def _intervals(headset: "HeadSet") -> Iterator[tuple[str, Any]]:
    """Everything with `low` and `high`, and where it is."""
    for index, head in enumerate(headset.heads):
        for name, effect in head.effects.items():
            yield f"heads[{index}].effects.{name}", effect
    for index, pool in enumerate(headset.pools):
        for name, effect in pool.effects.items():
            yield f"pools[{index}].effects.{name}", effect
        for control, effects in pool.controls.items():
            for name, effect in effects.items():
                yield f"pools[{index}].controls.{control}.{name}", effect
        for number, area in enumerate(pool.areas):
            yield f"pools[{index}].areas[{number}]", area
