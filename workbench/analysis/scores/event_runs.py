"""The runs of one decision event that scores share; each is made once, when first asked for."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from workbench.analysis.readout import Roles, select_options, widen
from workbench.analysis.scores.attention import attention_routes
from workbench.analysis.scores.attribution import (
    HeadEffects,
    check_whole,
    frozen_parameters,
    gradient_run,
    head_effects,
    margin_effects,
    projection_hooks,
    z_names,
)
from workbench.models.hooked import HookedModel
from workbench.prompts.prompt import DecisionEvent, Variant


class CleanRun(NamedTuple):
    """Attention routes of every option, `hook_z` over the aligned suffix, and what the output
    projections put out at the decision."""

    routes: Float[Tensor, "option layer head route"]
    z: Float[Tensor, "layer position head d_head"]
    projected: list[Float[Tensor, " d_model"]]


@dataclass(frozen=True)
class EventRuns:
    """Model, event, and what the scores read of its clean, near and far runs."""

    model: HookedModel
    event: DecisionEvent
    output_weights: Float[Tensor, "layer head d_head d_model"]

    @cached_property
    def clean(self) -> CleanRun:
        """Patterns are reduced inside the hook: all layers of them at once would be the largest
        tensor of the analysis by far."""
        model, event = self.model, self.event
        spans = [option.span for option in event.options]
        n_layers = model.info.n_layers
        routes: list[Tensor] = [torch.empty(0)] * n_layers
        z: list[Tensor] = [torch.empty(0)] * n_layers
        projected: list[Tensor] = [torch.empty(0)] * n_layers

        def keep_routes(layer: int, pattern: Tensor, hook: Any) -> None:
            found = attention_routes(widen(pattern[0]), spans, event.evidence)
            routes[layer] = found.cpu().double()

        def keep_z(layer: int, tensor: Tensor, hook: Any) -> None:
            check_whole(model, tensor, len(event.clean))
            z[layer] = tensor[0, -event.aligned_suffix :].clone()

        hooks = [(name, partial(keep_z, layer)) for layer, name in enumerate(z_names(n_layers))]
        hooks += projection_hooks(n_layers, projected)
        hooks += [
            (f"blocks.{layer}.attn.hook_pattern", partial(keep_routes, layer))
            for layer in range(n_layers)
        ]
        tokens = torch.tensor([list(event.clean)], device=model.device)
        model.logits_at(tokens, [len(event.clean) - 1], hooks)
        z = [layer.to(z[0].device) for layer in z]
        return CleanRun(torch.stack(routes, dim=1), torch.stack(z), projected)

    def first_order(
        self, variant: Variant, outputs: Callable[[Tensor], Sequence[Tensor]]
    ) -> tuple[HeadEffects, Float[Tensor, " option"]]:
        """First-order effect of the clean heads on functions of the option logits, in a variant."""
        with frozen_parameters(self.model.bridge):
            run = gradient_run(self.model, self.event.variant(variant))
            logits = select_options(run.logits, self.event)
            effects = head_effects(run, outputs(logits), self.clean.z, self.output_weights)
        return effects, logits.detach()

    @cached_property
    def cluster(self) -> list[int]:
        """Options of gold's cluster: gold and near ones."""
        return Roles.of(self.event).relevant.nonzero().flatten().tolist()

    @cached_property
    def near_miss(self) -> HeadEffects:
        """Effects in the near counterfactual, with each option of gold's cluster as gold."""
        effects, logits = self.first_order("near", lambda logits: list(logits[self.cluster]))
        margins = (margin_effects(part, logits[self.cluster]) for part in effects)
        return HeadEffects(*margins)
