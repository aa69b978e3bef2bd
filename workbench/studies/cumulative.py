"""Which ranking of heads explains more: cumulative curves, their areas, and a double dissociation.

1. Score heads on the selection half, and patch each alone there.
2. Order all heads (see `cumulative_orders`).
3. On the held-out half patch the first k heads of each ordering together, in both directions, with
   z and with patterns, at every place that is wanted (see `curves.scenes`, `parting`, `written`).
4. Look for heads that move one readout and leave the other, at each place.
"""

import hashlib
import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import pandas as pd
from pydantic import Field

from workbench.analysis.curves.cumulative import cumulative_sizes, cumulative_tables
from workbench.analysis.curves.dissociation import sets_plan
from workbench.analysis.curves.faithfulness import plan_curves
from workbench.analysis.curves.filter_heads import LAST
from workbench.analysis.scores.scores import score_heads
from workbench.analysis.statistics import split_half
from workbench.files import settings
from workbench.models.hooked import HookedModel
from workbench.phases import BOTH_WAYS, INTERVENTIONS, Intervention
from workbench.progress import Reporter
from workbench.prompts.prompt import PromptSet
from workbench.runs.folder import RunFolder
from workbench.runs.place import hold, is_run
from workbench.studies.cumulative_orders import all_orders, ranks_table
from workbench.studies.dissociated import dissociated
from workbench.studies.patched_sets import Parts, Place, Work, positions_table

STEP = "cumulative"
TABLES = ("orders", "curves", "areas", "differences", "dissociation", "sets", "positions")


@settings
class CumulativeStudy:
    """Settings of the study.

    Raises:
        InputError: a value outside its range.
    """

    places: Annotated[
        tuple[Place, ...], Field(min_length=1, description="Where heads are patched.")
    ] = ("span",)
    interventions: Annotated[
        tuple[Intervention, ...], Field(min_length=1, description="What of a head is patched.")
    ] = INTERVENTIONS
    sizes: Annotated[
        tuple[int, ...],
        Field(
            description="Heads patched together; unless given, every number on "
            "models of 200 heads or fewer, else the paper's and its shares of all heads."
        ),
    ] = ()
    alone: Annotated[
        bool,
        Field(
            description="Patch every head alone, too: for orderings by effect, and for heads that "
            "move one readout and not the other."
        ),
    ] = True
    rivals: Annotated[
        bool, Field(description="Order heads by the rankings of other authors, too.")
    ] = True
    n_random: Annotated[int, Field(ge=1, description="Random orderings.")] = 5
    n_last: Annotated[
        int, Field(ge=1, description="Last tokens whose queries are moved, for filter heads.")
    ] = LAST
    n_early: Annotated[int, Field(ge=1, description="Chain tokens that count as early.")] = 30
    t_star: Annotated[
        float, Field(gt=0, lt=1, description="Share of the chain after which tokens are late.")
    ] = 0.5
    n_resamples: Annotated[
        int, Field(ge=1, description="Bootstrap resamples of prompts behind every interval.")
    ] = 2000
    seed: Annotated[int, Field(ge=0, description="Seed of halves, resamples and draws.")] = 0


def settings_of(study: CumulativeStudy) -> dict[str, Any]:
    """The settings as a folder keeps them."""
    return {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(study).items()}


def run_cumulative(
    out: Path,
    model: HookedModel,
    prompts: PromptSet,
    study: CumulativeStudy,
    rankings: Mapping[str, pd.DataFrame] | None = None,
    *,
    reporter: Reporter | None = None,
) -> dict[str, pd.DataFrame]:
    """`study_cumulative` in a folder, in which a study that was stopped goes on.

    Raises:
        InputError: a folder of something else, or what `study_cumulative` refuses.
    """
    tables = rankings or {}
    digest = sorted(f"{name} {_sha256(table)}" for name, table in tables.items())
    identity = {
        "model": {"name": model.info.name, "weights_sha256": model.info.weights_sha256},
        "prompts": {"task": prompts.task, "sha256": prompts.sha256},
    }
    with hold(out):
        folder = RunFolder.open(out) if is_run(out) else RunFolder.create(out, identity)
        folder.check(identity)
        if not folder.begin(STEP, settings_of(study) | {"rankings": digest}):
            return {name: folder.read_table(name) for name in TABLES}
        started, parts = time.monotonic(), folder.parts(STEP)
        parts.drop_damaged()
        made = study_cumulative(model, prompts, study, tables, parts=parts, reporter=reporter)
        for name, table in made.items():
            folder.write_table(name, table)
        files = [f"{name}.parquet" for name in TABLES]
        folder.finish(STEP, time.monotonic() - started, {"prompts": len(prompts)}, files)
        parts.clear()
    return made


def _sha256(table: pd.DataFrame) -> str:
    return hashlib.sha256(table.to_csv(index=False).encode()).hexdigest()


def study_cumulative(
    model: HookedModel,
    prompts: PromptSet,
    study: CumulativeStudy,
    rankings: Mapping[str, pd.DataFrame] | None = None,
    *,
    parts: Parts | None = None,
    reporter: Reporter | None = None,
) -> dict[str, pd.DataFrame]:
    """All tables of the study, by the names in `TABLES`.

    Args:
        model: runs the prompts, and its own chains where a place lies in them.
        prompts: one half chooses, the other is reported.
        study: settings.
        rankings: by name, tables of scores with a row per head: columns `coarse…` and `refine…`
            with the same ending are an ordering, for Focus and for Confusion.
        parts: keeps what is done, event by event; with what it holds the study goes on.
        reporter: shows progress.

    Raises:
        InputError: no valid pair in a half, a chain place without chains, or a bad table.
    """
    work = Work(
        model,
        prompts,
        study.places,
        study.interventions,
        study.n_early,
        study.t_star,
        {} if parts is None else parts,
        reporter or Reporter(),
    )
    work.find_chains()
    halves = split_half(prompts.prompt_ids, study.seed, prompts.families)
    chosen, held = (prompts.subset(sorted(ids)).events for ids in halves)
    if "scores" not in work.parts:
        with work.reporter.step("score", len(chosen)) as advance:
            work.parts["scores"] = score_heads(
                model,
                PromptSet(prompts.task, tuple(chosen)),
                n_resamples=1,
                n_permutations=1,
                seed=study.seed,
                progress=advance,
            )
    scores = work.parts["scores"]
    singles = sets_plan([[head] for head in work.every], len(work.every))
    alone = pd.DataFrame()
    if study.alone:
        alone = work.patched("every head alone, selection half", chosen, singles)
    orders = all_orders(
        work,
        chosen,
        scores,
        alone,
        rankings or {},
        with_rivals=study.rivals,
        n_random=study.n_random,
        n_last=study.n_last,
        seed=study.seed,
    )
    sizes = list(study.sizes) or cumulative_sizes(len(work.every))
    plan = plan_curves(model, orders, sizes, kinds=("cumulative",))
    name = f"cumulative, {len(orders)} orderings"
    events = work.patched(name, held, plan, directions=BOTH_WAYS)
    seeded = {"n_resamples": study.n_resamples, "seed": study.seed}
    found = cumulative_tables(events, plan, **seeded)
    heads = sets = pd.DataFrame()
    if study.alone:
        confirmed = work.patched("every head alone, held-out half", held, singles)
        heads, sets = dissociated(work, alone, confirmed, scores, held, **seeded)
    positions = positions_table(events, study.places)
    for place in positions.loc[positions["n"] == 0, "place"]:
        work.reporter.say(f"{place}: no event is a valid pair there, or nothing can be patched")
    made = (ranks_table(orders), *found, heads, sets, positions)
    return dict(zip(TABLES, made, strict=True))
