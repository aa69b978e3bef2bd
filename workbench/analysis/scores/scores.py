"""Observational scores of every head: CoarseScore for filtering, RefineScore for near misses.

1. Per event, run clean (attention patterns and head outputs), near and far (with gradients).
2. *CoarseScore*: the larger route of the mean contrast between relevant and far options
   (`attention.py`).
3. *RefineScore*: first-order effect of the head's clean output, in the near counterfactual, on
   m = logit(g) − logsumexp(N) (`attribution.py`), with the part that goes straight to the logits.
4. Over events: bootstrap intervals, permutation p-values, false discovery rate over all heads.

A score nominates heads; only patching shows what they do.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from workbench.analysis.readout import Roles, coarse_margin, select_options, widen
from workbench.analysis.scores.attention import (
    ROUTES,
    attention_routes,
    contrast_weights,
)
from workbench.analysis.scores.attribution import (
    frozen_parameters,
    gradient_run,
    head_effects,
    head_outputs,
    margin_effects,
    z_names,
)
from workbench.analysis.scores.nulls import (
    RoleNull,
    coarse_null,
    null_p,
    refine_null,
)
from workbench.analysis.statistics import bootstrap, false_discovery_q, mean_statistic
from workbench.errors import InputError
from workbench.models.hooked import HookedModel
from workbench.prompts.prompt import VARIANTS, DecisionEvent, PromptSet


@dataclass(frozen=True)
class EventScores:
    """What one decision event says about every head; axis "cluster" is gold and near options.

    `refine[j]` is the effect on the log-odds of option j of the cluster against the others of it;
    row `gold` is the real one, the others serve the permutation null. `options` names the options,
    so that events of one prompt can be told to offer the same ones.
    """

    routes: Float[Tensor, "option layer head route"]
    weights: Float[Tensor, " option"]
    refine: Float[Tensor, "cluster layer head"]
    gold: int
    refine_direct: Float[Tensor, "layer head"]
    coarse_attribution: Float[Tensor, "layer head"]
    output_norm: Float[Tensor, "layer head"]
    options: tuple[str, ...] = ()


def score_heads(
    model: HookedModel,
    prompts: PromptSet,
    *,
    n_resamples: int = 2000,
    n_permutations: int = 2000,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> pd.DataFrame:
    """Score every head on every event: one row per layer and head.

    Intervals are 95 %, over prompts; `*_p` are one-sided permutation p-values and `*_q` their
    Benjamini-Hochberg adjustment over all heads. `n_permutations` is raised to 20 per head where it
    is less: with fewer, no head could pass alone. `progress` is called with (events done, events).
    """
    output_weights = model.output_weights()
    scores = []
    for done, event in enumerate(prompts, start=1):
        scores.append(score_event(model, event, output_weights))
        if progress is not None:
            progress(done, len(prompts))
    ids = [event.id for event in prompts]
    return scores_table(
        scores, ids, n_resamples=n_resamples, n_permutations=n_permutations, seed=seed
    )


def score_event(
    model: HookedModel,
    event: DecisionEvent,
    output_weights: Float[Tensor, "layer head d_head d_model"],
) -> EventScores:
    """All per-event values, from one clean, one near and one far run.

    Raises:
        InputError: a variant is longer than the model takes, a token outside its vocabulary, or
            gradients that overflow the model's dtype.
    """
    model.check_sequences([event.variant(name) for name in VARIANTS])
    routes, clean_z = _clean_run(model, event)
    refine, refine_direct, gold = _refine_effects(model, event, clean_z, output_weights)
    written = head_outputs(widen(clean_z[:, -1]), output_weights)
    attribution = _coarse_attribution(model, event, clean_z, output_weights)
    if not bool(refine.isfinite().all() and attribution.isfinite().all()):
        raise InputError(
            f"prompt {event.id!r} event {event.event}: its gradients are not finite in "
            f"{model.info.dtype}; use --dtype float32 or bfloat16"
        )
    return EventScores(
        routes=routes,
        weights=contrast_weights(event),
        refine=refine,
        gold=gold,
        refine_direct=refine_direct,
        coarse_attribution=attribution,
        output_norm=written.norm(dim=-1).cpu().double(),
        options=tuple(option.label for option in event.options),
    )


def _clean_run(
    model: HookedModel, event: DecisionEvent
) -> tuple[Float[Tensor, "option layer head route"], Float[Tensor, "layer position head d_head"]]:
    """Attention routes, and z over the aligned suffix.

    Patterns are reduced inside the hook: all layers of them at once would be the largest tensor
    of the analysis by far.
    """
    spans = [option.span for option in event.options]
    n_layers = model.info.n_layers
    routes: list[Tensor] = [torch.empty(0)] * n_layers
    z: list[Tensor] = [torch.empty(0)] * n_layers

    def keep_routes(layer: int, pattern: Tensor, hook: Any) -> None:
        routes[layer] = attention_routes(widen(pattern[0]), spans, event.evidence).cpu().double()

    def keep_z(layer: int, tensor: Tensor, hook: Any) -> None:
        z[layer] = tensor[0, -event.aligned_suffix :].clone()

    hooks = [(name, partial(keep_z, layer)) for layer, name in enumerate(z_names(n_layers))]
    hooks += [
        (f"blocks.{layer}.attn.hook_pattern", partial(keep_routes, layer))
        for layer in range(n_layers)
    ]
    tokens = torch.tensor([list(event.clean)], device=model.device)
    model.logits_at(tokens, [len(event.clean) - 1], hooks)
    return torch.stack(routes, dim=1), torch.stack([layer.to(z[0].device) for layer in z])


def _refine_effects(
    model: HookedModel,
    event: DecisionEvent,
    clean_z: Float[Tensor, "layer position head d_head"],
    output_weights: Float[Tensor, "layer head d_head d_model"],
) -> tuple[Float[Tensor, "cluster layer head"], Float[Tensor, "layer head"], int]:
    """RefineScore with each option of gold's cluster as gold, the direct part, and gold's row."""
    cluster = Roles.of(event).relevant.nonzero().flatten().tolist()
    gold = cluster.index(event.with_role("gold")[0])
    with frozen_parameters(model.bridge):
        run = gradient_run(model, event.near)
        logits = select_options(run.logits, event)[cluster]
        effects = head_effects(run, list(logits), clean_z, output_weights)
    refine = margin_effects(effects.total, logits)
    return refine, margin_effects(effects.direct, logits)[gold], gold


def _coarse_attribution(
    model: HookedModel,
    event: DecisionEvent,
    clean_z: Float[Tensor, "layer position head d_head"],
    output_weights: Float[Tensor, "layer head d_head d_model"],
) -> Float[Tensor, "layer head"]:
    """First-order effect on logsumexp(g ∪ N) − logsumexp(F) in the far counterfactual."""
    with frozen_parameters(model.bridge):
        run = gradient_run(model, event.far)
        margin = coarse_margin(select_options(run.logits, event), Roles.of(event))
        return head_effects(run, [margin], clean_z, output_weights).total[0]


def scores_table(
    scores: Sequence[EventScores],
    prompt_ids: Sequence[str],
    *,
    n_resamples: int = 2000,
    n_permutations: int = 2000,
    seed: int = 0,
) -> pd.DataFrame:
    """Means, intervals and p-values over events, as the `scores` table.

    `n_permutations` is a minimum, as in `score_heads`.
    """
    n_layers, n_heads = scores[0].output_norm.shape
    layer, head = np.indices((n_layers, n_heads))
    columns: dict[str, Any] = {"layer": layer, "head": head}
    resample = partial(bootstrap, prompt_ids=prompt_ids, n_resamples=n_resamples, seed=seed)

    p_values = {
        name: null_p(null, n_permutations=n_permutations, seed=seed)[0]
        for name, null in score_nulls(scores, prompt_ids).items()
    }

    contrasts = torch.stack(
        [torch.tensordot(score.weights, score.routes, dims=1) for score in scores]
    )
    route_means = contrasts.mean(dim=0)
    coarse = resample(lambda means: means.amax(dim=-1), contrasts, labels=["coarse"])
    columns |= _interval_columns("coarse", coarse)
    columns |= _p_columns("coarse", p_values["coarse"])
    columns["coarse_route"] = np.array(ROUTES)[route_means.argmax(dim=-1).numpy()]
    columns |= {f"coarse_{name}": route_means[..., index] for index, name in enumerate(ROUTES)}

    refine = torch.stack([score.refine[score.gold] for score in scores])
    columns |= _interval_columns("refine", resample(mean_statistic, refine, labels=["refine"]))
    columns |= _p_columns("refine", p_values["refine"])
    for name in ("refine_direct", "coarse_attribution"):
        values = torch.stack([getattr(score, name) for score in scores])
        columns |= _interval_columns(name, resample(mean_statistic, values, labels=[name]))
    columns["output_norm"] = torch.stack([score.output_norm for score in scores]).mean(dim=0)
    flat = {name: np.asarray(values).ravel() for name, values in columns.items()}
    return pd.DataFrame(flat).assign(n=len(scores))


def score_nulls(scores: Sequence[EventScores], prompt_ids: Sequence[str]) -> dict[str, RoleNull]:
    """The permutation nulls of both scores, "coarse" and "refine", roles dealt out by prompt."""
    options = [score.options or tuple(map(str, range(len(score.weights)))) for score in scores]
    clusters = [
        [name for name, weight in zip(names, score.weights.tolist(), strict=True) if weight > 0]
        for names, score in zip(options, scores, strict=True)
    ]
    return {
        "coarse": coarse_null(
            [score.routes for score in scores],
            [score.weights for score in scores],
            prompt_ids=prompt_ids,
            options=options,
        ),
        "refine": refine_null(
            [score.refine for score in scores],
            [score.gold for score in scores],
            prompt_ids=prompt_ids,
            options=clusters,
        ),
    }


def _interval_columns(name: str, interval: Any) -> dict[str, Tensor]:
    return {
        name: interval.estimate,
        f"{name}_low": interval.low,
        f"{name}_high": interval.high,
    }


def _p_columns(name: str, p_values: Float[Tensor, "layer head"]) -> dict[str, Tensor]:
    return {f"{name}_p": p_values, f"{name}_q": false_discovery_q(p_values)}
