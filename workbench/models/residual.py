"""What lies between a layer's output projection and the residual stream, found by running it.

z · W_O is what a head adds to the residual stream in GPT-2 and Llama. Elsewhere a norm (Gemma 2,
OLMo 2, GLM 4), a factor (Granite) or both lie between, and a block may scale the stream as a whole
(Gemma 4). No list of architectures says which: one short forward does, block by block, with the
stream that enters and the projection's output as leaves of the graph.

1. Every module that reads the stream is a later computation: its output is cut off the graph.
2. Modules that read the projection's output, and not the stream, lie between (`between`).
3. What is left from the leaves to the block's output is linear: a multiple of the stream that
   entered (`carry`), and one of what the modules between put out (`factor`).
4. Both are held against a random gradient. Where they do not explain it, or a block runs twice, the
   way is not known (None).
"""

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from accelerate.utils.memory import should_reduce_batch_size
from jaxtyping import Float
from torch import Tensor, nn

from workbench.errors import InputError

if TYPE_CHECKING:
    from workbench.models.hooked import HookedModel

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Way:
    """From the output projection of a layer to the residual stream."""

    between: tuple[nn.Module, ...]
    factor: float
    carry: float
    """What the block multiplies the whole stream by before it leaves."""
    splits: bool
    """Whether what is added is the sum of the heads' own parts, see `scale`."""

    @property
    def plain(self) -> bool:
        """Whether the output projection's output itself is added, and then left as it is."""
        return not self.between and self.factor == self.carry == 1

    def __call__(self, projected: Float[Tensor, "*any d_model"]) -> Float[Tensor, "*any d_model"]:
        """What is added to the stream, given what the output projection puts out."""
        added = projected
        for module in self.between:
            added = module(added)
        return self.factor * added.to(projected.device)

    @torch.no_grad()
    def scale(self, projected: Float[Tensor, "*any d_model"]) -> Float[Tensor, "*any d_model"]:
        """What each channel is multiplied by on the way, with the norms as they are in this run.

        Times this, the parts of `projected` sum to what is added. Norms are constants, as in direct
        logit attribution (Elhage et al. 2021, A Mathematical Framework for Transformer Circuits).
        """
        if not self.between:
            return torch.full_like(projected, self.factor)
        added = self(projected)
        return torch.where(projected == 0, 0, added / projected).to(added)

    def pull(
        self, gradient: Float[Tensor, "*any d_model"], projected: Float[Tensor, "*any d_model"]
    ) -> Float[Tensor, "*any d_model"]:
        """Gradient at the projection's output from the one where it is added, norms included."""
        if not self.between:
            return self.factor * gradient
        with torch.enable_grad():
            given = _leaf(projected)
            added = self(given)
            [pulled] = torch.autograd.grad(added, given, gradient.to(added))
        return pulled.to(gradient)


Found = list[Way | None]
"""One way a layer."""


@dataclass
class _Block:
    """The leaves of one block while it runs, and modules that lie between."""

    stream: Tensor | None = None
    projected: Tensor | None = None
    between: tuple[nn.Module, ...] = ()


@dataclass
class _Trace:
    """What was found so far; blocks run one after the other."""

    ways: list[Found]
    left: Tensor | None = None
    """What the block before put out."""


def model_ways(model: "HookedModel") -> Found:
    """The way of every layer of a bridged model; layers of unknown way are logged."""
    tokens = torch.tensor([[at % model.info.d_vocab for at in range(1, 7)]], device=model.device)
    blocks: Any = list(model.bridge.blocks)
    try:
        projections = [block.attn.o for block in blocks]
        ways = find_ways(lambda: model.logits_at(tokens, [0], grad=True), blocks, projections)
    except (RuntimeError, TypeError, ValueError, LookupError, AttributeError) as error:
        if isinstance(error, InputError) or should_reduce_batch_size(error):
            raise
        ways: Found = [None] * model.info.n_layers
    unknown = [str(layer) for layer, way in enumerate(ways) if way is None or not way.splits]
    if unknown:
        logger.warning(
            "model %s: what lies between heads and the residual stream is not known in layers %s; "
            "what depends on it is left empty (refine_direct, output_norm)",
            model.info.name,
            ", ".join(unknown),
        )
    return ways


def find_ways(
    forward: Callable[[], Any], blocks: Sequence[nn.Module], projections: Sequence[nn.Module]
) -> Found:
    """The way of every layer; None where it is not known.

    Args:
        forward: runs a short sequence through the model, in evaluation mode.
        blocks: the model's.
        projections: output projections of attention, one in each block.
    """
    trace = _Trace([[] for _ in blocks])
    with ExitStack() as stack, torch.enable_grad():
        for layer, (block, projection) in enumerate(zip(blocks, projections, strict=True)):
            for hook in _watch(trace, layer, block, projection):
                stack.callback(hook.remove)
        forward()
    return [way[0] if len(way) == 1 else None for way in trace.ways]


def _watch(trace: _Trace, layer: int, block: nn.Module, projection: nn.Module) -> Iterator[Any]:
    """Hooks on one block."""
    seen = _Block()

    def enter(module: nn.Module, args: Any, kwargs: Any) -> Any:
        stream = args[0] if args else kwargs["hidden_states"]
        if trace.left is not None and not torch.equal(stream, trace.left):
            trace.ways[layer - 1].append(None)  # something lies between the blocks
        seen.stream, seen.projected, seen.between = _leaf(stream), None, ()
        if args:
            return (seen.stream, *args[1:]), kwargs
        return args, {**kwargs, "hidden_states": seen.stream}

    def project(module: nn.Module, args: Any, output: Tensor) -> Tensor:
        seen.projected = _leaf(output)
        return seen.projected

    def read(module: nn.Module, args: Any, kwargs: Any, output: Any) -> Any:
        given = [x for x in (*args, *kwargs.values()) if isinstance(x, Tensor)]
        if isinstance(output, Tensor) and any(x.data_ptr() == output.data_ptr() for x in given):
            return None  # a hook point, or dropout: nothing is done
        if _depends(given, seen.stream):
            return _cut(output)
        if seen.projected is not None and _depends(given, seen.projected):
            seen.between += (module,)
        return None

    def leave(module: nn.Module, args: Any, output: Any) -> None:
        left = output[0] if isinstance(output, tuple) else output
        trace.ways[layer].append(_way(seen, left))
        trace.left = left.detach()

    yield block.register_forward_pre_hook(enter, with_kwargs=True)
    yield projection.register_forward_hook(project)
    inside = set(projection.modules())
    for module in block.modules():
        computes = not any(module.children()) or any(True for _ in module.parameters(recurse=False))
        if computes and module not in inside and projection not in set(module.modules()):
            yield module.register_forward_hook(read, with_kwargs=True)
    # First of the hooks: weights spread over devices are still whole.
    yield block.register_forward_hook(leave, prepend=True)


def _way(seen: _Block, left: Tensor) -> Way | None:
    stream, projected = seen.stream, seen.projected
    if stream is None or projected is None or left.shape != stream.shape:
        return None
    generator = torch.Generator().manual_seed(0)
    probe, other = (torch.randn(left.shape, generator=generator).to(left) for _ in range(2))
    through, onto = torch.autograd.grad(left, [stream, projected], probe, allow_unused=True)
    if through is None or onto is None or projected.shape != left.shape:
        return None
    between = Way(seen.between, 1.0, 1.0, True)
    carry, factor = multiple(through, probe), multiple(onto, between.pull(probe, projected))
    if carry is None or factor is None:
        return None
    # One number per channel, times one that depends on the token: the same for any other input.
    ratio = between.scale(projected.detach()) / between.scale(other)
    splits = multiple(ratio, ratio.mean(dim=-1, keepdim=True).expand_as(ratio)) is not None
    return Way(seen.between, factor / carry, carry, splits)


def multiple(value: Tensor, of: Tensor) -> float | None:
    """The number by which `value` is a multiple of `of`; None where it is none, or 0."""
    allowed = max(1e-3, 8 * torch.finfo(value.dtype).eps)
    value, of = value.double(), of.double()
    number = float((value * of).sum() / of.square().sum())
    off = float((value - number * of).norm() / value.norm())
    if not (number and off <= allowed):  # NaN too
        return None
    return 1.0 if abs(number - 1) < allowed / 10 else number


def _leaf(value: Tensor) -> Tensor:
    return value.detach().requires_grad_(True)


def _cut(output: Any) -> Any:
    if isinstance(output, Tensor):
        return output.detach()
    if isinstance(output, tuple | list):
        return type(output)(_cut(part) for part in output)
    return output


def _depends(given: Sequence[Tensor], on: Tensor | None) -> bool:
    """Whether any of the tensors was computed from another one."""
    reached = [value.sum() for value in given if value.requires_grad]
    if on is None or not reached:
        return False
    return torch.autograd.grad(reached, on, allow_unused=True, retain_graph=True)[0] is not None
