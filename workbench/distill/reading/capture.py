"""Reading a few heads of a Hugging Face model while it runs on fused attention.

The model computes attention as it always does. In the layers where something is wanted our
attention implementation (`models/attention`), which calls the model's own, also keeps what went
through it; when the block is done, the pattern of the wanted heads alone is recomputed from their
queries and keys (after rotary embeddings and head norms), at the rows that are wanted, and what
they write at a few positions, through the layer's output module. What is read is part of the graph.
A model of which nothing after some block is wanted stops there.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from copy import copy
from dataclasses import dataclass, field
from functools import cache, partial
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from workbench.distill.losses.features import decision_mass, evidence_mass, pool_patterns
from workbench.distill.reading.checks import check_attention, check_end, find_written
from workbench.distill.reading.parts import (
    attention_modules,
    final_norm,
    output_module,
    plain_model,
    shape_of,
)
from workbench.distill.reading.patterns import patterns_of
from workbench.distill.reading.through import call, heads_write, norm_scale, token_logits
from workbench.distill.reading.wanted import Wanted
from workbench.errors import InputError
from workbench.heads import Head
from workbench.models.attention import KEPT, Kept, kept_attention
from workbench.models.residual import Way
from workbench.models.sharded import is_sharded

if TYPE_CHECKING:
    from workbench.distill.reading.positions import Looking, Marks, Written


@dataclass
class Reading:
    """What was read in a forward; `position` are those that `Capture.run` was asked for."""

    patterns: dict[Head, Float[Tensor, "batch row key"]] = field(default_factory=dict)
    """Attention from the queries that `Capture.run` was asked for, or from all tokens."""
    written: dict[Head, Float[Tensor, "batch position d_model"]] = field(default_factory=dict)
    """What heads add to the residual stream; a norm on the way there is a constant of the run."""
    hidden: dict[int, Float[Tensor, "batch token d_model"]] = field(default_factory=dict)
    scale: Float[Tensor, "batch position d_model"] | None = None
    """What the final norm multiplies each channel by: its weight over the root mean square, which
    is a constant."""
    logits: Float[Tensor, "batch token d_vocab"] | None = None

    def to(self, device: torch.device) -> "Reading":
        """The same on one device, also where the model is spread over several."""
        maps = {
            name: {key: value.to(device) for key, value in getattr(self, name).items()}
            for name in ("patterns", "written", "hidden")
        }
        scale, logits = (x if x is None else x.to(device) for x in (self.scale, self.logits))
        return Reading(**maps, scale=scale, logits=logits)

    def layer(self, layer: int) -> Float[Tensor, "batch head row key"]:
        """All patterns of a layer that were read."""
        heads = sorted(head for head in self.patterns if head[0] == layer)
        return torch.stack([self.patterns[head] for head in heads], dim=1)

    def pooled(self, heads: Mapping[Head, float]) -> Float[Tensor, "batch row key"]:
        """Mean pattern of heads, by their weights."""
        return pool_patterns([self.patterns[head] for head in heads], list(heads.values()))

    def summed(
        self, heads: Iterable[Head], marks: "Marks | None" = None, what: "Written" = "samples"
    ) -> Float[Tensor, "batch place d_model"]:
        """What heads write together, at these places; at all that were read, without marks."""
        chosen = slice(None) if marks is None else marks.among_read(what)
        return torch.stack([self.written[head][:, chosen] for head in heads]).sum(dim=0)

    def mass(
        self, heads: Mapping[Head, float], marks: "Marks", what: "Looking"
    ) -> Float[Tensor, "batch place option"]:
        """Attention mass of heads on the options, from places onto them.

        For "evidence" it is that from the options' tokens on each decision's evidence.
        """
        pattern = self.pooled(heads)
        if what == "evidence":
            return evidence_mass(pattern, marks.spans, marks.evidence, marks.queries)
        rows = marks.decision_rows if what == "decisions" else getattr(marks, what).rows
        return decision_mass(pattern, marks.spans, rows)

    def contribution(
        self,
        heads: Iterable[Head],
        marks: "Marks",
        unembedding: nn.Module,
        what: "Written" = "decisions",
    ) -> Float[Tensor, "batch place option"]:
        """Direct contribution of heads to the options' logits, at the decisions or other places.

        The final norm's factor is that of the model's own residual stream, taken as a constant.
        """
        assert self.scale is not None
        update = self.summed(heads, marks, what) * self.scale[:, marks.among_read(what)]
        return token_logits(unembedding, update, marks.tokens)


class _Stop(Exception):
    """Ends a forward of which nothing more is wanted."""


class Capture:
    """Reads a model; nothing of it stays in the model between runs.

    Args:
        model: of transformers, plain or wrapped by peft, with any attention implementation that
            hands over queries and keys.
        wanted: what is to be read.

    `recomputed` says whether activations of its blocks are not kept but computed again
    (checkpointing): what is read is kept all the same.

    Raises:
        InputError: attention modules without a known output module, heads or layers that are not
            there, what is read would not be what the model does (see `checks`), or, where the final
            norm's factor is wanted, no final root-mean-square norm.
    """

    def __init__(self, model: Any, wanted: Wanted) -> None:
        self.wanted = wanted
        self.recomputed = False
        self._model = model = plain_model(model)
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
        check_attention(model, self._attentions, {layer for layer, _ in wanted.patterns})
        written_in = {layer for layer, _ in wanted.writes}
        self._ways: dict[int, Way] = {}
        if written_in:
            self._ways = find_written(model, self._attentions, self._blocks, written_in)
        if self._norm is not None:
            check_end(model, self._norm, list(self._ways.values()))

    def only(self, wanted: Wanted) -> "Capture":
        """One that reads a part of what this one does."""
        part = copy(self)
        part.wanted = wanted
        part._norm = self._norm if wanted.scale else None
        return part

    def run(
        self,
        forward: Callable[[], Any],
        positions: Int[Tensor, "batch position"],
        queries: Int[Tensor, "batch row"] | None = None,
    ) -> Reading:
        """Run a forward of the model and read it.

        Args:
            forward: runs the model, or one that wraps it.
            positions: where heads' writing is read.
            queries: whose attention is read, -1 for none; all tokens' unless given.
        """
        reading = Reading()
        streams: list[Tensor] = []
        output = None
        with self._listening(reading, streams, positions, queries), suppress(_Stop):
            output = forward()
        if self._norm is not None:
            # After it, as all that losses do with weights outside of blocks (`sharding`).
            reading.scale = norm_scale(self._norm, streams[-1])
        if output is not None and self.wanted.logits:
            reading.logits = output.logits
        return reading

    @contextmanager
    def _listening(
        self, reading: Reading, streams: list[Tensor], positions: Tensor, queries: Tensor | None
    ) -> Iterator[None]:
        wanted = self.wanted
        stops = not (wanted.logits or is_sharded(self._model))  # that would not be ready to go on
        stop_at = wanted.last_layer if stops and not wanted.scale else -1
        with ExitStack() as stack:
            if wanted.patterns or wanted.writes:
                stack.enter_context(kept_attention(self._model, self._attentions))
            for layer, (attention, block) in enumerate(
                zip(self._attentions, self._blocks, strict=True)
            ):
                mapped = tuple(sorted(head for at, head in wanted.patterns if at == layer))
                writers = tuple(sorted(head for at, head in wanted.writes if at == layer))
                if mapped or writers:
                    kept: list[Kept] = []
                    setattr(attention, KEPT, kept)
                    stack.callback(delattr, attention, KEPT)
                    listen = partial(
                        self._listen, reading, layer, kept, mapped, writers, positions, queries
                    )
                    # First of the hooks: weights spread over devices are still whole, and the
                    # model runs on.
                    hook = block.register_forward_hook(listen, prepend=True)
                    stack.callback(hook.remove)
                if layer in wanted.hidden or layer == stop_at:
                    keep = partial(_keep, reading, layer, layer in wanted.hidden, layer == stop_at)
                    stack.callback(block.register_forward_hook(keep).remove)
            if self._norm is not None:
                measure = partial(_measure, streams, positions, stops)
                stack.callback(self._norm.register_forward_pre_hook(measure).remove)
            yield

    def _listen(
        self,
        reading: Reading,
        layer: int,
        kept: list[Kept],
        mapped: tuple[int, ...],
        writers: tuple[int, ...],
        positions: Tensor,
        queries: Tensor | None,
        *called: Any,
    ) -> None:
        found = kept.pop()
        device = found.query.device
        with _saved_as_they_are() if self.recomputed else nullcontext():
            if mapped:
                patterns = patterns_of(found, _on(mapped, device), queries)
                reading.patterns |= {(layer, head): patterns[:, i] for i, head in enumerate(mapped)}
            if writers:
                output, way = output_module(self._attentions[layer]), self._ways[layer]
                assert output is not None
                z = take(found.z, positions)
                wrote = heads_write(output, z, _on(writers, device))
                if way.between or way.factor != 1:
                    with torch.no_grad():
                        scale = way.scale(call(output, z.flatten(-2)))
                    wrote = wrote * scale[:, :, None].to(wrote)
                reading.written |= {(layer, head): wrote[:, :, i] for i, head in enumerate(writers)}


def _saved_as_they_are() -> Any:
    """Lets no checkpoint drop what reading needs: computing a block again does not read it."""
    return torch.autograd.graph.saved_tensors_hooks(lambda saved: saved, lambda saved: saved)


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


def _measure(streams: list[Tensor], positions: Tensor, stop: bool, module: Any, args: Any) -> None:
    streams.append(take(args[0].detach(), positions))
    if stop:
        raise _Stop


def take(
    values: Float[Tensor, "batch token *rest"], positions: Int[Tensor, "batch position"]
) -> Float[Tensor, "batch position *rest"]:
    """The values of each example at its positions."""
    positions = positions.to(values.device)
    rows = torch.arange(len(positions), device=positions.device)[:, None]
    return values[rows, positions]
