"""The type checker of tests: jaxtyping's where a signature has shapes, else beartype alone.

jaxtyping's import hook decorates every function, also those inside of functions at every call of
the outer one. What it does at a call (binding arguments, a memory of axes, both checks) costs tens
of microseconds, more than most functions; without axes there is nothing to remember.
"""

import dataclasses
import inspect
from collections.abc import Callable, Iterator
from functools import wraps
from typing import Any, ForwardRef, Literal, get_args, get_origin

import jaxtyping
from beartype import BeartypeConf, beartype
from beartype.roar import BeartypeException
from jaxtyping import AbstractArray, config

_CHECKED: dict[tuple[Any, ...], Callable[..., Any]] = {}
_whole = jaxtyping.jaxtyped
_beartype = beartype(conf=BeartypeConf(violation_type=TypeError))  # as jaxtyping's errors are


def checked(function: Callable[..., Any]) -> Callable[..., Any]:
    """What beartype makes of a signature, once: it depends on names and annotations alone."""
    try:
        annotations = tuple(function.__annotations__.items())
        key = (function.__module__, function.__qualname__, function.__code__, annotations)
        if key not in _CHECKED:
            _CHECKED[key] = beartype(function)
        return _CHECKED[key]
    except TypeError:  # an annotation that cannot be hashed
        return beartype(function)


def _parts(annotation: Any) -> Iterator[Any]:
    yield annotation
    if isinstance(annotation, list | tuple):  # arguments of a Callable
        inner: Any = annotation
    else:
        inner = () if get_origin(annotation) is Literal else get_args(annotation)
    for part in inner:
        yield from _parts(part)


def _has_no_axes(function: Any) -> bool:
    """Whether beartype can check a function by itself: no arrays, and nothing to be looked up."""
    if not inspect.isfunction(function) or hasattr(function, "__wrapped__"):
        return False
    flags = inspect.CO_GENERATOR | inspect.CO_COROUTINE | inspect.CO_ASYNC_GENERATOR
    if function.__code__.co_flags & flags or "<locals>" in function.__qualname__:
        return False
    return not any(
        isinstance(part, str | ForwardRef)
        or (inspect.isclass(part) and issubclass(part, AbstractArray))
        for annotation in function.__annotations__.values()
        for part in _parts(annotation)
    )


def _quick(function: Callable[..., Any]) -> Callable[..., Any] | None:
    try:
        strict = _beartype(function)
    except BeartypeException:  # a default of another type
        return None

    @wraps(function)
    def called(*args: Any, **kwargs: Any) -> Any:
        __tracebackhide__ = True
        if config.jaxtyping_disable:
            return function(*args, **kwargs)
        return strict(*args, **kwargs)

    return called


def jaxtyped(*given: Any, **named: Any) -> Any:
    """jaxtyping's decorator, as its import hook calls it."""
    decorate = _whole(*given, **named)
    if given:
        return decorate

    def choose(made: Any) -> Any:
        if dataclasses.is_dataclass(made):
            init = vars(made).get("__init__")
            quick = _quick(init) if _has_no_axes(init) else None
            if quick:
                made.__init__ = quick
                return made
        quick = _quick(made) if _has_no_axes(made) else None
        return quick or decorate(made)

    return choose


jaxtyping.jaxtyped = jaxtyped
