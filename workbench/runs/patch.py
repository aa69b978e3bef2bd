"""The patching step: causal effects of chosen heads, event by event; a stopped sweep goes on."""

from collections.abc import Sequence

import pandas as pd
import torch
from transformer_lens.utilities.statistics import derive_generator

from workbench.analysis.option_mass import mass_counts, mass_warning
from workbench.analysis.patching.effects import HALVES, causal_effects
from workbench.analysis.patching.engine import engine_use
from workbench.analysis.patching.patching import EVENT_COLUMNS, sweep
from workbench.analysis.patching.screening import COLUMNS as SCREEN_COLUMNS
from workbench.analysis.patching.screening import promising, screen_heads
from workbench.analysis.scores.registry import known_scores
from workbench.heads import Head, parse_heads
from workbench.models.hooked import HookedModel
from workbench.phases import valid_pairs
from workbench.prompts.prompt import DecisionEvent, PromptSet
from workbench.runs.config import HEAD_CHOICES, RunConfig
from workbench.runs.steps import Made
from workbench.runs.subject import Parts, Subject, Tables, runs_worth_patching, valid_runs

EFFECT_COLUMNS = [
    *("layer", "head", "positions", "measure", "half"),
    *("effect", "low", "high", "n", "n_excluded", "group", "intervention"),
]


def screen(subject: Subject, tables: Tables) -> Made:
    """First-order estimates of what patching each head does, on the selection half."""
    baseline = tables["baseline"]
    events = valid_pairs(subject.selection, baseline)
    if not events:
        subject.reporter.say("screen: no valid pair in the selection half, so no head is promising")
        return Made({"screen": pd.DataFrame(columns=SCREEN_COLUMNS)}, {"events": 0, "heads": 0})
    with subject.reporter.step("screen", len(events)) as advance:
        table = screen_heads(subject.model, events, runs_of=valid_runs(baseline), progress=advance)
    promised = promising(table, subject.config.n_screened)
    return Made({"screen": table}, {"events": len(events), "heads": len(promised)})


def patch(subject: Subject, tables: Tables, parts: Parts) -> Made:
    """Causal effects of heads one by one.

    Events that are valid pairs for no phase are not patched: no mean would hold their values.

    Raises:
        InputError: a head name that is not one, or a head the model does not have.
    """
    config, baseline = subject.config, tables["baseline"]
    if warning := mass_warning(mass_counts(baseline)):
        subject.reporter.say(warning)
    valid = valid_pairs(subject.prompts, baseline)
    if not valid:
        subject.reporter.say("patch: no event is a valid pair, so there is nothing to patch")
        empty = {
            "patching_events": pd.DataFrame(columns=EVENT_COLUMNS),
            "patching": pd.DataFrame(columns=EFFECT_COLUMNS),
        }
        return Made(empty, {"events": 0, "heads": {}})
    heads = _choose_heads(subject, tables)
    engine = engine_use(subject.model, valid, config.positions, len(heads))
    if engine.separate:
        subject.reporter.say(f"patch: {engine.words}")
    _sweep(subject, valid, heads, baseline, parts)
    events = pd.concat(parts.values(), ignore_index=True)
    there = tuple(baseline["half"].unique())
    effects = causal_effects(
        events,
        baseline,
        halves=there if len(there) == 1 else HALVES,
        n_resamples=config.n_resamples,
        seed=config.seed,
    )
    groups = heads["group"].value_counts().to_dict()
    effects = effects.assign(intervention=config.intervention)
    made = {"patching_events": events, "patching": effects}
    return Made(made, {"events": len(valid), "heads": groups, "engine": engine.words})


def _choose_heads(subject: Subject, tables: Tables) -> pd.DataFrame:
    """Heads to patch and why: layer, head, group.

    "nominated" heads rank first in a score, or in the first-order estimate of a patched run; random
    others are their "control". Heads named one by one count as nominated.
    """
    config, scores = subject.config, tables["scores"]
    every = heads_of(scores)
    if config.heads == "all":
        groups = {"all": every}
    elif config.heads in HEAD_CHOICES:
        best = (
            promising(tables["screen"], config.n_screened)
            if config.heads == "screen"
            else nominate(scores, config.n_nominated)
        )
        groups = {"nominated": best, "control": draw_controls(every, best, config)}
    else:
        groups = {"nominated": named_heads(subject.model, config)}
    rows = [(*at, group) for group, members in groups.items() for at in sorted(members)]
    return pd.DataFrame(rows, columns=["layer", "head", "group"])


def heads_of(table: pd.DataFrame) -> list[Head]:
    """Heads of a table's rows."""
    return list(zip(table["layer"].tolist(), table["head"].tolist(), strict=True))


def named_heads(model: HookedModel, config: RunConfig) -> list[Head]:
    """The heads that the settings name one by one, if they do.

    Raises:
        InputError: a name that is none, or a head that the model does not have.
    """
    heads = [] if config.heads in HEAD_CHOICES else parse_heads(config.heads)
    for at in heads:
        model.check_head(*at)
    return heads


def nominate(scores: pd.DataFrame, count: int) -> list[Head]:
    """Heads among the first `count` of a score that nominates, by mean."""
    known = [one for name, one in known_scores().items() if one.nominates and name in scores]
    return sorted({at for score in known for at in heads_of(score.first(scores, count))})


def draw_controls(
    every: Sequence[Head], nominated: Sequence[Head], config: RunConfig
) -> list[Head]:
    """Random heads among those that were not nominated."""
    others = [at for at in every if at not in set(nominated)]
    generator = derive_generator(config.seed, "patching controls")
    order = torch.randperm(len(others), generator=generator).tolist()
    return [others[index] for index in order[: config.n_controls]]


def _sweep(
    subject: Subject,
    valid: list[DecisionEvent],
    heads: pd.DataFrame,
    baseline: pd.DataFrame,
    parts: Parts,
) -> None:
    """Patch event by event, keeping each event's rows as soon as it is done."""
    if parts:
        subject.reporter.say(f"patch: {len(parts)} of {len(valid)} events were done before")
    left = [number for number in range(len(valid)) if number not in parts]
    if not left:
        return
    positions = subject.config.positions
    frames = sweep(
        subject.model,
        PromptSet(subject.prompts.task, tuple(valid[number] for number in left)),
        heads_of(heads),
        positions,
        halves=subject.halves,
        group=heads["group"].tolist(),
        runs_of=runs_worth_patching(baseline, subject.halves),
        intervention=subject.config.intervention,
    )
    name = f"patch, {len(heads)} heads, {' and '.join(positions)}"
    with subject.reporter.step(name, len(valid)) as advance:
        for number, frame in zip(left, frames, strict=True):
            parts[number] = frame
            advance(len(valid) - len(left) + left.index(number) + 1, len(valid))
