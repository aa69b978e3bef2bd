"""The pooling step: heads chosen on one half of the prompts, proven together on the other.

1. Apply the pooling rule to the choosing half.
2. Patch each pool as one, and control sets of its size: random heads of the same layers, and the
   heads with the largest output; on the verifying half.
3. Join everything into the head set.
"""

import hashlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import pandas as pd

from workbench.analysis.patching.patching import THRESHOLDS, joint_effects
from workbench.errors import InputError
from workbench.heads import Head, head_name
from workbench.headsets import headset as headset_file
from workbench.headsets.controls import controls
from workbench.headsets.headset import HeadSet, describe_prompts
from workbench.headsets.pooling import Thresholds, build_headset, pool_heads
from workbench.phases import POOLS, valid_pairs
from workbench.prompts.prompt import PromptSet
from workbench.runs.config import RunConfig
from workbench.runs.folder import versions
from workbench.runs.session import HEADSET_FILE, OpenRun

COLUMNS = ["pool", "set", "draw", "positions", "measure", "effect", "low", "high", "n", "heads"]


class PooledSet(NamedTuple):
    """Heads that are patched together: a pool itself, or a control of it."""

    pool: str
    set: str
    draw: int
    heads: Sequence[Head]


def make_pools(opened: OpenRun) -> tuple[HeadSet, pd.DataFrame]:
    """The head set and the pools table of a run whose patching is done.

    Raises:
        InputError: the heads were not patched over the span.
    """
    scores = opened.folder.read_table("scores")
    patching = opened.folder.read_table("patching")
    config = opened.config
    thresholds = Thresholds(
        config.false_discovery_rate, config.min_restore_low, config.read_out_share
    )
    pooled = pool_heads(scores, patching, thresholds)
    sets = _sets(opened, pooled, scores)
    pools = _joint(opened, sets) if sets else pd.DataFrame(columns=COLUMNS)
    found = build_headset(
        pooled=pooled,
        scores=scores,
        patching=patching,
        pools=pools,
        thresholds=thresholds,
        **_provenance(opened),
    )
    return found, pools


def _sets(opened: OpenRun, pooled: pd.DataFrame, scores: pd.DataFrame) -> list[PooledSet]:
    """Every pool that has heads, with its controls."""
    in_any = list(zip(pooled["layer"].tolist(), pooled["head"].tolist(), strict=True))
    sets = []
    for pool in POOLS:
        ranked = pooled.loc[pooled["pool"] == pool].sort_values("weight", ascending=False)
        heads = list(zip(ranked["layer"].tolist(), ranked["head"].tolist(), strict=True))
        if not heads:
            opened.reporter.say(f"pool: no head qualifies for the {pool} pool")
            continue
        sets.append(PooledSet(pool, "pool", 0, heads))
        drawn = controls(
            heads,
            scores,
            opened.model.info.n_heads,
            opened.config.seed,
            opened.config.draws,
            pooled=in_any,
        )
        if not drawn["norm"]:
            opened.reporter.say(f"pool: too few heads are left for controls of the {pool} pool")
        for name, members in drawn.items():
            sets += [PooledSet(pool, name, draw, chosen) for draw, chosen in enumerate(members)]
    return sets


def _joint(opened: OpenRun, sets: Sequence[PooledSet]) -> pd.DataFrame:
    """Joint effects of all sets, on the events of the verifying half that count."""
    baseline = opened.folder.read_table("baseline")
    verify = opened.prompts.subset(sorted(opened.halves.verify))
    events = valid_pairs(verify, baseline)
    if not events:
        opened.reporter.say("pool: no event of the verifying half counts, so no joint effects")
        return pd.DataFrame(columns=COLUMNS)
    with opened.reporter.step(f"joint effects of {len(sets)} sets", len(events)) as advance:
        effects = joint_effects(
            opened.model,
            PromptSet(verify.task, tuple(events)),
            baseline,
            [one.heads for one in sets],
            opened.config.positions,
            n_resamples=opened.config.n_resamples,
            seed=opened.config.seed,
            runs_of=opened.runs_of,
            progress=advance,
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
    return pd.concat(frames, ignore_index=True).reindex(columns=COLUMNS)


def _provenance(opened: OpenRun) -> dict[str, Any]:
    """What the head set says of model, prompts, tokenizer and method; no path and no text."""
    info, prompts, config = opened.model.info, opened.prompts, opened.config
    model = ("name", "revision", "architecture", "n_layers", "n_heads", "n_kv_heads", "d_model")
    method = ("dtype", "attention_implementation", "compatibility_mode")
    halves = opened.halves
    return {
        "model": {name: getattr(info, name) for name in (*model, "weights_sha256")},
        "prompts": describe_prompts(
            prompts.task,
            prompts.sha256,
            sorted(halves.choose),
            sorted(halves.verify),
            config.seed,
        ),
        "tokenizer": _tokenizer(opened),
        "method": {
            **{name: getattr(info, name) for name in method},
            "versions": versions(("workbench", "transformer_lens", "transformers", "torch")),
            "seeds": {"run": config.seed},
            "thresholds": THRESHOLDS,
        },
    }


def _tokenizer(opened: OpenRun) -> dict[str, Any]:
    """Hash of the tokenizer as loaded, and the prompts' template where this run made them."""
    tokenizer: Any = opened.model.tokenizer
    made_with = opened.folder.manifest["prompts"]["made_with"] or {}
    backend = getattr(tokenizer, "backend_tokenizer", None)
    digest = None if backend is None else hashlib.sha256(backend.to_str().encode()).hexdigest()
    special = {} if tokenizer is None else tokenizer.special_tokens_map
    return {
        "sha256": digest,
        "template": made_with.get("template"),
        "special_tokens": {k: v for k, v in special.items() if isinstance(v, str)},
    }


def pool(opened: OpenRun) -> HeadSet:
    """Pools from the choosing half, their joint effects on the verifying half, and the head set.

    Raises:
        InputError: `patch` was not run, or not over the span.
    """
    _check_span(opened.config)
    opened.folder.require("patch", "patch")
    opened.do("pool", lambda: _pool(opened))
    return headset_file.load(opened.folder.path / HEADSET_FILE)


def _pool(opened: OpenRun) -> dict[str, Any]:
    found, pools = make_pools(opened)
    opened.folder.write_table("pools", pools)
    headset_file.save(found, opened.folder.path / HEADSET_FILE)
    return {f"{name}_heads": len(found.in_pool(name)) for name in POOLS}


def _check_span(config: RunConfig) -> None:
    if "span" not in config.positions:
        raise InputError("pools are made from span effects: positions must be span or both")
