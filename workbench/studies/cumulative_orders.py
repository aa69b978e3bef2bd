"""Orderings of all heads for cumulative curves, made on the selection half.

score               CoarseScore; RefineScore
paper chain         `coarse_chain`; `refine_chain`, where prompts have chains; and guarded
…                   columns of tables that are given
attribution         size of the first-order effect on the log-odds
effect of … alone   what each head does alone, in log-odds, at the first place that has a pair
output norm         how much the head writes at the decision
…                   those of other authors, by their names in `orderings.RIVALS`
random 1, …         seeded draws
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd
import torch
from transformer_lens.utilities.statistics import derive_generator

from workbench.analysis.chains.case_readings import read_cases
from workbench.analysis.chains.chain_scores import CHAIN_SCORES
from workbench.analysis.chains.reading import ChainSettings
from workbench.analysis.curves.dissociation import set_shares
from workbench.analysis.curves.orderings import ATTRIBUTIONS, rank_heads, rival_scores
from workbench.analysis.curves.scenes import direct_scenes
from workbench.errors import InputError
from workbench.heads import Head
from workbench.headsets.paper_rule import read_scores
from workbench.labels.icd10cm import category
from workbench.phases import OF_READOUT
from workbench.prompts.prompt import DecisionEvent
from workbench.studies.paper_chains import OF_CATEGORIES
from workbench.studies.patched_sets import Work
from workbench.studies.ranked_chains import ranked_chains, read_heads

Orders = dict[str, dict[str, list[Head]]]
"""Name → readout → all heads, the first ones first."""


def all_orders(
    work: Work,
    chosen: Sequence[DecisionEvent],
    scores: pd.DataFrame,
    alone: pd.DataFrame,
    rankings: Mapping[str, pd.DataFrame],
    *,
    with_rivals: bool,
    n_random: int,
    n_last: int,
    seed: int,
) -> Orders:
    """Every ordering; `alone` are the rows of every head patched alone, or none.

    `n_last` is how many last tokens' queries are moved for filter heads.
    """
    orders = {"score": {r: rank_heads(scores, phase.name) for r, phase in OF_READOUT.items()}}
    for name, given in (_chain_scores(work, chosen) | dict(rankings)).items():
        orders |= of_table(name, given, work.every)
    sizes = scores.assign(**{r: scores[column].abs() for r, column in ATTRIBUTIONS.items()})
    orders["attribution"] = {readout: rank_heads(sizes, readout) for readout in OF_READOUT}
    if len(alone):
        orders |= _by_effect(work, alone)
    if scores["output_norm"].notna().to_numpy().all():
        orders["output norm"] = {r: rank_heads(scores, "output_norm") for r in OF_READOUT}
    if with_rivals:
        orders |= _rivals(work, chosen, n_last)
    for draw in range(1, n_random + 1):
        generator = derive_generator(seed, "cumulative order", draw)
        shuffled = torch.randperm(len(work.every), generator=generator).tolist()
        heads = [work.every[at] for at in shuffled]
        orders[f"random {draw}"] = dict.fromkeys(OF_READOUT, heads)
    return orders


def ranks_table(orders: Orders) -> pd.DataFrame:
    """Columns: name, readout, layer, head, rank (0 is the first)."""
    rows = [
        (name, readout, *head, rank)
        for name, by in orders.items()
        for readout, order in by.items()
        for rank, head in enumerate(order)
    ]
    return pd.DataFrame(rows, columns=["name", "readout", "layer", "head", "rank"])


def read_ranking(path: Path) -> tuple[str, pd.DataFrame]:
    """Name of a file, and its table of scores.

    Raises:
        InputError: it cannot be read.
    """
    return path.stem, read_scores(path)


def of_table(name: str, given: pd.DataFrame, every: Sequence[Head]) -> Orders:
    """Orderings by the columns `coarse…` and `refine…` of a table that have the same ending.

    Raises:
        InputError: the table has no such columns, or not a row for each head.
    """
    coarse, refine = (phase.name for phase in OF_READOUT.values())
    endings = [
        column.removeprefix(coarse)
        for column in given
        if column.startswith(coarse)
        and f"{refine}{column.removeprefix(coarse)}" in given
        and not column.endswith(("_low", "_high", "_p", "_q"))
    ]
    if not endings:
        raise InputError(f"ranking {name!r} has no columns coarse… and refine… with one ending")
    found = {}
    for ending in endings:
        by = {r: rank_heads(given, phase.name + ending) for r, phase in OF_READOUT.items()}
        if any(sorted(order) != sorted(every) for order in by.values()):
            raise InputError(f"ranking {name!r} does not have a row for each of the model's heads")
        found[f"{name}{ending}".strip().replace("_", " ")] = by
    return found


def _chain_scores(work: Work, chosen: Sequence[DecisionEvent]) -> dict[str, pd.DataFrame]:
    """The paper's scores, of the chains of the selection half."""
    if not work.cases:
        return {}
    if "chain scores" not in work.parts:
        cases = [work.cases[event.id, event.event] for event in chosen]
        cluster = category if work.prompts.task in OF_CATEGORIES else None
        readings = read_cases(cases, work.model.tokenizer, cluster)
        given = ChainSettings(n_early=work.n_early, t_star=work.t_star)
        tables = read_heads(work.model, readings, given, work.parts, work.reporter)
        found = ranked_chains(readings, tables, work.reporter, n_resamples=1, n_permutations=1)
        work.parts["chain scores"] = found.loc[:, ["layer", "head", *CHAIN_SCORES]]
    return {"paper": work.parts["chain scores"]}


def _by_effect(work: Work, alone: pd.DataFrame) -> Orders:
    """By what each head does alone on the selection half, denoising, in margins.

    At the first of the study's places that has a valid pair; a readout without any has no order.
    """
    found: Orders = {}
    for intervention in work.interventions:
        table = pd.DataFrame(work.every, columns=["layer", "head"])
        orders = found.setdefault(f"effect of {intervention} alone", {})
        for readout in OF_READOUT:
            rows = alone.loc[
                (alone["intervention"] == intervention) & (alone["readout"] == readout)
            ]
            place = next((name for name in work.places if name in set(rows["place"])), None)
            if place is None:
                continue
            shares = set_shares(rows.loc[rows["place"] == place], n_resamples=1)
            by_target = shares.set_index("target")[readout]
            table[readout] = by_target.reindex(range(1, len(table) + 1)).to_numpy(float)
            orders[readout] = rank_heads(table, readout)
    return found


def _rivals(work: Work, chosen: Sequence[DecisionEvent], n_last: int) -> Orders:
    """Rankings of other authors, of the valid pairs of the direct question."""
    if "rivals" not in work.parts:
        pairs: dict[str, list[DecisionEvent]] = {readout: [] for readout in OF_READOUT}
        for event in chosen:
            [scene] = direct_scenes(work.model, event, ["decision"])
            for readout, phase in OF_READOUT.items():
                pairs[readout] += [event] * scene.valid[phase.name]
        with work.reporter.step("rankings of other authors") as advance:
            found = rival_scores(
                work.model,
                pairs,
                progress=advance,
                say=work.reporter.say,
                settings={"filter_head": {"last": n_last}},
            )
        table = pd.DataFrame(work.every, columns=["layer", "head"])
        for name, by in found.items():
            for readout, value in by.items():
                table[f"{name} {readout}"] = value.numpy().ravel()
        work.parts["rivals"] = table
    table = work.parts["rivals"]
    orders: Orders = {}
    for column in table.columns.drop(["layer", "head"]):
        name, _, readout = str(column).rpartition(" ")
        orders.setdefault(name, {})[readout] = rank_heads(table, str(column))
    return orders
