"""First-order estimates of what a head's clean output would do in a counterfactual run.

1. Run the counterfactual with a graph from every head's `hook_z` to the logits.
2. Differentiate each quantity of interest (an option's logit, a log-odds) with respect to `hook_z`
   and to the final residual stream.
3. Contract with the difference clean − counterfactual over the aligned suffix, head by head.

The *direct* part is the share that no later layer processes: the head's difference at the decision
token through W_O, times the gradient of the quantity there that goes through the residual stream
alone. It is exact at the counterfactual run, so it contains the derivative of the final norm (scale
included), the unembedding, whatever the architecture does to its logits (a cap, a factor), and what
lies between W_O and the stream (`workbench.models.residual`; NaN where that is not known).
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, NamedTuple

import torch
from einops import einsum
from jaxtyping import Float, Shaped
from torch import Tensor, nn

from workbench.analysis.readout import widen
from workbench.errors import InputError
from workbench.models.hooked import HookedModel
from workbench.models.hooks import Hook
from workbench.models.residual import Found, Way
from workbench.progress import pulse


class GradientRun(NamedTuple):
    """One forward of one prompt that can be differentiated; lists have one tensor per layer."""

    logits: Float[Tensor, " d_vocab"]
    z: list[Float[Tensor, "1 position head d_head"]]
    residual: Float[Tensor, "1 position d_model"]
    ways: Found
    projected: list[Float[Tensor, " d_model"]]
    """What the output projections put out at the last token."""


class HeadEffects(NamedTuple):
    """First-order effect of each head on each output, in all and straight to the logits."""

    total: Float[Tensor, "output layer head"]
    direct: Float[Tensor, "output layer head"]


@contextmanager
def frozen_parameters(module: nn.Module) -> Iterator[None]:
    """Switch off weight gradients, which nobody reads here, and restore the flags afterwards."""
    wanted = [parameter for parameter in module.parameters() if parameter.requires_grad]
    for parameter in wanted:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in wanted:
            parameter.requires_grad_(True)


def gradient_run(
    model: HookedModel, tokens: Sequence[int], hooks: Sequence[Hook] = ()
) -> GradientRun:
    """Run a prompt and keep the graph above the first layer's `hook_z`; `hooks` only look on.

    Use inside `frozen_parameters`. The graph starts at the first layer's z, made a leaf there:
    nothing below it is differentiated, and the embedding need not carry a gradient.
    """
    n_layers, ways = model.info.n_layers, model.ways
    names = z_names(n_layers)
    residual_name = f"blocks.{n_layers - 1}.hook_resid_post"
    kept: dict[str, Tensor] = {}
    projected = [torch.empty(0)] * n_layers

    def keep(name: str, tensor: Tensor, hook: Any) -> Tensor:
        check_whole(model, tensor, len(tokens))
        kept[name] = tensor.detach().requires_grad_(True) if name == names[0] else tensor
        if kept[name].requires_grad:
            kept[name].register_hook(lambda gradient: pulse("layers"))
        # Returned, so that the model goes on from this very tensor: hook_z is a reshaped view and
        # would otherwise lie beside the graph.
        return kept[name]

    keeping = [(name, partial(keep, name)) for name in [*names, residual_name]]
    logits = model.logits_at(
        torch.tensor([list(tokens)], device=model.device),
        [len(tokens) - 1],  # only the decision token needs its logits
        [*keeping, *projection_hooks(n_layers, projected), *hooks],
        grad=True,
    )
    z = [kept[name] for name in names]
    return GradientRun(logits[0, -1], z, kept[residual_name], ways, projected)


def check_whole(model: HookedModel, tensor: Shaped[Tensor, "1 position *rest"], n: int) -> None:
    """Refuse an activation of fewer positions than the prompt has.

    Raises:
        InputError: a layer of the model computes some positions only.
    """
    if tensor.shape[1] != n:
        raise InputError(
            f"model {model.info.name!r} computes {tensor.shape[1]} of {n} positions in a layer, so "
            "heads cannot be read there"
        )


def projection_hooks(n_layers: int, into: list[Tensor]) -> list[Hook]:
    """Hooks that keep what every layer's output projection puts out at the last token."""

    def keep(layer: int, tensor: Tensor, hook: Any) -> None:
        into[layer] = tensor[0, -1].detach()

    return [(f"blocks.{layer}.attn.o.hook_out", partial(keep, layer)) for layer in range(n_layers)]


def z_names(n_layers: int) -> list[str]:
    """Names of the hook points with every head's output before W_O."""
    return [f"blocks.{layer}.attn.hook_z" for layer in range(n_layers)]


def head_effects(
    run: GradientRun,
    outputs: Sequence[Float[Tensor, ""]],
    clean_z: Float[Tensor, "layer position head d_head"],
    output_weights: Float[Tensor, "layer head d_head d_model"],
) -> HeadEffects:
    """Contract (clean − run) with the gradient of each output, over the last `position` tokens.

    `outputs` are scalars computed from `run.logits`. Results are in float64 on the CPU.
    """
    differences = z_differences(run, clean_z)
    last = torch.stack([difference[-1] for difference in differences])
    written = head_outputs(last, output_weights)
    totals, directs = [], []
    for output in outputs:
        *z_gradients, residual_gradient = torch.autograd.grad(
            output, [*run.z, run.residual], retain_graph=True
        )
        totals.append(contract(differences, [gradient[0] for gradient in z_gradients]))
        gradients = straight_gradients(run, residual_gradient[0, -1].to(written))
        directs.append(torch.stack([w @ g for w, g in zip(written, gradients, strict=True)]))
    return HeadEffects(torch.stack(totals).cpu().double(), torch.stack(directs).cpu().double())


def z_differences(
    run: GradientRun, clean_z: Float[Tensor, "layer position head d_head"]
) -> list[Float[Tensor, "position head d_head"]]:
    """clean − run of every layer's z over the last `position` tokens."""
    n_positions = clean_z.shape[1]
    return [
        widen(clean) - widen(z[0, -n_positions:].detach()).to(clean.device)
        for clean, z in zip(clean_z, run.z, strict=True)
    ]


def straight_gradients(
    run: GradientRun, gradient: Float[Tensor, " d_model"]
) -> Float[Tensor, "layer d_model"]:
    """Gradient at each output projection's output, through the residual stream alone.

    `gradient` is the one at the final residual stream.
    """
    pulled = []
    for way, projected in zip(reversed(run.ways), reversed(run.projected), strict=True):
        if way is None:
            gradient = torch.full_like(gradient, torch.nan)
            pulled.append(gradient)
        else:
            gradient = way.carry * gradient
            pulled.append(way.pull(gradient, projected))
    return torch.stack(pulled[::-1])


def contract(
    differences: Sequence[Float[Tensor, "position head d_head"]],
    gradients: Sequence[Float[Tensor, "all_positions head d_head"]],
) -> Float[Tensor, "layer head"]:
    """Sum of difference times gradient over the positions of the difference, head by head."""
    return torch.stack(
        [
            einsum(
                difference,
                gradient[-len(difference) :].to(difference),
                "position head d_head, position head d_head -> head",
            )
            for difference, gradient in zip(differences, gradients, strict=True)
        ]
    )


def head_outputs(
    z: Float[Tensor, "layer head d_head"],
    output_weights: Float[Tensor, "layer head d_head d_model"],
) -> Float[Tensor, "layer head d_model"]:
    """What each head puts out through the output projection at one token: z · W_O."""
    # Layer by layer, because the weights are widened to z's dtype on the way.
    return torch.stack(
        [
            einsum(layer_z, weights.to(layer_z), "head d_head, head d_head d_model -> head d_model")
            for layer_z, weights in zip(z, output_weights, strict=True)
        ]
    )


def added_to_stream(
    ways: Sequence[Way | None],
    outputs: Float[Tensor, "layer head d_model"],
    projected: Sequence[Float[Tensor, " d_model"]],
) -> Float[Tensor, "layer head d_model"]:
    """What each head adds to the residual stream, its share of what its layer adds.

    NaN where what lies between is not known, or mixes what heads put out.
    """
    added = [
        torch.full_like(output, torch.nan)
        if way is None or not way.splits
        else output * way.scale(at).to(output)
        for way, output, at in zip(ways, outputs, projected, strict=True)
    ]
    return torch.stack(added)


def margin_effects(
    logit_effects: Float[Tensor, "option layer head"], logits: Float[Tensor, " option"]
) -> Float[Tensor, "option layer head"]:
    """Effects on m_j = logit_j − logsumexp(logits of the rest), for every option j as the gold one.

    The gradient of m_j weighs option j with 1 and the rest with minus their softmax, at `logits`
    of the run in which the effects were taken.
    """
    itself = torch.eye(len(logits), dtype=torch.float64)
    rest = logits.detach().cpu().double().expand(len(logits), -1)
    weights = itself - rest.masked_fill(itself.bool(), -torch.inf).softmax(dim=-1)
    return einsum(weights, logit_effects, "gold option, option layer head -> gold layer head")
