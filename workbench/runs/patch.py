"""The patching step: causal effects of chosen heads, event by event; a stopped sweep goes on."""

from collections.abc import Sequence

import pandas as pd
import torch
from transformer_lens.utilities.statistics import derive_generator

from workbench.analysis.option_mass import mass_counts, mass_warning
from workbench.analysis.patching.effects import HALVES, causal_effects
from workbench.analysis.patching.engine import engine_use
from workbench.analysis.patching.patching import EVENT_COLUMNS, sweep_event
from workbench.analysis.patching.screening import COLUMNS as SCREEN_COLUMNS
from workbench.analysis.patching.screening import promising, screen_heads
from workbench.analysis.scores.registry import known_scores
from workbench.heads import Head, head_name, parse_heads
from workbench.models.hooked import HookedModel
from workbench.phases import valid_pairs
from workbench.prompts.prompt import DecisionEvent
from workbench.runs.config import HEAD_CHOICES, RunConfig
from workbench.runs.rows import sweep_rows
from workbench.runs.steps import Made
from workbench.runs.subject import Parts, Subject, Tables, runs_worth_patching, valid_runs

EFFECT_COLUMNS = [
    *("layer", "head", "positions", "measure", "half"),
    *("effect", "low", "high", "n", "n_excluded", "group", "intervention"),
]
GROUPS = ("nominated", "control", "all")
"""Why a head is patched, in the order of their rows."""


def screen(subject: Subject, tables: Tables) -> Made:
    """First-order estimates of what patching each head does, on the selection half."""
    baseline = tables["baseline"]
    events = valid_pairs(subject.selection, baseline)
    if not events:
        subject.reporter.say("screen: no valid pair in the selection half, so no head is promising")
        return Made({"screen": pd.DataFrame(columns=SCREEN_COLUMNS)}, {"events": 0, "heads": 0})
    with subject.reporter.step("screen", len(events)) as advance:
        table = screen_heads(
            subject.model,
            events,
            runs_of=valid_runs(baseline),
            progress=advance,
            spread=subject.together.spread,
        )
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
    before = _named(subject.rows("patch"))
    heads = _choose_heads(subject, tables, before)
    engine = engine_use(subject.model, valid, config.positions, len(heads))
    if engine.separate:
        subject.reporter.say(f"patch: {engine.words}")
    events = _sweep(subject, valid, heads, baseline, before, parts)
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


def _named(rows: pd.DataFrame) -> pd.DataFrame:
    """Rows of a `patching_events` table with the name of their head; none of an older form."""
    if list(rows.columns) != EVENT_COLUMNS:
        return pd.DataFrame()
    return rows.assign(name=[head_name(*at) for at in heads_of(rows)])


def _choose_heads(subject: Subject, tables: Tables, before: pd.DataFrame) -> pd.DataFrame:
    """Heads to patch and why: layer, head, group.

    "nominated" heads rank first in a score, or in the first-order estimate of a patched run; random
    others are their "control". Heads named one by one count as nominated. Heads that were patched
    before stay, for the reason that they had.
    """
    there = pd.DataFrame(columns=["layer", "head", "group"])
    if len(before):
        there = before.drop_duplicates(["layer", "head"]).reindex(columns=there.columns)
    chosen = [there]
    for config in subject.asked("patch"):
        chosen.append(_asked_heads(subject, config, tables, there))
    heads = pd.concat(chosen, ignore_index=True).drop_duplicates(["layer", "head"])
    order = heads["group"].map(GROUPS.index)
    heads = heads.assign(order=order).sort_values(["order", "layer", "head"], ignore_index=True)
    if len(there):
        subject.reporter.say(
            f"patch: {len(there)} heads were patched before, "
            f"{len(heads) - len(there) or 'none'} {_are(len(heads) - len(there))} added"
        )
    return heads.drop(columns="order").astype({"layer": "int64", "head": "int64", "group": "str"})


def _are(count: int) -> str:
    return "are" if count > 1 else "is"


def _asked_heads(
    subject: Subject, config: RunConfig, tables: Tables, there: pd.DataFrame
) -> pd.DataFrame:
    """Heads that one setting asks for; of random ones, as many as are there fewer are drawn."""
    every = heads_of(tables["scores"])
    groups: dict[str, list[Head]]
    if config.heads == "all":
        groups = {"all": every}
    elif config.heads == "screen" and "screen" not in tables:
        groups = {}  # asked for before: what it promised then is there
    elif config.heads in HEAD_CHOICES:
        best = (
            promising(tables["screen"], config.n_screened)
            if config.heads == "screen"
            else nominate(tables["scores"], config.n_nominated)
        )
        random = set(heads_of(there.loc[there["group"] == "control"])) - set(best)
        taken = {*best, *heads_of(there)}
        drawn = draw_controls(every, [at for at in every if at in taken], config)
        groups = {"nominated": best, "control": drawn[: max(0, config.n_controls - len(random))]}
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
    before: pd.DataFrame,
    parts: Parts,
) -> pd.DataFrame:
    """Rows of all heads and events; new ones are kept as soon as an event is done."""
    if parts:
        subject.reporter.say(f"patch: {len(parts)} of {len(valid)} events were done before")
    positions, intervention = subject.config.positions, subject.config.intervention
    members = heads_of(heads)

    def patched(event: DecisionEvent, which: list[int], places: list[str]) -> pd.DataFrame:
        return sweep_event(
            subject.model,
            event,
            [[members[at]] for at in which],
            places,
            runs=runs_of(event),
            intervention=intervention,
        )

    runs_of = runs_worth_patching(baseline, subject.halves)
    name = f"patch, {len(heads)} heads, {' and '.join(positions)}"
    with subject.reporter.step(name, len(valid)) as advance:
        rows = sweep_rows(
            valid,
            [head_name(*at) for at in members],
            positions,
            runs_of,
            patched,
            before=before,
            parts=parts,
            advance=advance,
            together=subject.together,
        ).asked
    about = heads.iloc[rows["target"].to_numpy()].reset_index(drop=True)
    half = [subject.halves.of(name) for name in rows["id"]]
    rows = rows.assign(**{name: about[name] for name in about}, half=half)
    return rows.assign(intervention=intervention).reindex(columns=EVENT_COLUMNS)
