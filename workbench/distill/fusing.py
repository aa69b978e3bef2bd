"""Many small operations in one kernel, on CUDA: what training spends most of its time on otherwise.

Norms, feed-forward blocks, attention patterns and divergences are elementwise over large tensors.
torch.compile makes one kernel of each; rounding aside, results stay the same. Elsewhere than on
CUDA, and where Triton is missing, nothing is compiled. TORCHDYNAMO_DISABLE=1 turns it off.
"""

from collections.abc import Callable
from functools import wraps
from importlib.util import find_spec
from typing import ParamSpec, TypeVar

import torch
from torch import Tensor
from transformers import PreTrainedModel

_P = ParamSpec("_P")
_R = TypeVar("_R")


def fused(function: Callable[_P, _R]) -> Callable[_P, _R]:
    """The function, compiled where its first argument is a CUDA tensor."""
    compiled = torch.compile(function, dynamic=True)

    @wraps(function)
    def call(*args: _P.args, **kwargs: _P.kwargs) -> _R:
        chosen = compiled if _can_compile(args[0]) else function
        return chosen(*args, **kwargs)

    return call


def fuse_blocks(model: PreTrainedModel) -> None:
    """Compile norms and feed-forward modules of a model on CUDA, in place.

    Attention stays as it is, since it is read from outside while it runs. Names of weights do not
    change.
    """
    if not _can_compile(next(model.parameters())):
        return
    for path, module in model.named_modules():
        name = path.rpartition(".")[2]
        if name == "mlp" or name.endswith("norm"):
            module.compile(dynamic=True)


def _can_compile(first: object) -> bool:
    return isinstance(first, Tensor) and first.is_cuda and find_spec("triton") is not None
