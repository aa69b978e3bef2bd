"""The patching step: causal effects of chosen heads, event by event; a stopped sweep goes on."""

from collections.abc import Sequence
from typing import Any

import pandas as pd
import torch
from transformer_lens.utilities.statistics import derive_generator

from workbench.analysis.patching.effects import causal_effects
from workbench.analysis.patching.patching import EVENT_COLUMNS, sweep
from workbench.analysis.patching.screening import promising, screen_heads
from workbench.analysis.scores.registry import known_scores
from workbench.heads import Head, parse_heads
from workbench.phases import valid_pairs
from workbench.prompts.prompt import DecisionEvent, PromptSet
from workbench.runs.config import HEAD_CHOICES, RunConfig
from workbench.runs.session import OpenRun, check_heads


def patch(opened: OpenRun) -> pd.DataFrame:
    """Causal effects of heads one by one; takes up a stopped sweep at the next event.

    Events that count for no measure are not patched: their values would be left out of every mean.

    Returns:
        the patching table.

    Raises:
        InputError: `score` was not run, or a head the model does not have.
    """
    opened.folder.require("score", "score")
    opened.do("patch", lambda: _patch(opened))
    opened.folder.remove_parts("patch")  # only now: a run killed before still has its events
    return opened.folder.read_table("patching")


def _patch(opened: OpenRun) -> dict[str, Any]:
    folder, config = opened.folder, opened.config
    baseline = folder.read_table("baseline")
    counting = valid_pairs(opened.prompts, baseline)
    groups: dict[str, int] = {}
    if counting:
        heads = _choose_heads(opened)
        groups = heads["group"].value_counts().to_dict()
        _sweep(opened, counting, heads)
        events = pd.concat(folder.read_parts("patch"), ignore_index=True)
        effects = causal_effects(events, baseline, n_resamples=config.n_resamples, seed=config.seed)
    else:
        opened.reporter.say("patch: no event counts, so there is nothing to patch")
        events, effects = pd.DataFrame(columns=EVENT_COLUMNS), pd.DataFrame(columns=EFFECT_COLUMNS)
    folder.write_table("patching_events", events)
    folder.write_table("patching", effects)
    return {"events": len(counting), "heads": groups}


def _choose_heads(opened: OpenRun) -> pd.DataFrame:
    """Heads to patch and why: layer, head, group.

    "nominated" heads rank first in a score, or in the first-order estimate of a patched run; random
    others are their "control". Heads named one by one count as nominated.

    Raises:
        InputError: a head name that is not one, or a head the model does not have.
    """
    config, scores = opened.config, opened.folder.read_table("scores")
    every = [(layer, head) for layer, head in zip(scores["layer"], scores["head"], strict=True)]
    if config.heads == "all":
        groups = {"all": every}
    elif config.heads in HEAD_CHOICES:
        screened = config.heads == "screen"
        best = _screen(opened) if screened else nominate(scores, config.n_nominated)
        groups = {"nominated": best, "control": draw_controls(every, best, config)}
    else:
        check_heads(opened.model, config)
        groups = {"nominated": parse_heads(config.heads)}
    rows = [(*at, group) for group, members in groups.items() for at in sorted(members)]
    return pd.DataFrame(rows, columns=["layer", "head", "group"])


def nominate(scores: pd.DataFrame, count: int) -> list[Head]:
    """Heads among the first `count` of a score that nominates, by mean."""
    names = [name for name, score in known_scores().items() if score.nominates and name in scores]
    ranked = [scores.nlargest(count, name, keep="first") for name in names]
    both = pd.concat(ranked)
    return sorted(set(zip(both["layer"].tolist(), both["head"].tolist(), strict=True)))


def draw_controls(
    every: Sequence[Head], nominated: Sequence[Head], config: RunConfig
) -> list[Head]:
    """Random heads among those that were not nominated."""
    others = [at for at in every if at not in set(nominated)]
    generator = derive_generator(config.seed, "patching controls")
    order = torch.randperm(len(others), generator=generator).tolist()
    return [others[index] for index in order[: config.n_controls]]


def _screen(opened: OpenRun) -> list[Head]:
    """Heads whose first-order estimates, on the choosing half, promise an effect."""
    chosen = opened.prompts.subset(sorted(opened.halves.choose))
    if not valid_pairs(chosen, opened.folder.read_table("baseline")):
        opened.reporter.say("screen: no event of the choosing half counts, so no head is promising")
        return []
    opened.do("screen", lambda: _estimate(opened))
    return promising(opened.folder.read_table("screen"), opened.config.n_screened)


def _estimate(opened: OpenRun) -> dict[str, Any]:
    chosen = opened.prompts.subset(sorted(opened.halves.choose))
    events = valid_pairs(chosen, opened.folder.read_table("baseline"))
    with opened.reporter.step("screen", len(events)) as advance:
        table = screen_heads(opened.model, events, runs_of=opened.counting_runs, progress=advance)
    opened.folder.write_table("screen", table)
    return {"events": len(events), "heads": len(promising(table, opened.config.n_screened))}


def _sweep(opened: OpenRun, counting: list[DecisionEvent], heads: pd.DataFrame) -> None:
    """Patch event by event, keeping each event's rows on disk as soon as it is done."""
    kept = opened.folder.part_numbers("patch")
    if kept:
        opened.reporter.say(f"patch: {len(kept)} of {len(counting)} events were done before")
    left = [number for number in range(len(counting)) if number not in kept]
    if not left:
        return
    frames = sweep(
        opened.model,
        PromptSet(opened.prompts.task, tuple(counting[number] for number in left)),
        list(zip(heads["layer"].tolist(), heads["head"].tolist(), strict=True)),
        opened.config.positions,
        halves=opened.halves,
        group=heads["group"].tolist(),
        runs_of=opened.runs_of,
    )
    name = f"patch, {len(heads)} heads, {' and '.join(opened.config.positions)}"
    with opened.reporter.step(name, len(counting)) as advance:
        for number, frame in zip(left, frames, strict=True):
            opened.folder.write_part("patch", number, frame)
            advance(len(counting) - len(left) + left.index(number) + 1, len(counting))


EFFECT_COLUMNS = ["layer", "head", "positions", "measure", "half", "effect", "low", "high"]


EFFECT_COLUMNS += ["n", "n_excluded", "group"]
