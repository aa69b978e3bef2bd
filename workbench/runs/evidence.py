"""What a sceptic asks of a finished run: curves, stability, and what happens along the chain.

Three steps on a run folder whose pools were made, each with tables of its own:

1. *curves*: how much of Focus and Confusion rests on the first heads of an order; the pools' order
   against those of rivals (`orders`, `curves`, `areas`);
2. *stability*: would other prompts have chosen the same heads (`stability`, `sample_size`), and how
   much of their effect is left where they were not chosen (`winners_curse`);
3. *chain*: Focus and Confusion along the model's own chain of thought, and which pooled heads act
   at which of its stages (`chain`, `turning_points`, `chain_tokens`, `chain_effects`).

A step that was stopped is taken up; `curves` at the next event. What they found is added to the
head set.
"""

from collections.abc import Sequence
from typing import Any

import pandas as pd

from workbench.analysis.chains.effects import chain_effects
from workbench.analysis.chains.generation import write_chains
from workbench.analysis.chains.tokens import token_trajectory, token_values
from workbench.analysis.chains.trajectories import (
    chain_trajectory,
    chain_values,
    turning_points,
)
from workbench.analysis.curves.areas import faithfulness_tables
from workbench.analysis.curves.faithfulness import (
    curve_event,
    plan_curves,
    wanted_sets,
)
from workbench.analysis.curves.orderings import order_scores, read_orders
from workbench.analysis.scores.scores import EventScores, score_event
from workbench.errors import InputError
from workbench.heads import Head
from workbench.headsets import headset as headset_file
from workbench.headsets.annotate import add_evidence
from workbench.headsets.headset import HeadSet
from workbench.headsets.pooling import Thresholds, pool_heads
from workbench.headsets.stability import sample_size_curve, selection_stability, winners_curse
from workbench.models.hooked import HookedModel
from workbench.phases import POOLS, valid_pairs
from workbench.progress import Reporter
from workbench.prompts.chain import ChainCase, question_cases
from workbench.prompts.choices import stage_reader
from workbench.prompts.prompt import VARIANTS, PromptSet, Variant
from workbench.runs import evidence as evidence_steps
from workbench.runs.folder import _outdate_reports
from workbench.runs.session import HEADSET_FILE, OpenRun

N_RANDOM_ORDERS = 5
SIZES = (0.25, 0.5, 0.75, 1.0)
"""Shares of the choosing prompts for which pools are made again."""

EVIDENCE_TABLES = (
    "areas",
    "chain",
    "chain_effects",
    "chain_tokens",
    "curves",
    "sample_size",
    "stability",
    "turning_points",
    "winners_curse",
)
"""Tables that the report shows where they are there."""


def curves(opened: OpenRun) -> pd.DataFrame:
    """Faithfulness curves of the pools' order and of others, on the half that verifies.

    Returns:
        the areas table.

    Raises:
        InputError: `pool` was not run.
    """
    opened.folder.require("pool", "pool")
    opened.do("curves", lambda: _curves(opened))
    opened.folder.remove_parts("curves")  # only now: a run killed before still has its events
    return opened.folder.read_table("areas")


def _curves(opened: OpenRun) -> dict[str, Any]:
    folder = opened.folder
    baseline = folder.read_table("baseline")
    verify = opened.prompts.subset(sorted(opened.halves.verify))
    orders = read_orders(_orders(opened, baseline))
    plan = plan_curves(opened.model, orders)
    jobs = [(event, wanted_sets(plan, event, baseline)) for event in verify]
    jobs = [(event, sets) for event, sets in jobs if sets]
    if not jobs:
        raise InputError("no event of the verifying half counts, so there is nothing to ablate")
    kept = folder.part_numbers("curves")
    n_sets = sum(len(sets) for sets in plan.sets.values())
    with opened.reporter.step(f"curves of {len(orders)} orders, {n_sets} sets", len(jobs)) as done:
        for number, (event, sets) in enumerate(jobs):
            if number not in kept:
                folder.write_part("curves", number, curve_event(opened.model, event, sets))
            done(number + 1, len(jobs))
    tables = faithfulness_tables(
        pd.concat(folder.read_parts("curves"), ignore_index=True),
        plan,
        baseline,
        n_resamples=opened.config.n_resamples,
        seed=opened.config.seed,
    )
    folder.write_table("curves", tables.curves)
    folder.write_table("areas", tables.areas)
    return {"events": len(jobs), "orders": len(orders), "sets": n_sets}


def _orders(opened: OpenRun, baseline: pd.DataFrame) -> pd.DataFrame:
    """What every order ranks heads by, made once: the parts of the curves depend on it."""
    folder = opened.folder
    if folder.part_numbers("curves"):
        return folder.read_table("orders")
    with opened.reporter.step("orders of heads") as advance:
        table = order_scores(
            opened.model,
            opened.prompts,
            baseline,
            folder.read_table("scores"),
            folder.read_table("patching"),
            _pooled(_headset(opened)),
            n_random=N_RANDOM_ORDERS,
            seed=opened.config.seed,
            progress=advance,
        )
    folder.write_table("orders", table)
    return table


def stability(opened: OpenRun) -> pd.DataFrame:
    """How firm the choice of heads is: over resamples, over fewer prompts, and on the other half.

    Returns:
        the stability table.

    Raises:
        InputError: `pool` was not run.
    """
    opened.folder.require("pool", "pool")
    opened.do("stability", lambda: _stability(opened))
    return opened.folder.read_table("stability")


def _stability(opened: OpenRun) -> dict[str, Any]:
    folder, config = opened.folder, opened.config
    chosen = opened.prompts.subset(sorted(opened.halves.choose))
    weights = opened.model.output_weights()
    scores: list[EventScores] = []
    with opened.reporter.step("scores of every event", len(chosen)) as advance:
        for done, event in enumerate(chosen, start=1):
            scores.append(score_event(opened.model, event, weights))
            advance(done, len(chosen))
    limits = Thresholds(config.false_discovery_rate, config.min_restore_low, config.read_out_share)
    ids = [event.id for event in chosen]
    made = (folder.read_table("patching_events"), folder.read_table("baseline"))
    with opened.reporter.step("pools of other prompts"):
        table = selection_stability(scores, ids, *made, thresholds=limits, seed=config.seed)
        n_prompts = len(set(ids))
        sizes = sorted({max(1, round(share * n_prompts)) for share in SIZES})
        smaller = sample_size_curve(scores, ids, *made, sizes, thresholds=limits, seed=config.seed)
    patching = folder.read_table("patching")
    pooled = pool_heads(folder.read_table("scores"), patching, limits)
    folder.write_table("stability", table)
    folder.write_table("sample_size", smaller)
    folder.write_table("winners_curse", winners_curse(patching, pooled))
    return {"events": len(chosen), "sizes": sizes}


def chain(opened: OpenRun) -> pd.DataFrame:
    """Focus and Confusion along chains of thought that the model writes itself.

    Prompts without the bundled task's cues have no place for a chain; then the tables are empty,
    and the reason is said.

    Returns:
        the chain table.

    Raises:
        InputError: `pool` was not run.
    """
    opened.folder.require("pool", "pool")
    opened.do("chain", lambda: _chain(opened))
    return opened.folder.read_table("chain")


def _chain(opened: OpenRun) -> dict[str, Any]:
    folder, config = opened.folder, opened.config
    try:
        cases, values = follow_chains(opened.model, opened.prompts, opened.reporter)
    except InputError as error:
        opened.reporter.say(f"chain: none ({error})")
        for name in ("chain", "turning_points", "chain_tokens", "chain_effects"):
            folder.write_table(name, pd.DataFrame())
        return {"events": 0}
    seeded = {"n_resamples": config.n_resamples, "seed": config.seed}
    with opened.reporter.step("along the tokens of the chain"):
        tokens = token_trajectory(token_values(opened.model, cases, source="generated"), **seeded)
    effects = _chain_effects(opened, cases)
    folder.write_table("chain", chain_trajectory(values, **seeded))
    folder.write_table("turning_points", turns(values, **seeded))
    folder.write_table("chain_tokens", tokens)
    folder.write_table("chain_effects", effects)
    return {"events": len(cases)}


def follow_chains(
    model: HookedModel,
    prompts: PromptSet,
    reporter: Reporter,
    variants: Sequence[Variant] = VARIANTS,
) -> tuple[list[ChainCase], pd.DataFrame]:
    """Chains that a model writes for some variants, and its answers after each clean step.

    Returns:
        the cases, and the table of `chain_values`.

    Raises:
        InputError: the model has no tokenizer, or the prompts no place for a chain.
    """
    if model.tokenizer is None:
        raise InputError("the model has no tokenizer")
    cases = question_cases(prompts, model.tokenizer)
    with reporter.step(f"chains of thought of {len(cases)} prompts"):
        cases = write_chains(
            model, cases, model.tokenizer, variants=variants, stages=stage_reader(prompts.task)
        )
    frames = []
    with reporter.step("answers after every step", len(cases)) as advance:
        for done, case in enumerate(cases, start=1):
            frames.append(chain_values(model, [case], source="generated"))
            advance(done, len(cases))
    return cases, pd.concat(frames, ignore_index=True)


def turns(values: pd.DataFrame, *, n_resamples: int, seed: int) -> pd.DataFrame:
    """`turning_points` along the whole chain, and from the decision's own step on."""
    ends = [
        turning_points(values, axis=axis, n_resamples=n_resamples, seed=seed)
        for axis in ("share", "offset")
    ]
    return pd.concat(ends, ignore_index=True)


def _chain_effects(opened: OpenRun, cases: Sequence[ChainCase]) -> pd.DataFrame:
    """Effects of the pooled heads at every stage of the chain, on the half that verifies."""
    found, verify = _headset(opened), opened.halves.verify
    pools = {
        pool: heads
        for pool in POOLS
        if (heads := [(head.layer, head.head) for head in found.in_pool(pool)])
    }
    counting = valid_pairs(opened.prompts, opened.folder.read_table("baseline"))
    keys = {(event.id, event.event) for event in counting if event.id in verify}
    wanted = [case for case in cases if (case.event.id, case.event.event) in keys]
    if not pools or not wanted:
        return pd.DataFrame()
    with opened.reporter.step(f"pooled heads along {len(wanted)} chains"):
        return chain_effects(
            opened.model,
            wanted,
            pools,
            positions=("span",),
            n_resamples=opened.config.n_resamples,
            seed=opened.config.seed,
        )


def complete_headset(opened: OpenRun) -> HeadSet:
    """The head set with what the steps found, written in place of the one without."""
    folder = opened.folder
    found = add_evidence(
        _headset(opened), folder.read_table("stability"), folder.read_table("areas")
    )
    headset_file.save(found, folder.path / HEADSET_FILE)
    return found


def _headset(opened: OpenRun) -> HeadSet:
    return headset_file.load(opened.folder.path / HEADSET_FILE)


def _pooled(found: HeadSet) -> list[Head]:
    return [(head.layer, head.head) for head in found.heads]


def evidence(opened: OpenRun) -> HeadSet:
    """Faithfulness curves, stability of the choice, and the chain of thought; after `pool`.

    Returns:
        the head set, which now holds the stability and the areas.

    Raises:
        InputError: `pool` was not run, or no event counts.
    """
    opened.folder.require("pool", "pool")
    if not all(opened.folder.is_done(step) for step in EVIDENCE_STEPS):
        _outdate_reports(opened.folder)
    evidence_steps.stability(opened)
    evidence_steps.chain(opened)
    evidence_steps.curves(opened)
    return evidence_steps.complete_headset(opened)


EVIDENCE_STEPS = ("stability", "chain", "curves")
