"""The type checker of tests: beartype, with the checks of a signature compiled once.

jaxtyping's import hook also decorates functions inside functions, at every call of the outer one.
Compiling their checks anew each time took a third of the time of tests that patch heads.
"""

from collections.abc import Callable
from typing import Any

from beartype import beartype

_CHECKED: dict[tuple[Any, ...], Callable[..., Any]] = {}


def checked(function: Callable[..., Any]) -> Callable[..., Any]:
    """What jaxtyping makes of a signature: it depends on names and annotations alone."""
    try:
        annotations = tuple(function.__annotations__.items())
        key = (function.__module__, function.__qualname__, function.__code__, annotations)
        if key not in _CHECKED:
            _CHECKED[key] = beartype(function)
        return _CHECKED[key]
    except TypeError:  # an annotation that cannot be hashed
        return beartype(function)
