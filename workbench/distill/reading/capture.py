"""Reading a few heads of a Hugging Face model while it runs on fused attention.

Attention goes through `scaled_dot_product_attention` everywhere, as transformers itself does it. In
the layers where something is wanted our attention implementation (`models/attention`) also keeps
what went through it; when the block is done, the pattern of the wanted heads alone is
recomputed from their queries and keys (after rotary embeddings and head norms), and what they write
at a few positions. What is read is part of the graph. A model of which nothing after some block is
wanted stops there.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import cache, partial
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor, nn
from transformers import PreTrainedModel

from workbench.distill.losses.compiling import fused
from workbench.distill.losses.features import option_contribution, pool_patterns, written
from workbench.distill.reading.checks import check_attention, check_end, find_written
from workbench.distill.reading.wanted import Wanted
from workbench.errors import InputError
from workbench.heads import Head, ModelShape
from workbench.models.attention import KEPT, NAME, Kept
from workbench.models.residual import Way

if TYPE_CHECKING:
    from workbench.distill.reading.positions import Marks


@dataclass
class Reading:
    """What was read in a forward; `position` are those that `Capture.run` was asked for."""

    patterns: dict[Head, Float[Tensor, "batch query key"]] = field(default_factory=dict)
    written: dict[Head, Float[Tensor, "batch position d_model"]] = field(default_factory=dict)
    """What heads add to the residual stream; a norm on the way there is a constant of the run."""
    hidden: dict[int, Float[Tensor, "batch token d_model"]] = field(default_factory=dict)
    scale: Float[Tensor, "batch position"] | None = None
    """1 over the root mean square that the final norm divides by, without gradient."""
    logits: Float[Tensor, "batch token d_vocab"] | None = None

    def to(self, device: torch.device) -> "Reading":
        """The same on one device, also where the model is spread over several."""
        maps = {
            name: {key: value.to(device) for key, value in getattr(self, name).items()}
            for name in ("patterns", "written", "hidden")
        }
        scale, logits = (x if x is None else x.to(device) for x in (self.scale, self.logits))
        return Reading(**maps, scale=scale, logits=logits)

    def layer(self, layer: int) -> Float[Tensor, "batch head query key"]:
        """All patterns of a layer that were read."""
        heads = sorted(head for head in self.patterns if head[0] == layer)
        return torch.stack([self.patterns[head] for head in heads], dim=1)

    def pooled(self, heads: Mapping[Head, float]) -> Float[Tensor, "batch query key"]:
        """Mean pattern of heads, by their weights."""
        return pool_patterns([self.patterns[head] for head in heads], list(heads.values()))

    def summed(self, heads: Iterable[Head]) -> Float[Tensor, "batch sample d_model"]:
        """What heads write together."""
        return torch.stack([self.written[head] for head in heads]).sum(dim=0)

    def contribution(
        self, heads: Iterable[Head], marks: "Marks", end: tuple[Any, Any]
    ) -> Float[Tensor, "batch decision option"]:
        """Direct contribution of heads to the options' logits at the decisions.

        `end` is the model's unembedding and the norm before it. The norm's factor is that of the
        model's own residual stream, taken as a constant.
        """
        assert self.scale is not None
        n = marks.decisions.shape[1]
        update = self.summed(heads)[:, :n] * self.scale[:, :n, None]
        unembedding, norm = end
        # A model spread over several devices has these on its last one.
        there = unembedding.weight.device
        unembedded = unembedding.weight[marks.tokens.to(there)].float()
        directions = unembedded * norm.weight.to(there).float()
        return option_contribution(update, directions.to(update.device))


class _Stop(Exception):
    """Ends a forward of which nothing more is wanted."""


class Capture:
    """Reads a model; nothing of it stays in the model between runs.

    The model's attention implementation becomes `NAME`, which gives what "sdpa" gives, or "sdpa"
    itself where nothing but logits is wanted.

    Raises:
        InputError: attention modules without `o_proj`, heads or layers that are not there, what is
            read would not be what the model does (see `checks`), or, where the final norm's factor
            is wanted, no final root-mean-square norm.
    """

    def __init__(self, model: PreTrainedModel, wanted: Wanted) -> None:
        self.wanted = wanted
        self.shape = shape_of(model)
        # The modules themselves, not their paths: wrapping for several devices changes paths.
        self._attentions, self._blocks = attention_modules(model)
        for layer, head in wanted.patterns | wanted.writes:
            if not (0 <= layer < self.shape.n_layers and 0 <= head < self.shape.n_heads):
                raise InputError(
                    f"head {layer}-{head} is not in the model of {self.shape.n_layers} layers × "
                    f"{self.shape.n_heads} heads"
                )
        for layer in wanted.hidden:
            if not 0 <= layer < self.shape.n_layers:
                raise InputError(
                    f"layer {layer} is not in the model of {self.shape.n_layers} layers"
                )
        self._norm = final_norm(model) if wanted.scale else None
        check_attention(model, NAME if wanted.maps else "sdpa")
        written_in = {layer for layer, _ in wanted.writes}
        self._ways: dict[int, Way] = {}
        if written_in:
            self._ways = find_written(model, self._attentions, self._blocks, written_in)
        if self._norm is not None:
            check_end(model, self._norm, list(self._ways.values()))

    def run(self, forward: Callable[[], Any], positions: Int[Tensor, "batch position"]) -> Reading:
        """Run a forward of the model and read it; `positions` are where heads' writing is read."""
        reading = Reading()
        with self._listening(reading, positions):
            try:
                output = forward()
            except _Stop:
                return reading
        reading.logits = output.logits if self.wanted.logits else None
        return reading

    @contextmanager
    def _listening(self, reading: Reading, positions: Tensor) -> Iterator[None]:
        wanted = self.wanted
        stop_at = -1 if wanted.logits or wanted.scale else wanted.last_layer
        with ExitStack() as stack:
            for layer, (attention, block) in enumerate(
                zip(self._attentions, self._blocks, strict=True)
            ):
                mapped = tuple(sorted(head for at, head in wanted.patterns if at == layer))
                writers = tuple(sorted(head for at, head in wanted.writes if at == layer))
                if mapped or writers:
                    kept: list[Kept] = []
                    setattr(attention, KEPT, kept)
                    stack.callback(delattr, attention, KEPT)
                    way = self._ways.get(layer)
                    listen = partial(
                        _listen, reading, layer, attention, kept, mapped, writers, positions, way
                    )
                    # First of the hooks: weights spread over devices are still whole, and the
                    # model runs on.
                    hook = block.register_forward_hook(listen, prepend=True)
                    stack.callback(hook.remove)
                if layer in wanted.hidden or layer == stop_at:
                    keep = partial(_keep, reading, layer, layer in wanted.hidden, layer == stop_at)
                    stack.callback(block.register_forward_hook(keep).remove)
            if self._norm is not None:
                measure = partial(_measure, reading, positions, not wanted.logits)
                stack.callback(self._norm.register_forward_pre_hook(measure).remove)
            yield


def _listen(
    reading: Reading,
    layer: int,
    attention: Any,
    kept: list[Kept],
    mapped: tuple[int, ...],
    writers: tuple[int, ...],
    positions: Tensor,
    way: Way | None,
    *called: Any,
) -> None:
    query, key, mask, scaling, z = kept.pop()
    patterns, wrote = _read(
        query,
        key,
        mask,
        scaling,
        z,
        attention.o_proj.weight,
        positions,
        _on(mapped, query.device),
        _on(writers, query.device),
    )
    if way is not None and (way.between or way.factor != 1):
        with torch.no_grad():
            scale = way.scale(attention.o_proj(take(z, positions).flatten(-2)))
        wrote = wrote * scale[:, :, None].to(wrote)
    reading.patterns |= {(layer, head): patterns[:, i] for i, head in enumerate(mapped)}
    reading.written |= {(layer, head): wrote[:, :, i] for i, head in enumerate(writers)}


@fused
def _read(
    query: Float[Tensor, "batch head token d_head"],
    key: Float[Tensor, "batch kv_head key d_head"],
    mask: Shaped[Tensor, "_ _ token key"] | None,
    scaling: float,
    z: Float[Tensor, "batch token head d_head"],
    output_weight: Float[Tensor, "d_model head_d_head"],
    positions: Int[Tensor, "batch position"],
    mapped: Int[Tensor, " mapped"],
    writers: Int[Tensor, " writer"],
) -> tuple[Float[Tensor, "batch mapped token key"], Float[Tensor, "batch position writer d_model"]]:
    weights = output_weight.mT.unflatten(0, (-1, z.shape[-1]))
    return (
        head_patterns(query, key, mapped, mask, scaling),
        written(take(z, positions), weights, writers),
    )


@cache
def _on(heads: tuple[int, ...], device: torch.device) -> Tensor:
    # Kept: sending a few numbers to a device makes the host wait for it. Where gradients are not
    # recorded now they may be the next time.
    with torch.inference_mode(False):
        return torch.tensor(heads, dtype=torch.long, device=device)


def _keep(
    reading: Reading, layer: int, hidden: bool, stop: bool, module: Any, args: Any, output: Any
) -> None:
    if hidden:
        reading.hidden[layer] = output[0] if isinstance(output, tuple) else output
    if stop:
        raise _Stop


def _measure(reading: Reading, positions: Tensor, stop: bool, module: Any, args: Any) -> None:
    with torch.no_grad():
        chosen = take(args[0], positions).float()
        reading.scale = (chosen.square().mean(dim=-1) + module.variance_epsilon).rsqrt()
    if stop:
        raise _Stop


def take(
    values: Float[Tensor, "batch token *rest"], positions: Int[Tensor, "batch position"]
) -> Float[Tensor, "batch position *rest"]:
    """The values of each example at its positions."""
    positions = positions.to(values.device)
    rows = torch.arange(len(positions), device=positions.device)[:, None]
    return values[rows, positions]


def head_patterns(
    query: Float[Tensor, "batch head token d_head"],
    key: Float[Tensor, "batch kv_head key d_head"],
    heads: Int[Tensor, " chosen"],
    mask: Shaped[Tensor, "_ _ token key"] | None,
    scaling: float,
) -> Float[Tensor, "batch chosen token key"]:
    """Attention patterns of a few heads, in float32.

    `mask` says which keys may be seen (bool) or is added (float); None is causal.
    """
    group = query.shape[1] // key.shape[1]
    scores = query.index_select(1, heads) @ key.index_select(1, heads // group).mT
    scores = scores.float() * scaling
    if mask is None:
        places = torch.arange(scores.shape[-1], device=scores.device)
        scores = scores.masked_fill(places > places[: scores.shape[-2], None], -torch.inf)
    elif mask.dtype == torch.bool:
        scores = scores.masked_fill(~mask, torch.finfo(scores.dtype).min)
    else:
        scores = scores + mask
    return scores.softmax(dim=-1)


def attention_modules(model: PreTrainedModel) -> tuple[list[nn.Module], list[nn.Module]]:
    """Attention modules and the blocks that hold them, in layer order.

    Raises:
        InputError: not one in each layer, with an output projection called `o_proj`.
    """
    found: dict[int, str] = {
        module.layer_idx: path  # pyright: ignore[reportAssignmentType]
        for path, module in model.named_modules()
        if hasattr(module, "o_proj") and isinstance(getattr(module, "layer_idx", None), int)
    }
    n_layers = model.config.get_text_config().num_hidden_layers
    if sorted(found) != list(range(n_layers)):
        raise InputError(
            f"{type(model).__name__} cannot be read: needs an attention module with `o_proj` in "
            f"each of its {n_layers} layers, {len(found)} have one"
        )
    paths = [found[layer] for layer in range(n_layers)]
    blocks = [model.get_submodule(path.rpartition(".")[0]) for path in paths]
    return [model.get_submodule(path) for path in paths], blocks


def final_norm(model: PreTrainedModel) -> Any:
    """The norm before the unembedding.

    Raises:
        InputError: it is not a root-mean-square norm with a plain weight.
    """
    norm = getattr(model.base_model, "norm", None)
    if not hasattr(norm, "variance_epsilon"):
        raise InputError(
            f"{type(model).__name__} has no final root-mean-square norm, which direct "
            "contributions to logits need"
        )
    return norm


def shape_of(model: PreTrainedModel) -> ModelShape:
    """Layers and heads of a Hugging Face model."""
    config = model.config.get_text_config()
    n_kv_heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    return ModelShape(
        n_layers=config.num_hidden_layers, n_heads=config.num_attention_heads, n_kv_heads=n_kv_heads
    )
