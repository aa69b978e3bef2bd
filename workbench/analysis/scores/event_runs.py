"""The runs of one decision event that scores share; each is made once, when first asked for."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from workbench.analysis.readout import MARGINS, Roles, coarse_margin, select_options, widen
from workbench.analysis.scores.attention import attention_routes, decision_mass, note_stretches
from workbench.analysis.scores.attribution import (
    HeadEffects,
    contract,
    frozen_parameters,
    gradient_run,
    head_effects,
    margin_effects,
    z_differences,
)
from workbench.models.hooked import HookedModel
from workbench.phases import PHASES
from workbench.prompts.prompt import DecisionEvent, Variant


class CleanRun(NamedTuple):
    """What the clean run says; `z`, over the aligned suffix, is `hook_z`.

    `stretches` is the attention of the decision to the stretches of the note; `projected` what the
    output projections put out at the decision; `gradients`, by counterfactual, those of the margin
    that it takes away, in z over the suffix.
    """

    routes: Float[Tensor, "option layer head route"]
    stretches: Float[Tensor, "stretch layer head"]
    z: Float[Tensor, "layer position head d_head"]
    projected: list[Float[Tensor, " d_model"]]
    gradients: dict[str, list[Float[Tensor, "position head d_head"]]]


class FirstOrder(NamedTuple):
    """Effects of the clean heads, with the gradient of a counterfactual run or of the clean one."""

    effects: HeadEffects
    at_clean: Float[Tensor, "layer head"]
    logits: Float[Tensor, " option"]


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
        model, event, n_layers = self.model, self.event, self.model.info.n_layers
        spans, stretches = [option.span for option in event.options], note_stretches(event)
        routes: list[Tensor] = [torch.empty(0)] * n_layers
        read: list[Tensor] = [torch.empty(0)] * n_layers

        def reduce(layer: int, pattern: Tensor, hook: Any) -> None:
            rows = widen(pattern[0].detach())
            routes[layer] = attention_routes(rows, spans, event.evidence).cpu().double()
            read[layer] = decision_mass(rows, stretches).cpu().double()

        hooks = [
            (f"blocks.{layer}.attn.hook_pattern", partial(reduce, layer))
            for layer in range(n_layers)
        ]
        roles, suffix = Roles.of(event), slice(-event.aligned_suffix, None)
        with frozen_parameters(model.bridge):
            run = gradient_run(model, event.clean, hooks)
            logits = select_options(run.logits, event)
            gradients = {}
            for phase in PHASES.values():
                margin = MARGINS[phase.readout](logits, roles)
                found = torch.autograd.grad(margin, run.z, retain_graph=True)
                gradients[phase.counterfactual] = [widen(layer[0, suffix]) for layer in found]
        z = [layer[0, suffix].detach() for layer in run.z]
        z = torch.stack([layer.to(z[0].device) for layer in z])
        return CleanRun(
            torch.stack(routes, dim=1), torch.stack(read, dim=1), z, run.projected, gradients
        )

    def first_order(
        self, variant: Variant, outputs: Callable[[Tensor], Sequence[Tensor]]
    ) -> FirstOrder:
        """First-order effects of the clean heads in a counterfactual.

        Those by its own gradient are on functions of the option logits, those by the clean run's on
        the margin that the counterfactual takes away.
        """
        with frozen_parameters(self.model.bridge):
            run = gradient_run(self.model, self.event.variant(variant))
            logits = select_options(run.logits, self.event)
            effects = head_effects(run, outputs(logits), self.clean.z, self.output_weights)
        differences = z_differences(run, self.clean.z)
        at_clean = contract(differences, self.clean.gradients[variant]).cpu().double()
        return FirstOrder(effects, at_clean, logits.detach())

    @cached_property
    def cluster(self) -> list[int]:
        """Options of gold's cluster: gold and near ones."""
        return Roles.of(self.event).relevant.nonzero().flatten().tolist()

    @cached_property
    def near_miss(self) -> FirstOrder:
        """Effects in the near counterfactual, with each option of gold's cluster as gold."""
        found = self.first_order("near", lambda logits: list(logits[self.cluster]))
        logits = found.logits[self.cluster]
        margins = HeadEffects(*(margin_effects(part, logits) for part in found.effects))
        return found._replace(effects=margins)

    @cached_property
    def far_margin(self) -> FirstOrder:
        """Effects on the coarse margin in the far counterfactual."""
        roles = Roles.of(self.event)
        return self.first_order("far", lambda logits: [coarse_margin(logits, roles)])
