"""What the whole span sweep of a task's prompts costs: every head, every patched run.

The loop is TransformerLens's, timed on one head a layer in a few events and extrapolated to every
head, run and event. Screening is timed with its own gradients, and judged by what it keeps of the
heads that the full sweep finds to matter.
"""

import contextlib
import io
import time
from collections.abc import Callable, Sequence
from typing import Any

import pandas as pd
import torch
from torch import Tensor
from transformer_lens.patching import generic_activation_patch

from workbench.analysis.patching.effects import causal_effects
from workbench.analysis.patching.patching import baseline, sweep
from workbench.analysis.patching.screening import promising, screen_heads
from workbench.analysis.statistics import Halves, split_half
from workbench.heads import Head
from workbench.measures import BOUNDED
from workbench.models.hooked import HookedModel
from workbench.phases import RUNS
from workbench.progress import Reporter
from workbench.prompts.prompt import VARIANTS, DecisionEvent, PromptSet
from workbench.runs.config import RunConfig

MATTERS = 0.05
"""Size from which an effect is one that screening must not lose."""
TIMED_EVENTS = 4


def bench_sweep(
    model: HookedModel, prompts: PromptSet, config: RunConfig, reporter: Reporter
) -> dict[str, Any]:
    """Seconds of the loop, the full sweep and the screened one; ratios; recall of screening.

    Heads are screened on the selection half, as `workbench patch --heads screen` does, and their
    effects taken over all valid pairs.
    """
    halves = split_half(prompts.prompt_ids, config.seed)
    every = [(a, b) for a in range(model.info.n_layers) for b in range(model.info.n_heads)]
    forwards = len(every) * len(RUNS) * len(prompts)
    with reporter.step("every head, and the loop on a sample", len(prompts)) as advance:
        loop, full, events = _side_by_side(model, prompts, every, halves, advance)
    selection = list(prompts.subset(sorted(halves.choose)))
    with reporter.step("screened heads", len(prompts)) as advance:
        estimated, kept = _timed(
            lambda: promising(screen_heads(model, selection), config.n_screened)
        )
        controls = every[:: max(1, len(every) // config.n_controls)][: config.n_controls]
        patched = sorted({*kept, *controls})
        frames = sweep(model, prompts, patched, ("span",), halves=halves)
        swept = 0.0
        for done in range(1, len(prompts) + 1):
            swept += _timed(lambda: next(frames))[0]
            advance(done, len(prompts))
    base = baseline(model, prompts, halves)
    effects = causal_effects(events, base, halves=("all",), n_resamples=1, seed=config.seed)
    return {
        "events": len(prompts),
        "heads": len(every),
        "runs": len(RUNS),
        "loop": {"seconds": loop * forwards, "extrapolated": True},
        "full": {"seconds": full},
        "screened": {
            "seconds": estimated + swept,
            "estimating_seconds": estimated,
            "heads": len(kept),
            "controls": len(patched) - len(kept),
        },
        "loop_over_full": loop * forwards / full,
        "loop_over_screened": loop * forwards / (estimated + swept),
        **_recall(effects, kept),
    }


def _timed(work: Callable[[], Any]) -> tuple[float, Any]:
    started = time.perf_counter()
    result = work()
    if torch.accelerator.is_available():
        torch.accelerator.synchronize()
    return time.perf_counter() - started, result


def _side_by_side(
    model: HookedModel,
    prompts: PromptSet,
    heads: Sequence[Head],
    halves: Halves,
    advance: Callable[[int, int], None],
) -> tuple[float, float, pd.DataFrame]:
    """Seconds per forward of the loop, seconds of the full sweep, and its results.

    Some events are timed in the loop right before they are swept, so that what else the machine
    does meanwhile weighs on both.
    """
    sample = [(layer, layer % model.info.n_heads) for layer in range(model.info.n_layers)]
    events = list(prompts)
    timed = events[:: max(1, len(events) // TIMED_EVENTS)][:TIMED_EVENTS]
    _event_seconds(model, timed[0], sample)  # for warming up
    loop, full, frames = 0.0, 0.0, []
    frame_of = sweep(model, prompts, heads, ("span",), halves=halves)
    for event in events:
        if event in timed:
            loop += _event_seconds(model, event, sample) / len(timed)
        seconds, frame = _timed(lambda: next(frame_of))
        full += seconds
        frames.append(frame)
        advance(len(frames), len(events))
    return loop, full, pd.concat(frames, ignore_index=True)


@torch.no_grad()
def _event_seconds(model: HookedModel, event: DecisionEvent, heads: Sequence[Head]) -> float:
    """Mean seconds per head and run; the caches that values are taken from are not timed."""
    names = [f"blocks.{layer}.attn.hook_z" for layer, _ in heads]
    index = pd.DataFrame(heads, columns=["layer", "head"])
    tokens = {
        name: torch.tensor([list(event.variant(name))], device=model.device) for name in VARIANTS
    }
    caches: Any = {
        name: model.bridge.run_with_cache(ids, names_filter=names)[1]
        for name, ids in tokens.items()
    }

    def every_run() -> None:
        for base, source in RUNS.values():
            generic_activation_patch(
                model.bridge,
                tokens[base],
                caches[source],
                lambda logits: logits[0, -1, event.option_tokens[0]],
                _last_positions(event.aligned_suffix),
                "z",
                index_df=index,
            )

    with contextlib.redirect_stderr(io.StringIO()):  # its progress bar
        seconds, _ = _timed(every_run)
    return seconds / (len(RUNS) * len(heads))


def _last_positions(count: int) -> Any:
    """Patch setter for [layer, head] over the last positions, where the prompts are aligned."""

    def patch(z: Tensor, index: Sequence[int], cache: Tensor) -> Tensor:
        z[:, -count:, index[1]] = cache[:, -count:, index[1]]
        return z

    return patch


def _recall(effects: pd.DataFrame, kept: Sequence[Head]) -> dict[str, Any]:
    """How many of the heads that matter were kept, and the largest effect that was not."""
    largest: dict[Head, float] = {}
    for row in effects.to_dict("records"):
        if row["measure"] in BOUNDED:
            at = int(row["layer"]), int(row["head"])
            largest[at] = max(largest.get(at, 0.0), abs(row["effect"]))
    matter = {at for at, effect in largest.items() if effect >= MATTERS}
    return {
        "matters": MATTERS,
        "heads_that_matter": len(matter),
        "of_these_kept": len(matter & set(kept)),
        "recall": len(matter & set(kept)) / len(matter) if matter else None,
        "largest_effect_lost": max((largest[at] for at in set(largest) - set(kept)), default=0.0),
    }
