"""Filter heads: heads whose query, moved to another list, picks what the first prompt asked for.

Sharma et al. (2025, "LLMs Process Lists With General Filter Heads", arXiv 2510.26784) take two
prompts with other items and another predicate. The *target's* list holds one more item: one that
satisfies the *source's* predicate. The query states of heads at the last tokens of the source are
put into the target; filter heads turn the target's answer to that item. Only prompts that the model
answers rightly count. They choose heads by a mask of all heads, learned to raise the logit of that
item above the mean of the others'.

Here a source is a decision event, its predicate what its evidence says, and a target the prompt of
another event, in which the source's gold option and its near misses take the places of far options
drawn at random. A mask gives a set and no order, so that every head is moved alone, exactly, and
ranked by what their loss rewards.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor
from transformer_lens.utilities.statistics import derive_generator

from workbench.analysis.readout import select_options, widen
from workbench.analysis.scores.attribution import z_names
from workbench.errors import InputError
from workbench.heads import Head
from workbench.models.forked import patch_heads
from workbench.models.hooked import HookedModel, Run
from workbench.models.hooks import Hook
from workbench.phases import OF_READOUT
from workbench.processes import Spread, in_order
from workbench.prompts.prompt import DecisionEvent

LAST = 2
"""Last tokens whose queries are moved: their evaluation takes two, their selection the last."""

ROWS_AT_ONCE = 8
"""Sequences in a forward of `transported_z`."""


class OtherList(NamedTuple):
    """A target prompt: another event's, with the source's cluster put into its list."""

    tokens: list[int]
    """Of the prompt."""
    options: list[int]
    """Token that selects each option."""
    moved: list[int]
    """Indices of the source's options among them, its gold one first."""
    answer: int
    """Index of the target's own gold option."""

    def gain(self, option_logits: Float[Tensor, "*batch option"], readout: str) -> Tensor:
        """Mean logit of the items that satisfy the source's predicate, less that of the others.

        For Focus they are its cluster, against the target's own list; for 1 − Confusion its gold
        option, against the near misses that came with it.
        """
        first = len(self.moved) if OF_READOUT[readout].rises else 1
        wanted, others = self.moved[:first], self.moved[first:]
        others = others or [at for at in range(len(self.options)) if at not in wanted]
        return option_logits[..., wanted].mean(dim=-1) - option_logits[..., others].mean(dim=-1)


def other_list(
    source: DecisionEvent, target: DecisionEvent, generator: torch.Generator
) -> OtherList | None:
    """The source's gold option and near misses in place of some far options of the target.

    A place keeps the letter that selects it; an item that is selected by a word of its text brings
    that word (tokens are letters where one of them selects different labels in the two prompts).
    None where the target's list holds such an item already, has no far option for each and one
    more, or two options would share a token.
    """
    items = [option for option in source.options if option.role in ("gold", "near")]
    items.sort(key=lambda option: option.role != "gold")
    far = target.with_role("far")
    known = {option.label for option in target.options}
    same = source.family is not None and source.family == target.family
    if same or len(far) <= len(items) or known & {item.label for item in items}:
        return None
    drawn = torch.randperm(len(far), generator=generator)[: len(items)].tolist()
    places = {far[at]: item for at, item in zip(drawn, items, strict=True)}
    options, tokens = target.option_tokens, list(target.clean)
    label = {option.token: option.label for option in target.options}
    letters = any(
        label.get(option.token, option.label) != option.label for option in source.options
    )
    for at in sorted(places, key=lambda at: target.options[at].span, reverse=True):
        text = source.clean[slice(*places[at].span)]
        if (own := places[at].token) in text and not letters:
            options[at] = own
        else:
            text = [options[at] if token == own else token for token in text]
        tokens[slice(*target.options[at].span)] = text
    if len(set(options)) < len(options):
        return None
    return OtherList(tokens, options, list(places), target.with_role("gold")[0])


def pairs(events: Sequence[DecisionEvent]) -> Iterator[tuple[DecisionEvent, OtherList]]:
    """Every event as a source, with the next one of another prompt that can be its target."""
    for number, source in enumerate(events):
        for target in (*events[number + 1 :], *events[:number]):
            generator = derive_generator(0, "other list", source.id, source.event)
            made = None if target.id == source.id else other_list(source, target, generator)
            if made is not None:
                yield source, made
                break


@torch.no_grad()
def filter_scores(
    model: HookedModel,
    events: Sequence[DecisionEvent],
    readout: str,
    *,
    last: int = LAST,
    progress: Callable[[int, int], None] | None = None,
    spread: Spread = in_order,
) -> Float[Tensor, "layer head"]:
    """Change of `OtherList.gain`, in logits, when a head gets the source's query; mean over pairs.

    Each head by itself, at the `last` tokens; keys and values stay the target's. The query is moved
    before any rotary embedding, so the head's distances to its keys are those of the target.

    Raises:
        InputError: an unknown readout, no last token, no pair of prompts that the model answers
            rightly, or a model without `hook_q`.
    """
    if readout not in OF_READOUT:
        raise InputError(f"readout {readout!r} is not one of {', '.join(OF_READOUT)}")
    if last < 1:
        raise InputError(f"queries of the last {last} tokens: must be at least 1")
    info = model.info
    every = [(layer, head) for layer in range(info.n_layers) for head in range(info.n_heads)]
    total, n = torch.zeros(len(every), dtype=torch.float64), 0
    found = list(pairs(events))

    def changes(some: Sequence[tuple[DecisionEvent, OtherList]]) -> Iterator[Tensor | None]:
        for source, target in some:
            change = None
            [run] = model.run([source.clean])
            if _right(run, source):
                z = transported_z(model, source.clean, target.tokens, last)
                groups = [[], *([head] for head in every)]
                logits = patch_heads(model, target.tokens, z, groups, tokens=target.options)
                logits = widen(logits).cpu().double()
                if int(logits[0].argmax()) == target.answer:
                    gain = target.gain(logits, readout)
                    change = gain[1:] - gain[0]
            yield change

    for change in spread(changes, found, progress):
        if change is not None:
            total += change
            n += 1
    if not n:
        raise InputError(
            f"filter heads: no two of {len(events)} events have other lists that can be mixed and "
            "that the model answers rightly"
        )
    return (total / n).reshape(info.n_layers, info.n_heads)


@torch.no_grad()
def turned(
    model: HookedModel, events: Sequence[DecisionEvent], heads: Sequence[Head], *, last: int = LAST
) -> tuple[int, int]:
    """Their test of a set: how many answers turn when the queries of all its heads are moved.

    Returns:
        pairs whose answer becomes an item of the source's cluster, and pairs that count.
    """
    of_layer = {layer: [head for at, head in heads if at == layer] for layer, _ in heads}
    names = {f"blocks.{layer}.attn.hook_q": own for layer, own in of_layer.items()}
    n_turned = n = 0
    for source, target in pairs(events):
        [run] = model.run([source.clean], list(names))

        def put(q: Tensor, hook: Any, name: str, run: Run = run) -> Tensor:
            q = q.clone()
            q[0, -last:, names[name]] = run.activations[name][-last:, names[name]].to(q)
            return q

        hooks: list[Hook] = [(name, partial(put, name=name)) for name in names]
        tokens, end = torch.tensor([target.tokens], device=model.device), len(target.tokens) - 1
        plain, moved = (
            int(model.logits_at(tokens, [end], each)[0, 0][target.options].argmax())
            for each in ([], hooks)
        )
        if _right(run, source) and plain == target.answer:
            n, n_turned = n + 1, n_turned + (moved in target.moved)
    return n_turned, n


def _right(run: Run, event: DecisionEvent) -> bool:
    return int(select_options(run.logits, event).argmax()) == event.with_role("gold")[0]


@torch.no_grad()
def transported_z(
    model: HookedModel, source: Sequence[int], base: Sequence[int], last: int = 1
) -> Float[Tensor, "layer position head d_head"]:
    """Every head's output at the last tokens of `base`, had it there the queries of `source`'s.

    A head's query changes no other head of its layer, so a layer's heads are done together; layers
    are rows of a batch. Below the changed layer all is as in the plain run of `base`, so patching
    one head's `hook_z` with its entry is the same as changing its query.

    Raises:
        InputError: a sequence that the model cannot run, or a model without `hook_q`.
    """
    model.check_sequences([source, base])
    last = min(last, len(source), len(base))
    n_layers = model.info.n_layers
    names = [f"blocks.{layer}.attn.hook_q" for layer in range(n_layers)]
    [run] = model.run([source], names)
    found: dict[int, Tensor] = {}

    def exchange(row: int, query: Tensor, tensor: Tensor, hook: Any) -> Tensor:
        tensor = tensor.clone()
        tensor[row, -last:] = query.to(tensor)
        return tensor

    def keep(row: int, layer: int, z: Tensor, hook: Any) -> None:
        found[layer] = z[row, -last:].clone()

    for first in range(0, n_layers, ROWS_AT_ONCE):
        layers = range(first, min(first + ROWS_AT_ONCE, n_layers))
        hooks: list[Hook] = []
        for row, layer in enumerate(layers):
            query = run.activations[names[layer]][-last:]
            hooks.append((names[layer], partial(exchange, row, query)))
            hooks.append((z_names(n_layers)[layer], partial(keep, row, layer)))
        tokens = torch.tensor([list(base)] * len(layers), device=model.device)
        model.logits_at(tokens, [len(base) - 1], hooks)
    device = found[0].device
    return torch.stack([found[layer].to(device) for layer in range(n_layers)])
