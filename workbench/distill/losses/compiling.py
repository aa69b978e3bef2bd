"""Many small operations in one kernel, on CUDA: what training spends most of its time on otherwise.

Norms, rotations, activations, attention patterns and losses are elementwise over large tensors, or
small and many. torch.compile makes few kernels of them; rounding aside, results stay the same.
Elsewhere than on CUDA, and where Triton is missing, nothing is compiled. TORCHDYNAMO_DISABLE=1
turns it off.

Compiling takes minutes where many layers are taught, and saves little where kernels are large: of a
student of more than `SMALL` parameters nothing is compiled.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from functools import wraps
from importlib.util import find_spec
from typing import ParamSpec, TypeVar

import torch
from torch import Tensor, nn

_P = ParamSpec("_P")
_R = TypeVar("_R")

SMALL = 500_000_000
"""Parameters of a student up to which launching kernels costs more than running them."""

_eager: ContextVar[bool] = ContextVar("eager", default=False)


@contextmanager
def eager() -> Iterator[None]:
    """While it lasts, in this thread nothing is compiled."""
    token = _eager.set(True)
    try:
        yield
    finally:
        _eager.reset(token)


def is_eager() -> bool:
    """Whether nothing is to be compiled."""
    return not torch.compiler.is_compiling() and _eager.get()


def fused(function: Callable[_P, _R]) -> Callable[_P, _R]:
    """The function, compiled where its first argument is on CUDA: a tensor or a mapping of them.

    Called by another such function it becomes part of that one.
    """
    compiled = torch.compile(function, dynamic=True)

    @wraps(function)
    def call(*args: _P.args, **kwargs: _P.kwargs) -> _R:
        if torch.compiler.is_compiling():  # first: what follows is no part of a graph
            return function(*args, **kwargs)
        chosen = function if _eager.get() or not _can_compile(args[0]) else compiled
        return chosen(*args, **kwargs)

    return call


def fuse(modules: Iterable[nn.Module]) -> None:
    """Compile modules on CUDA, in place; names of weights do not change.

    Hooks stay outside of what is compiled.
    """
    for module in modules:
        if _can_compile(next(module.parameters())):
            # Its forward, not the module: hooks, which differ at every step, stay outside.
            module.forward = torch.compile(module.forward, dynamic=True)


def unfuse(modules: Iterable[nn.Module]) -> None:
    """Give modules that were compiled in place their own forward again."""
    for module in modules:
        vars(module).pop("forward", None)


def _can_compile(first: object) -> bool:
    if isinstance(first, Mapping):
        first = next(iter(first.values()), None)
    return isinstance(first, Tensor) and first.is_cuda and find_spec("triton") is not None
