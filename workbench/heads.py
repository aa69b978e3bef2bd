"""Attention heads by (layer, head), their names, and the shape of the model they belong to."""

from numbers import Integral
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, model_validator

from workbench.errors import InputError

Head = tuple[int, int]
"""(layer, head), both from 0."""


def parse_heads(text: str) -> list[Head]:
    """Heads from their names, `"4-3,5-1"`: layer and head, from 0.

    Raises:
        InputError: a part that is no such name, or the same head twice.
    """
    heads: list[Head] = []
    for name in text.split(","):
        layer, dash, head = name.strip().partition("-")
        if not (dash and layer.isdecimal() and head.isdecimal()):
            raise InputError(
                f"heads {text!r}: {name!r} is not LAYER-HEAD; give all, nominated, screen, "
                "or a list such as 4-3,5-1"
            )
        heads.append((int(layer), int(head)))
    twice = [at for at in heads if heads.count(at) > 1]
    if twice:
        raise InputError(f"heads {text!r}: {twice[0][0]}-{twice[0][1]} is listed twice")
    return heads


def as_head(head: "Head | str") -> Head:
    """A head given as (3, 0) or by its name, "3-0".

    Raises:
        InputError: it is neither.
    """
    if isinstance(head, str):
        layer, dash, number = head.strip().partition("-")
        if dash and layer.isdecimal() and number.isdecimal():
            return int(layer), int(number)
    elif isinstance(head, tuple | list) and len(head) == 2:
        layer, number = head
        if all(isinstance(one, Integral) and one >= 0 for one in (layer, number)):
            return int(layer), int(number)
    raise InputError(f'head {head!r} is not a head: give "3-0" or (3, 0), layer and head from 0')


def head_name(layer: int, head: int) -> str:
    """The head as tables and lists write it: `4-3` is layer 4, head 3."""
    return f"{layer}-{head}"


class _Record(BaseModel):
    model_config = ConfigDict(
        strict=True, extra="forbid", frozen=True, allow_inf_nan=False, serialize_by_alias=True
    )


class ModelShape(_Record):
    """How many layers and heads a model has; query heads share keys and values in equal groups."""

    n_layers: int = Field(ge=1)
    n_heads: int = Field(ge=1)
    n_kv_heads: int = Field(ge=1)

    @model_validator(mode="after")
    def _groups_are_equal(self) -> "ModelShape":
        if self.n_heads % self.n_kv_heads:
            raise InputError(f"n_kv_heads {self.n_kv_heads} does not divide n_heads {self.n_heads}")
        return self

    @classmethod
    def of(cls, info: Any) -> "ModelShape":
        """Shape of a loaded model's or a head set's `ModelInfo`."""
        return cls(n_layers=info.n_layers, n_heads=info.n_heads, n_kv_heads=info.n_kv_heads)
