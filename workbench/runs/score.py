"""The scoring step: baseline of every event, scores of every head, layer trajectory."""

from typing import Any

import pandas as pd

from workbench.analysis.logit_lens import layer_trajectory
from workbench.analysis.patching.patching import baseline as baseline_table
from workbench.analysis.patching.patching import event_counts
from workbench.analysis.scores.registry import known_scores
from workbench.analysis.scores.scores import score_heads
from workbench.prompts.prompt import PromptSet
from workbench.runs.session import OpenRun
from workbench.runs.summary import explain_counts


def score(opened: OpenRun) -> pd.DataFrame:
    """What can be seen without patching: the baseline of every event, both scores of every head on
    the choosing half, and the trajectory over layers.

    Returns:
        the scores table.
    """
    opened.do("baseline", lambda: _baseline(opened))
    opened.do("score", lambda: _score(opened))
    opened.do("trajectory", lambda: _trajectory(opened))
    return opened.folder.read_table("scores")


def _baseline(opened: OpenRun) -> dict[str, Any]:
    frames = []
    with opened.reporter.step("baseline", len(opened.prompts)) as advance:
        for done, event in enumerate(opened.prompts, start=1):
            one = PromptSet(opened.prompts.task, (event,))
            frames.append(baseline_table(opened.model, one, opened.halves))
            advance(done, len(opened.prompts))
    table = pd.concat(frames, ignore_index=True)
    opened.folder.write_table("baseline", table)
    by_variant = {row.pop("variant"): row for row in event_counts(table)}
    for variant, counts in by_variant.items():
        opened.reporter.say(explain_counts(variant, counts))
    return by_variant


def _score(opened: OpenRun) -> dict[str, Any]:
    chosen = opened.prompts.subset(sorted(opened.halves.choose))
    with opened.reporter.step("score", len(chosen)) as advance:
        table = score_heads(
            opened.model,
            chosen,
            n_resamples=opened.config.n_resamples,
            n_permutations=opened.config.n_permutations,
            seed=opened.config.seed,
            progress=advance,
        )
    opened.folder.write_table("scores", table)
    limit = opened.config.false_discovery_rate
    significant = {
        name: int((table[f"{name}_q"].to_numpy() <= limit).sum())
        for name, one in known_scores().items()
        if one.null is not None
    }
    return {"events": len(chosen), "heads": len(table), "below_false_discovery_rate": significant}


def _trajectory(opened: OpenRun) -> dict[str, Any]:
    with opened.reporter.step("trajectory"):
        table = layer_trajectory(
            opened.model,
            opened.prompts,
            n_resamples=opened.config.n_resamples,
            seed=opened.config.seed,
        )
    opened.folder.write_table("trajectory", table)
    return {"events": len(opened.prompts)}
