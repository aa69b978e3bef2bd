"""What a sceptic asks of a finished run: curves, stability, and what happens along the chain.

Three steps after pooling, each with tables of its own:

1. *stability*: would other prompts have selected the same heads (`stability`, `sample_size`), and
   how much of their effect is left where they were not selected (`winners_curse`);
2. *chain*: Focus and Confusion along the model's own chain of thought, and which pooled heads act
   at which of its stages (`chain`, `turning_points`, `chain_tokens`, `chain_effects`);
3. *curves*: how much of Focus and Confusion rests on the first heads of an order; the pools' order
   against those of rivals (`orders`, `curves`, `areas`).
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial

import pandas as pd

from workbench.analysis.chains.effects import chain_effects
from workbench.analysis.chains.generation import write_chains
from workbench.analysis.chains.tokens import token_trajectory, token_values
from workbench.analysis.chains.trajectories import chain_trajectory, chain_values, turning_points
from workbench.analysis.curves.areas import faithfulness_tables
from workbench.analysis.curves.faithfulness import curve_event, plan_curves, wanted_sets
from workbench.analysis.curves.orderings import order_scores, read_orders
from workbench.analysis.scores.scores import RECORDS, EventScores, score_event
from workbench.errors import InputError
from workbench.heads import head_name
from workbench.headsets.pooling import pool_heads
from workbench.headsets.stability import sample_size_curve, selection_stability, winners_curse
from workbench.models.hooked import HookedModel
from workbench.phases import PHASES, valid_pairs
from workbench.processes import Spread, in_order
from workbench.progress import Reporter
from workbench.prompts.chain import ChainCase, find_cues, question_cases
from workbench.prompts.choices import stage_reader
from workbench.prompts.prompt import VARIANTS, DecisionEvent, PromptSet, Variant
from workbench.roles import HEAD_POOLS
from workbench.runs.patch import heads_of
from workbench.runs.paths import pooled_heads
from workbench.runs.pool import thresholds_of
from workbench.runs.rows import fill_parts
from workbench.runs.steps import HEADSET, Made
from workbench.runs.subject import Parts, Subject, Tables

N_RANDOM_ORDERS = 5
SIZES = (0.4, 0.6, 0.8, 1.0)
"""Shares of the selection half's prompts for which pools are made again."""
ORDERS = "orders"


def curves(subject: Subject, tables: Tables, parts: Parts) -> Made:
    """Faithfulness curves of the pools' order and of others, on the held-out half.

    Raises:
        InputError: the held-out half has no valid pair.
    """
    config, baseline = subject.config, tables["baseline"]
    there = subject.together.told(lambda: parts.get(ORDERS))
    ranks = _orders(subject, tables) if there is None else there
    ranks = subject.together.told(lambda: ranks)
    orders = read_orders(ranks)
    plan = plan_curves(subject.model, orders)
    jobs = [(event, wanted_sets(plan, event, baseline)) for event in subject.held_out]
    jobs = [(event, sets) for event, sets in jobs if sets]
    if not jobs:
        raise InputError("no valid pair in the held-out half, so there is nothing to ablate")
    if there is None and subject.together.is_main:  # what other parts hold depends on them
        parts[ORDERS] = ranks
    n_sets = sum(len(sets) for sets in plan.sets.values())
    title = f"curves of {len(orders)} orders, {n_sets} sets"
    with subject.reporter.step(title, len(jobs)) as advance:

        def fill(number: int) -> bool:
            if number not in parts:
                made = curve_event(subject.model, *jobs[number])
                subject.together.check()
                parts[number] = made
            return True

        fill_parts(fill, len(jobs), parts, advance, together=subject.together)
    found = faithfulness_tables(
        pd.concat([parts[number] for number in range(len(jobs))], ignore_index=True),
        plan,
        baseline,
        n_resamples=config.n_resamples,
        seed=config.seed,
    )
    made = {ORDERS: ranks, "curves": found.curves, "areas": found.areas}
    return Made(made, {"events": len(jobs), "orders": len(orders), "sets": n_sets})


def _orders(subject: Subject, tables: Tables) -> pd.DataFrame:
    """What every order ranks heads by; a pooled head has its effect there, which needs one."""
    patching = tables["patching"]
    chosen = patching.loc[(patching["half"] == "choose") & (patching["positions"] == "span")]
    known = [
        set(heads_of(chosen.loc[chosen["measure"] == phase.chief].dropna(subset=["effect"])))
        for phase in PHASES.values()
    ]
    pooled = pooled_heads(tables[HEADSET])
    front = [head for head in pooled if all(head in measured for measured in known)]
    if others := [head_name(*head) for head in pooled if head not in front]:
        subject.reporter.say(
            f"curves: no effects alone of {', '.join(others)}, pooled for what they add to "
            "other heads, so scores rank them; `workbench patch --heads` measures them"
        )
    with subject.reporter.step("orders of heads") as advance:
        return order_scores(
            subject.model,
            subject.prompts,
            tables["baseline"],
            tables["scores"],
            tables["patching"],
            front,
            n_random=N_RANDOM_ORDERS,
            seed=subject.config.seed,
            progress=advance,
            say=subject.reporter.say,
            spread=partial(subject.together.spread, everywhere=True),
        )


def stability(subject: Subject, tables: Tables) -> Made:
    """How firm the selection is: over resamples, over fewer prompts, and on the held-out half."""
    chosen, seed = subject.selection, subject.config.seed
    weights = subject.model.output_weights()

    def scored(events: Sequence[DecisionEvent]) -> Iterator[EventScores]:
        return (score_event(subject.model, event, weights) for event in events)

    with subject.reporter.step("scores of every event", len(chosen)) as advance:
        scores = subject.together.spread(scored, chosen.events, advance, records=RECORDS)
    limits = thresholds_of(subject.config)
    ids = [event.id for event in chosen]
    given = (scores, ids, tables["patching_events"], tables["baseline"])
    with subject.reporter.step("pools of other prompts"):
        rule = {"thresholds": limits, "passing": tables["passing"], "seed": seed}
        table = selection_stability(*given, **rule)
        n_prompts = len(set(ids))
        sizes = sorted({max(1, round(share * n_prompts)) for share in SIZES})
        smaller = sample_size_curve(*given, sizes, **rule)
    pooled = pool_heads(tables["scores"], tables["patching"], limits, tables["passing"])
    made = {"stability": table, "sample_size": smaller}
    made |= {"winners_curse": winners_curse(tables["patching"], pooled)}
    return Made(made, {"events": len(chosen), "sizes": sizes})


def chain(subject: Subject, tables: Tables) -> Made:
    """Focus and Confusion along chains of thought that the model writes itself.

    Prompts without the bundled task's cues have no place for a chain; then the tables are empty,
    and the reason is said.
    """
    spread = partial(subject.together.spread, everywhere=True)
    try:
        cases, values = follow_chains(
            subject.model, subject.prompts, subject.reporter, spread=spread
        )
    except InputError as error:
        subject.reporter.say(f"chain: none ({error})")
        names = ("chain", "turning_points", "chain_tokens", "chain_effects")
        return Made({name: pd.DataFrame() for name in names}, {"events": 0})
    seeded = {"n_resamples": subject.config.n_resamples, "seed": subject.config.seed}
    read = None
    if any(case.clean.own_step for case in cases):
        with subject.reporter.step("along the tokens of the chain"):
            read = token_values(subject.model, cases, source="generated", spread=spread)
    effects = _chain_effects(subject, tables, cases)
    tokens = pd.DataFrame() if read is None else token_trajectory(read, **seeded)
    made = {
        "chain": chain_trajectory(values, **seeded),
        "turning_points": turns(values, **seeded),
        "chain_tokens": tokens,
        "chain_effects": effects,
    }
    return Made(made, {"events": len(cases)})


def follow_chains(
    model: HookedModel,
    prompts: PromptSet,
    reporter: Reporter,
    variants: Sequence[Variant] = VARIANTS,
    opening: str | None = None,
    *,
    spread: Spread = in_order,
) -> tuple[list[ChainCase], pd.DataFrame]:
    """Chains that a model writes for some variants, and its answers after each clean step.

    `opening` is the cue that opens a chain, where it is not that of the prompts' template. Several
    processes `spread` the chains, and all need them.

    Returns:
        the cases, and the table of `chain_values`.

    Raises:
        InputError: the model has no tokenizer, or the prompts no place for a chain.
    """
    if model.tokenizer is None:
        raise InputError("the model has no tokenizer")
    cues = find_cues(prompts, model.tokenizer)
    cues = cues if opening is None else replace(cues, opening=opening)
    cases = question_cases(prompts, model.tokenizer, cues)
    with reporter.step(f"chains of thought of {len(cases)} prompts"):
        cases = write_chains(
            model,
            cases,
            model.tokenizer,
            cues=cues,
            variants=variants,
            stages=stage_reader(prompts.task),
            spread=spread,
        )
    if n_open := sum(not case.clean.closed for case in cases):
        reporter.say(
            f"{n_open} of {len(cases)} chains are not closed: they are followed as far as they go"
        )

    def values(some: Sequence[ChainCase]) -> Iterator[pd.DataFrame]:
        return (chain_values(model, [case], source="generated") for case in some)

    with reporter.step("answers after every step", len(cases)) as advance:
        frames = spread(values, cases, advance)
    return cases, pd.concat(frames, ignore_index=True)


def turns(values: pd.DataFrame, *, n_resamples: int, seed: int) -> pd.DataFrame:
    """`turning_points` along the whole chain, and from the decision's own step if it is known."""
    ends = [
        turning_points(values, axis=axis, n_resamples=n_resamples, seed=seed)
        for axis in ("share", "offset")
        if not values[axis].isna().to_numpy().all()
    ]
    return pd.concat(ends, ignore_index=True)


def _chain_effects(subject: Subject, tables: Tables, cases: Sequence[ChainCase]) -> pd.DataFrame:
    """Effects of the pooled heads at every stage of the chain, on the held-out half."""
    pools = {
        pool: heads
        for pool in HEAD_POOLS
        if (heads := [(head.layer, head.head) for head in tables[HEADSET].in_pool(pool)])
    }
    valid = valid_pairs(subject.held_out, tables["baseline"])
    keys = {(event.id, event.event) for event in valid}
    wanted = [case for case in cases if (case.event.id, case.event.event) in keys]
    if not pools or not wanted:
        return pd.DataFrame()
    with subject.reporter.step("pooled heads along chains", len(wanted)) as advance:
        return chain_effects(
            subject.model,
            wanted,
            pools,
            positions=("span",),
            n_resamples=subject.config.n_resamples,
            seed=subject.config.seed,
            progress=advance,
            spread=subject.together.spread,
        )
