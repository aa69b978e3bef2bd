"""Which heads step in when a head is taken away: candidates for being its backup.

In the clean run a head's output is exchanged for that of a counterfactual. A backup, silent until
then, changes what it writes. No score of the clean run sees it, so it is looked for this way, and
then patched together with the head that it replaces (`sets`). A large change only nominates: heads
that read what the head wrote change, too.
"""

from collections.abc import Iterator, Sequence

import torch
from einops import einsum
from jaxtyping import Float
from torch import Tensor

from workbench.analysis.readout import widen
from workbench.heads import Head
from workbench.models.hooked import HookedModel
from workbench.models.hooks import replace_z, store
from workbench.processes import Spread, in_order
from workbench.progress import pulse
from workbench.prompts.prompt import DecisionEvent

N_EVENTS = 4
"""Events that are enough to see who responds."""


def find_backups(
    model: HookedModel,
    events: Sequence[DecisionEvent],
    heads: Sequence[Head],
    count: int,
    *,
    spread: Spread = in_order,
) -> dict[Head, list[Head]]:
    """Head → the `count` later heads that change most when it is taken away, the first `N_EVENTS`.

    Later means in a higher layer; there may be fewer. A change is the norm of the difference in
    what a head puts out (z · W_O), summed over the aligned suffix and both counterfactuals. Several
    processes `spread` the events.
    """
    weights = model.output_weights()
    found: dict[Head, list[Head]] = {}
    changes = {head: torch.zeros(weights.shape[:2], dtype=torch.float64) for head in heads}

    def responses(some: Sequence[DecisionEvent]) -> Iterator[dict[Head, Tensor]]:
        for event in some:
            yield _responses(model, event, heads, weights)
            pulse("heads taken away", len(heads))

    for response in spread(responses, events[:N_EVENTS]):
        for head, change in response.items():
            changes[head] += change
    for head, change in changes.items():
        change[: head[0] + 1] = 0
        ranked = change.flatten().argsort(descending=True)[:count].tolist()
        at = [divmod(index, change.shape[1]) for index in ranked]
        found[head] = [(layer, other) for layer, other in at if layer > head[0]]
    return found


def _responses(
    model: HookedModel,
    event: DecisionEvent,
    heads: Sequence[Head],
    weights: Float[Tensor, "layer head d_head d_model"],
) -> dict[Head, Float[Tensor, "layer head"]]:
    n = event.aligned_suffix
    clean = _run(model, event.clean, n)
    changes: dict[Head, Tensor] = {}
    for name in ("far", "near"):
        other = _run(model, event.variant(name), n)
        for layer, head in heads:
            where = (0, slice(-n, None), head)
            taken = _run(model, event.clean, n, (layer, where, other[layer][:, head]))
            change = [
                einsum(
                    widen(a - b), widen(w), "position head d_z, head d_z out -> position head out"
                )
                .norm(dim=-1)
                .sum(dim=0)
                .double()
                .cpu()
                for a, b, w in zip(taken, clean, weights, strict=True)
            ]
            at = (layer, head)
            changes[at] = changes.get(at, torch.zeros(())) + torch.stack(change)
    return changes


def _run(
    model: HookedModel, tokens: Sequence[int], n: int, edit: tuple | None = None
) -> list[Float[Tensor, "position head d_head"]]:
    """Every head's output over the last `n` tokens, layer by layer."""
    kept: dict[str, Tensor] = {}
    names = [f"blocks.{layer}.attn.hook_z" for layer in range(model.info.n_layers)]
    hooks = [replace_z(*edit)] if edit else []
    hooks += [store(name, kept) for name in names]
    model.logits_at(torch.tensor([list(tokens)], device=model.device), [len(tokens) - 1], hooks)
    return [kept[name][0, -n:] for name in names]
