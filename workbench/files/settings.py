"""Settings that are refused in one line."""

import dataclasses
import math
from functools import wraps
from typing import Any, TypeVar, dataclass_transform

import pydantic.dataclasses
from pydantic import ValidationError

from workbench.errors import InputError, explain

_Settings = TypeVar("_Settings")


@dataclass_transform(frozen_default=True, field_specifiers=(dataclasses.field,))
def settings(cls: type[_Settings]) -> type[_Settings]:
    """A frozen dataclass whose fields say their range and help text, checked when it is made.

    No number is infinite, and no whole one beyond `LARGEST`: torch and numpy take no larger seeds.

    A field is `name: Annotated[int, Field(ge=1, description="…")] = 3`; what concerns several
    fields is checked in `__post_init__`. Wrong values raise an `InputError`.
    """
    made: Any = pydantic.dataclasses.dataclass(frozen=True, config={"extra": "forbid"})(cls)
    init = made.__init__

    @wraps(init)
    def checked(self: Any, *args: Any, **kwargs: Any) -> None:
        try:
            init(self, *args, **kwargs)
        except ValidationError as error:
            raise InputError(explain(error, depth=1)) from None
        for field in dataclasses.fields(self):
            check_number(field.name, getattr(self, field.name))

    made.__init__ = checked
    return made


LARGEST = 2**32 - 1


def check_number(name: str, value: object) -> None:
    """Refuse a whole number beyond `LARGEST`, a seed below 0, and what is not finite.

    All else passes.

    Raises:
        InputError: with its name.
    """
    if isinstance(value, int) and abs(value) > LARGEST:
        raise InputError(f"{name} is a number of {len(str(value))} digits, at most {LARGEST:,}")
    if isinstance(value, int) and value < 0 and name.endswith("seed"):
        raise InputError(f"{name} is {value}, must be from 0 to {LARGEST:,}")
    if isinstance(value, float) and not math.isfinite(value):
        raise InputError(f"{name} is {value}, must be finite")
