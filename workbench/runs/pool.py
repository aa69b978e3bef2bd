"""The pooling steps: heads selected on one half of the prompts, proven together on the other.

1. Ask of heads that the pooling rule may let in how much of their effect they only pass on.
2. Apply the pooling rule to the selection half.
3. Patch each pool as one, and control sets of its size: random heads of the same layers, and the
   heads with the largest output; on the held-out half.
4. Join everything into the head set.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any, NamedTuple

import pandas as pd

from workbench.analysis.patching.effects import HALVES, causal_effects
from workbench.analysis.patching.engine import engine_use
from workbench.analysis.patching.passing import sweep_passing
from workbench.analysis.patching.patching import THRESHOLDS
from workbench.errors import InputError
from workbench.heads import Head, head_name
from workbench.headsets.building import build_headset
from workbench.headsets.candidates import explain_empty, nearest_heads, task_level
from workbench.headsets.controls import controls
from workbench.headsets.headset import describe_prompts
from workbench.headsets.paper_rule import CHAIN_SCORES, paper_pools, read_scores
from workbench.headsets.paper_rule import RULE as PAPER_RULE
from workbench.headsets.pooling import KEYS, beats_null, explain_sets, pool_heads
from workbench.headsets.records import ModelInfo
from workbench.headsets.thresholds import Thresholds
from workbench.measures import PASSING
from workbench.phases import PHASES, VALUE_RUNS, valid_pairs
from workbench.prompts.prompt import DecisionEvent
from workbench.roles import HEAD_POOLS
from workbench.runs.config import RunConfig
from workbench.runs.manifest import versions
from workbench.runs.patch import EFFECT_COLUMNS, heads_of
from workbench.runs.rows import sweep_rows, sweep_sets
from workbench.runs.steps import HEADSET, Made
from workbench.runs.subject import Parts, Subject, Tables, runs_worth_patching, valid_runs

COLUMNS = ["pool", "set", "draw", "positions", "measure", "effect", "low", "high", "n", "heads"]


class PooledSet(NamedTuple):
    """Heads that are patched together: a pool itself, or a control of it."""

    pool: str
    set: str
    draw: int
    heads: Sequence[Head]


def passing(subject: Subject, tables: Tables, parts: Parts) -> Made:
    """What heads that the rule lets in pass on of their effect, on both halves.

    Empty where no head is let in, or where what this model's heads pass on is not known.
    """
    baseline = tables["baseline"]
    _check_values(tables["patching"])
    candidates = pool_heads(
        tables["scores"], tables["patching"], thresholds_of(subject.config), sets=tables.get("sets")
    )
    heads = heads_of(candidates.loc[candidates["pool"] != "suppressor"])
    events = valid_pairs(subject.prompts, baseline) if heads else []
    full = valid_runs(baseline, ("denoising",))

    def runs_of(event: DecisionEvent) -> tuple[str, ...]:
        return tuple(run for run in VALUE_RUNS if run.removesuffix("_values") in full(event))

    def passed(event: DecisionEvent, which: list[int], places: list[str]) -> pd.DataFrame:
        some = [heads[at] for at in which]
        found = sweep_passing(subject.model, [event], some, halves=subject.halves, runs_of=full)
        frame = pd.concat(found, ignore_index=True)
        target = [some.index(at) for at in heads_of(frame)]
        return frame.drop(columns=["layer", "head", "half"]).assign(target=target)

    try:
        with subject.reporter.step(f"what {len(heads)} heads pass on", len(events)) as advance:
            swept = sweep_rows(
                events,
                [head_name(*at) for at in heads],
                ("span",),
                runs_of,
                passed,
                before=subject.rows("passing"),
                parts=parts,
                advance=advance,
                together=subject.together,
            )
    except InputError as error:
        subject.reporter.say(f"pool: no head is called a mover, since {error}")
        events = []
    if not events:
        return Made({"passing": pd.DataFrame(columns=EFFECT_COLUMNS)}, {"heads": 0})
    halves = tuple(baseline["half"].unique())
    at = [heads[target] for target in swept.asked["target"]]
    effects = causal_effects(
        swept.asked.assign(layer=[one[0] for one in at], head=[one[1] for one in at]),
        baseline,
        halves=halves if len(halves) == 1 else HALVES,
        measures=PASSING,
        n_resamples=subject.config.n_resamples,
        seed=subject.config.seed,
    )
    return Made({"passing": effects}, {"heads": len(heads)}, swept.kept)


def _check_values(patching: pd.DataFrame) -> None:
    if (patching.get("intervention", pd.Series("z")) != "z").any():
        raise InputError("patching table has patched patterns: pools are made from intervention z")


def pool(subject: Subject, tables: Tables, parts: Parts) -> Made:
    """The pools and their joint effects, and the head set.

    Raises:
        InputError: the heads were not patched over the span, or their patterns were patched.
    """
    scores, patching, passed = tables["scores"], tables["patching"], tables["passing"]
    _check_values(patching)
    thresholds = thresholds_of(subject.config)
    by_paper = bool(subject.config.chain_scores)
    if by_paper:
        chain = read_scores(subject.config.chain_scores)
        pooled = paper_pools(_of_this_model(chain, scores), subject.config.n_chain)
    else:
        pooled = _by_effect(subject, tables)
    sets = _sets(subject, pooled, scores)
    joint, kept = pd.DataFrame(columns=COLUMNS), None
    if sets:
        joint, kept = _joint(subject, sets, tables["baseline"], parts)
    found = build_headset(
        pooled=pooled,
        scores=scores,
        patching=patching,
        pools=joint,
        thresholds=thresholds,
        passing=passed,
        rules=dict.fromkeys(CHAIN_SCORES, PAPER_RULE) if by_paper else None,
        **_provenance(subject),
    )
    counts = {f"{name}_heads": len(found.in_pool(name)) for name in HEAD_POOLS}
    levels = task_level(subject.prompts.events, tables["baseline"])
    candidates = nearest_heads(patching, pooled, levels, len(scores), thresholds)
    for name in PHASES:
        for line in explain_empty(candidates, name):
            subject.reporter.say(f"pool: {name}: {line}")
    return Made({"pools": joint, HEADSET: found, "candidates": candidates}, counts, kept)


def thresholds_of(config: RunConfig) -> Thresholds:
    """The pooling rule's limits."""
    return Thresholds(**config.only(tuple(Thresholds.__dataclass_fields__)))


def check_span(config: RunConfig) -> None:
    """Refuse settings that give no pools.

    Raises:
        InputError: heads are not patched over the span.
    """
    if "span" not in config.positions:
        raise InputError("pools are made from span effects: positions must be span or both")


def _sets(subject: Subject, pooled: pd.DataFrame, scores: pd.DataFrame) -> list[PooledSet]:
    """Every pool that has heads, with its controls."""
    in_any = heads_of(pooled)
    sets = []
    for pool in HEAD_POOLS:
        ranked = pooled.loc[pooled["pool"] == pool].sort_values("weight", ascending=False)
        heads = heads_of(ranked)
        if not heads:
            if pool in PHASES:
                subject.reporter.say(f"pool: no head qualifies for the {pool} pool")
            continue
        sets.append(PooledSet(pool, "pool", 0, heads))
        drawn = controls(
            heads,
            scores,
            subject.model.info.n_heads,
            subject.config.seed,
            subject.config.draws,
            pooled=in_any,
        )
        if not any(drawn.values()):
            subject.reporter.say(f"pool: too few heads are left for controls of the {pool} pool")
            continue
        if len(drawn["random"]) < subject.config.draws:
            subject.reporter.say(
                f"pool: {len(drawn['random'])} different sets of random heads for the {pool} pool, "
                f"not {subject.config.draws}: there are no more"
            )
        if not drawn["norm"]:
            subject.reporter.say(
                f"pool: no heads of the largest output beside the {pool} pool, since what this "
                "model's heads add to the residual stream is not known"
            )
        for name, members in drawn.items():
            sets += [PooledSet(pool, name, draw, chosen) for draw, chosen in enumerate(members)]
    return sets


def _joint(
    subject: Subject, sets: Sequence[PooledSet], baseline: pd.DataFrame, parts: Parts
) -> tuple[pd.DataFrame, pd.DataFrame | None]:
    """Joint effects of all sets, on the valid pairs of the held-out half, and rows to keep."""
    events = valid_pairs(subject.held_out, baseline)
    if not events:
        subject.reporter.say("pool: no valid pair in the held-out half, so no joint effects")
        return pd.DataFrame(columns=COLUMNS), None
    with subject.reporter.step(f"joint effects of {len(sets)} sets", len(events)) as advance:
        swept = sweep_sets(
            subject.model,
            events,
            [one.heads for one in sets],
            subject.config.positions,
            runs_worth_patching(baseline, subject.halves),
            before=subject.rows("pool"),
            parts=parts,
            advance=advance,
            together=subject.together,
        )
    effects = causal_effects(
        swept.asked,
        baseline,
        by=("target",),
        halves=("verify",),
        n_resamples=subject.config.n_resamples,
        seed=subject.config.seed,
    )
    frames = [
        effects.loc[effects["target"] == target].assign(
            pool=one.pool,
            set=one.set,
            draw=one.draw,
            heads=" ".join(head_name(*at) for at in one.heads),
        )
        for target, one in enumerate(sets)
    ]
    return pd.concat(frames, ignore_index=True).reindex(columns=COLUMNS), swept.kept


def _by_effect(subject: Subject, tables: Tables) -> pd.DataFrame:
    """Pools by margins, and what is to be said of them."""
    scores, added = tables["scores"], tables.get("sets")
    thresholds = thresholds_of(subject.config)
    pooled = pool_heads(scores, tables["patching"], thresholds, tables["passing"], added)
    for line in explain_sets(added, pooled):
        subject.reporter.say(f"pool: {line}")
    unseen = heads_of(pooled.merge(scores.loc[~beats_null(scores, thresholds)], on=KEYS))
    if unseen:
        subject.reporter.say(
            "pool: by what they do alone, since no score of theirs beats its null: "
            + " ".join(head_name(*at) for at in unseen)
        )
    return pooled


def _of_this_model(chain: pd.DataFrame, scores: pd.DataFrame) -> pd.DataFrame:
    here, there = (set(zip(t["layer"], t["head"], strict=True)) for t in (scores, chain))
    if here != there:
        raise InputError(
            f"chain scores are of {len(there)} heads, the model has {len(here)} others: give the "
            "table that `study paper` made of this model"
        )
    return chain


def _provenance(subject: Subject) -> dict[str, Any]:
    """What the head set says of model, prompts, tokenizer and method; no path and no text."""
    info, prompts, config = subject.model.info, subject.prompts, subject.config
    method = ("dtype", "attention_implementation", "compatibility_mode")
    halves = subject.halves
    return {
        "model": {name: asdict(info)[name] for name in ModelInfo.model_fields},
        "prompts": describe_prompts(
            prompts.task, prompts.sha256, sorted(halves.choose), sorted(halves.verify), config.seed
        ),
        "tokenizer": _tokenizer(subject),
        "method": {
            **{name: getattr(info, name) for name in method},
            "versions": versions(("workbench", "transformer_lens", "transformers", "torch")),
            "seeds": {"run": config.seed},
            "thresholds": THRESHOLDS,
            "engine": engine_use(
                subject.model, prompts, config.positions, info.n_layers * info.n_heads
            ).words,
        },
    }


def _tokenizer(subject: Subject) -> dict[str, Any]:
    """Hash of the tokenizer as loaded, and the prompts' template where this run made them."""
    tokenizer: Any = subject.model.tokenizer
    backend = getattr(tokenizer, "backend_tokenizer", None)
    digest = None if backend is None else hashlib.sha256(backend.to_str().encode()).hexdigest()
    special = {} if tokenizer is None else tokenizer.special_tokens_map
    return {
        "sha256": digest,
        "template": subject.template,
        "special_tokens": {k: v for k, v in special.items() if isinstance(v, str)},
    }
