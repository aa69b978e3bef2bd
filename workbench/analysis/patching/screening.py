"""Which heads deserve exact patching: a first-order estimate of every patched run, for all heads.

1. Per event and variant: one forward with a graph (`gradient_run`).
2. For each patched run of `RUNS`, differentiate its margin in the variant that would be patched
   (Focus is the logistic function of the coarse margin, Confusion of minus the near-miss margin)
   and contract with the difference to the other variant, over the aligned suffix.
3. Average the size of the estimates over events; a head is kept when it ranks high in any run.

The estimate costs one backward per run, whatever the number of heads. It misses what saturation
hides, so heads are ranked by it and never reported by it.
"""

from collections.abc import Callable, Collection, Iterator, Sequence

import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from workbench.analysis.patching.patching import RunsOf, every_run
from workbench.analysis.readout import MARGINS, Roles, select_options
from workbench.analysis.scores.attribution import frozen_parameters, gradient_run, head_effects
from workbench.errors import InputError
from workbench.heads import Head
from workbench.models.hooked import HookedModel
from workbench.phases import DIRECTION_OF, PHASES, RUNS
from workbench.processes import Spread, in_order
from workbench.prompts.prompt import DecisionEvent, Variant

COLUMNS = ["layer", "head", "run", "estimate", "n"]
"""Columns of the `screen` table; `estimate` is in units of log-odds, a mean over `n` events."""


def screen_heads(
    model: HookedModel,
    events: Sequence[DecisionEvent],
    *,
    runs_of: RunsOf = every_run,
    progress: Callable[[int, int], None] | None = None,
    spread: Spread = in_order,
) -> pd.DataFrame:
    """Mean size of the first-order effect of every head in each patched run over the span.

    `runs_of` names the runs that an event is wanted for; several processes `spread` the events. One
    row per head and run.

    Raises:
        InputError: no event, or none that is wanted for any run.
    """
    weights = model.output_weights()
    sums: dict[str, Tensor] = {}
    counts: dict[str, int] = {}

    def estimated(some: Sequence[DecisionEvent]) -> Iterator[dict[str, Tensor]]:
        for event in some:
            found = _estimates(model, event, runs_of(event), weights)
            yield {run: estimate.abs().cpu() for run, estimate in found.items()}

    for estimates in spread(estimated, events, progress):
        for run, size in estimates.items():
            sums[run] = sums.get(run, torch.zeros(())) + size
            counts[run] = counts.get(run, 0) + 1
    if not sums:
        raise InputError("nothing to screen heads with: no event is a valid pair for any measure")
    rows = [
        (layer, head, run, float(sums[run][layer, head]) / counts[run], counts[run])
        for run in sums
        for layer in range(model.info.n_layers)
        for head in range(model.info.n_heads)
    ]
    return pd.DataFrame(rows, columns=COLUMNS)


def _estimates(
    model: HookedModel,
    event: DecisionEvent,
    runs: Collection[str],
    weights: Float[Tensor, "layer head d_head d_model"],
) -> dict[str, Float[Tensor, "layer head"]]:
    # A sibling's value names no head that a clean value does not.
    wanted = {run: RUNS[run] for run in RUNS if run in runs and DIRECTION_OF[run] != "transfer"}
    variants: set[Variant] = {variant for pair in wanted.values() for variant in pair}
    roles = Roles.of(event)
    with frozen_parameters(model.bridge):
        graphs = {name: gradient_run(model, event.variant(name)) for name in variants}
        z = {
            name: torch.stack(
                [
                    layer[0, -event.aligned_suffix :].detach().to(graph.z[0].device)
                    for layer in graph.z
                ]
            )
            for name, graph in graphs.items()
        }
        estimates = {}
        for run, (base, source) in wanted.items():
            [phase] = [p for p in PHASES.values() if run in (p.denoising, p.noising)]
            logits = select_options(graphs[base].logits, event)
            margin = MARGINS[phase.readout](logits, roles)
            estimates[run] = head_effects(graphs[base], [margin], z[source], weights).total[0]
    return estimates


def promising(screen: pd.DataFrame, count: int) -> list[Head]:
    """Heads among the `count` largest estimates of at least one run."""
    ranked = screen.sort_values("estimate", ascending=False, kind="stable").groupby("run")
    first = ranked.head(count)
    return sorted(set(zip(first["layer"].tolist(), first["head"].tolist(), strict=True)))
