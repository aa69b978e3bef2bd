"""What a head passes on: its clean values of what other heads wrote, its attention as it is.

All variants share the tokens of the aligned suffix, so a head's values there differ between two
runs only by what other heads wrote. In the corrupted run such a value is exchanged for that of the
clean run, at the weight that the head's own attention gives it:

    z′ = z + Σ_k A(k) (v_clean(k) − v(k)),   k over the aligned suffix.

Where that has the effect of the whole clean output, the head fetches what is found elsewhere. A
head that finds out by itself reads the evidence, before the suffix, or attends elsewhere.
"""

from collections.abc import Iterator, Sequence

import pandas as pd
from jaxtyping import Float
from torch import Tensor

from workbench.analysis.patching.patching import EVENT_COLUMNS, EventCache, RunsOf, every_run
from workbench.analysis.readout import Roles, readout_columns
from workbench.analysis.statistics import Halves
from workbench.errors import InputError
from workbench.heads import Head
from workbench.models.forked import patch_heads
from workbench.models.hooked import HookedModel, Run
from workbench.phases import VALUE_RUNS
from workbench.prompts.prompt import VARIANTS, DecisionEvent, PromptSet, Variant

OFF = 1e-2
"""How far attention times values may be from a head's output, as a share of its largest entry."""


def sweep_passing(
    model: HookedModel,
    prompts: PromptSet | Sequence[DecisionEvent],
    heads: Sequence[Head],
    *,
    halves: Halves,
    runs_of: RunsOf = every_run,
) -> Iterator[pd.DataFrame]:
    """Heads one by one, over the span; one frame per event, with the columns of `patching_events`.

    An event is patched in the run of a phase where `runs_of` wants its denoising run.

    Raises:
        InputError: a head that the model lacks, or a model whose heads are not attention × values.
    """
    for layer, head in heads:
        model.check_head(layer, head)
    names = pd.DataFrame(heads, columns=["layer", "head"]).assign(group="pooled")
    for event in prompts:
        wanted = {run: pair for run, pair in VALUE_RUNS.items() if _full(run) in runs_of(event)}
        cache = EventCache.of(model, event, ("span",))
        runs = _runs(model, event, sorted({layer for layer, _ in heads}))
        for run, (base, source) in wanted.items():
            z = passed_on(model, cache.z[base], runs[base], runs[source], heads)
            option_logits = patch_heads(
                model, cache.bases[base], z, [[head] for head in heads], tokens=event.option_tokens
            )
            columns = readout_columns(option_logits, Roles.of(event), cache.near_label)
            frame = names.assign(positions="span", run=run, id=event.id, event=event.event)
            frame = frame.assign(half=halves.of(event.id), intervention="v", **columns)
            yield frame.reindex(columns=EVENT_COLUMNS)


def _full(run: str) -> str:
    """The run in which the whole output is patched."""
    return run.removesuffix("_values")


def _runs(model: HookedModel, event: DecisionEvent, layers: Sequence[int]) -> dict[Variant, Run]:
    hooks = [_hook(layer, name) for layer in layers for name in ("pattern", "v")]
    sequences = [event.variant(name) for name in VARIANTS]
    return dict(zip(VARIANTS, model.run(sequences, hooks, batch_size=1), strict=True))


def _hook(layer: int, name: str) -> str:
    return f"blocks.{layer}.attn.hook_{name}"


def passed_on(
    model: HookedModel,
    z: Float[Tensor, "layer position head d_head"],
    base: Run,
    source: Run,
    heads: Sequence[Head],
) -> Float[Tensor, "layer position head d_head"]:
    """`z` of the base run over the aligned suffix; these heads pass on the source run's values.

    Raises:
        InputError: a head's output is not its attention times its values.
    """
    n, group = z.shape[1], model.info.n_heads // model.info.n_kv_heads
    passed = z.clone()
    for layer, head in heads:
        pattern = base.activations[_hook(layer, "pattern")][head, -n:].float()
        before, after = (
            run.activations[_hook(layer, "v")][:, head // group].float() for run in (base, source)
        )
        found, expected = pattern @ before, z[layer, :, head].to(pattern)
        if (found - expected).abs().max() > OFF * max(1.0, float(expected.abs().max())):
            raise InputError(
                f"model {model.info.name!r}: the output of its heads is not attention times "
                "values, so what they pass on is not known"
            )
        change = pattern[:, -n:] @ (after[-n:] - before[-n:])
        passed[layer, :, head] += change.to(passed)
    return passed
