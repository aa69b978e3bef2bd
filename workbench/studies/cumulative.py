"""Which ranking of heads explains more: cumulative curves, their areas, and a double dissociation.

1. Score heads on the selection half, and patch each alone there.
2. Order all heads: by our scores, by columns of other tables (the paper's chain scores), by
   attribution, by their own causal effect, by output norm, and at random.
3. On the held-out half patch the first k heads of each ordering together, in both directions, with
   z and with patterns, at every place that is wanted (see `curves.scenes`).
4. Look for heads that move one readout and leave the other, at each place.
"""

import hashlib
import time
from collections.abc import Iterator, Mapping, MutableMapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import pandas as pd
import torch
from pyarrow import ArrowException
from pydantic import Field
from transformer_lens.utilities.statistics import derive_generator

from workbench.analysis.chains.case_readings import read_cases
from workbench.analysis.chains.chain_scores import CHAIN_SCORES, chain_scores
from workbench.analysis.chains.generation import write_chains
from workbench.analysis.chains.head_parts import chain_parts
from workbench.analysis.chains.reading import ChainSettings
from workbench.analysis.curves.cumulative import (
    cumulative_event,
    cumulative_sizes,
    cumulative_tables,
)
from workbench.analysis.curves.dissociation import KINDS, kind_of, set_shares, sets_plan
from workbench.analysis.curves.faithfulness import Plan, plan_curves
from workbench.analysis.curves.orderings import ATTRIBUTIONS, rank_heads
from workbench.analysis.curves.scenes import DIRECT, Scene, chain_scenes, direct_scenes
from workbench.analysis.curves.written import WRITTEN, written_scenes
from workbench.analysis.scores.scores import score_heads
from workbench.analysis.statistics import split_half
from workbench.errors import InputError
from workbench.files import reading, settings
from workbench.heads import Head, head_name
from workbench.headsets.controls import controls
from workbench.labels.icd10cm import category
from workbench.models.hooked import HookedModel
from workbench.phases import BOTH_WAYS, INTERVENTIONS, OF_READOUT, Direction, Intervention
from workbench.progress import Reporter
from workbench.prompts.chain import ChainCase, find_cues, question_cases
from workbench.prompts.choices import stage_reader
from workbench.prompts.prompt import VARIANTS, DecisionEvent, PromptSet
from workbench.prompts.templates import Cues, PlainTemplate
from workbench.runs.folder import RunFolder, hold, is_run
from workbench.studies.paper_chains import OF_CATEGORIES

Place = Literal[
    "decision",
    "span",
    "early",
    "late",
    "coarse",
    "fine",
    "written_early",
    "written_late",
    "written",
]
Parts = MutableMapping[Any, pd.DataFrame]
"""What was done, by name: rows of one event each."""
STEP = "cumulative"
TABLES = ("orders", "curves", "areas", "differences", "dissociation", "sets")
DRAWS = 20
"""Random sets beside heads that move one readout."""


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
    n_random: Annotated[int, Field(ge=1, description="Random orderings.")] = 5
    n_early: Annotated[int, Field(ge=1, description="Chain tokens that count as early.")] = 30
    t_star: Annotated[
        float, Field(gt=0, lt=1, description="Share of the chain after which tokens are late.")
    ] = 0.5
    n_resamples: Annotated[
        int, Field(ge=1, description="Bootstrap resamples of prompts behind every interval.")
    ] = 2000
    seed: Annotated[int, Field(ge=0, description="Seed of halves, resamples and draws.")] = 0


@dataclass
class _Work:
    """What the steps of the study share."""

    model: HookedModel
    prompts: PromptSet
    study: CumulativeStudy
    parts: Parts
    reporter: Reporter
    cases: dict[tuple[str, int], ChainCase] = field(default_factory=dict)
    cues: Cues = PlainTemplate.cues

    @property
    def every(self) -> list[Head]:
        info = self.model.info
        return [(layer, head) for layer in range(info.n_layers) for head in range(info.n_heads)]

    def scenes(self, event: DecisionEvent, places: Sequence[str]) -> Iterator[Scene]:
        if set(places) & set(DIRECT):
            yield from direct_scenes(self.model, event, places)
        if set(places) - set(DIRECT):
            case = self.cases[event.id, event.event]
            given = {"n_early": self.study.n_early, "t_star": self.study.t_star}
            yield from chain_scenes(self.model, case, places, **given)
            if set(places) & set(WRITTEN):
                yield from written_scenes(self.model, case, places, self.cues, **given)

    def patched(
        self,
        name: str,
        events: Sequence[DecisionEvent],
        plan: Plan,
        places: Sequence[str],
        directions: Sequence[Direction] = ("denoising",),
    ) -> pd.DataFrame:
        """Rows of all events, event by event."""
        frames = []
        with self.reporter.step(name, len(events)) as advance:
            for done, event in enumerate(events, start=1):
                key = f"{name} {done:06}"
                if key not in self.parts:
                    rows = [
                        cumulative_event(scene, plan, self.study.interventions, directions)
                        for scene in self.scenes(event, places)
                    ]
                    rows = [each for each in rows if len(each)]
                    self.parts[key] = pd.concat(rows) if rows else pd.DataFrame({"id": []})
                frames.append(self.parts[key])
                advance(done, len(events))
        full = [frame for frame in frames if len(frame)]
        if not full:
            raise InputError(f"{name}: no event is a valid pair")
        return pd.concat(full, ignore_index=True)


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
        chosen = {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(study).items()}
        if not folder.begin(STEP, chosen | {"rankings": digest}):
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


def read_ranking(path: Path) -> tuple[str, pd.DataFrame]:
    """Name of a file, and its table of scores.

    Raises:
        InputError: it cannot be read.
    """
    readers = {".csv": pd.read_csv, ".parquet": pd.read_parquet}
    if path.suffix not in readers:
        raise InputError(f"{path}: a table of scores is a .csv or a .parquet file")
    with reading(path):
        try:
            return path.stem, readers[path.suffix](path)
        except (ValueError, ArrowException) as error:
            raise InputError(f"{path}: is no readable table ({type(error).__name__})") from None


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
    work = _Work(model, prompts, study, {} if parts is None else parts, reporter or Reporter())
    _chains(work)
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
        alone = work.patched("every head alone, selection half", chosen, singles, study.places)
    tables = _chain_scores(work, chosen) | dict(rankings or {})
    orders = _orders(work, scores, alone, tables)
    sizes = list(study.sizes) or cumulative_sizes(len(work.every))
    plan = plan_curves(model, orders, sizes, kinds=("cumulative",))
    name = f"cumulative, {len(orders)} orderings"
    events = work.patched(name, held, plan, study.places, BOTH_WAYS)
    seeded = {"n_resamples": study.n_resamples, "seed": study.seed}
    found = cumulative_tables(events, plan, **seeded)
    heads = sets = pd.DataFrame()
    if study.alone:
        confirmed = work.patched("every head alone, held-out half", held, singles, study.places)
        heads, sets = _dissociation(work, alone, confirmed, scores, held)
    ranked = [
        (name, readout, *head, rank)
        for name, by in orders.items()
        for readout, order in by.items()
        for rank, head in enumerate(order)
    ]
    ranks = pd.DataFrame(ranked, columns=["name", "readout", "layer", "head", "rank"])
    made = (ranks, *found, heads, sets)
    return dict(zip(TABLES, made, strict=True))


def _chains(work: _Work) -> None:
    """The model's own chains: for places in them of every variant, for chain scores of the clean.

    Prompts that have no place for a chain give no chain scores.
    """
    variants = VARIANTS if set(work.study.places) - set(DIRECT) else ("clean",)
    tokenizer, reporter = work.model.tokenizer, work.reporter
    try:
        if tokenizer is None:
            raise InputError("the model has no tokenizer")
        cues = work.cues = find_cues(work.prompts, tokenizer)
        cases = question_cases(work.prompts, tokenizer, cues)
        with reporter.step(f"{len(variants) * len(cases)} chains"):
            cases = write_chains(
                work.model,
                cases,
                tokenizer,
                cues=cues,
                variants=variants,
                stages=stage_reader(work.prompts.task),
            )
    except InputError as error:
        if len(variants) > 1:
            raise
        reporter.say(f"no chain scores ({error})")
        return
    work.cases = {(case.event.id, case.event.event): case for case in cases}


def _chain_scores(work: _Work, chosen: Sequence[DecisionEvent]) -> dict[str, pd.DataFrame]:
    """The paper's scores, of the chains of the selection half."""
    if not work.cases:
        return {}
    if "chain scores" not in work.parts:
        cases = [work.cases[event.id, event.event] for event in chosen]
        cluster = category if work.prompts.task in OF_CATEGORIES else None
        readings = read_cases(cases, work.model.tokenizer, cluster)
        given = ChainSettings(n_early=work.study.n_early, t_star=work.study.t_star)
        parts = []
        with work.reporter.step("heads at chain tokens", len(readings)) as advance:
            for done, reading in enumerate(readings, start=1):
                parts.append(chain_parts(work.model, reading, given))
                advance(done, len(readings))
        found = chain_scores(readings, parts, n_resamples=1, n_permutations=1)
        work.parts["chain scores"] = found.loc[:, ["layer", "head", *CHAIN_SCORES]]
    return {"paper": work.parts["chain scores"]}


def _orders(
    work: _Work, scores: pd.DataFrame, alone: pd.DataFrame, rankings: Mapping[str, pd.DataFrame]
) -> dict[str, dict[str, list[Head]]]:
    """Orderings of all heads, by name and readout."""
    table = scores.assign(
        focus_attribution=scores[ATTRIBUTIONS["focus"]].abs(),
        confusion_attribution=scores[ATTRIBUTIONS["confusion"]].abs(),
    )
    orders = {"score": {r: rank_heads(table, phase.name) for r, phase in OF_READOUT.items()}}
    for name, given in rankings.items():
        orders |= _of_table(name, given, work.every)
    orders["attribution"] = {r: rank_heads(table, f"{r}_attribution") for r in OF_READOUT}
    if work.study.alone:
        orders |= _by_effect(work, alone)
    if table["output_norm"].notna().to_numpy().all():
        orders["output norm"] = {r: rank_heads(table, "output_norm") for r in OF_READOUT}
    for draw in range(1, work.study.n_random + 1):
        generator = derive_generator(work.study.seed, "cumulative order", draw)
        shuffled = torch.randperm(len(work.every), generator=generator).tolist()
        heads = [work.every[at] for at in shuffled]
        orders[f"random {draw}"] = dict.fromkeys(OF_READOUT, heads)
    return orders


def _of_table(
    name: str, given: pd.DataFrame, every: Sequence[Head]
) -> dict[str, dict[str, list[Head]]]:
    """Orderings by the columns `coarse…` and `refine…` of a table that have the same ending."""
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


def _by_effect(work: _Work, alone: pd.DataFrame) -> dict[str, dict[str, list[Head]]]:
    """By what each head does alone on the selection half, denoising, in margins."""
    first = str(alone["place"].iloc[0])
    found = {}
    for intervention in work.study.interventions:
        rows = alone.loc[(alone["place"] == first) & (alone["intervention"] == intervention)]
        shares = set_shares(rows, n_resamples=1).set_index("target").drop(index=0)
        table = pd.DataFrame(work.every, columns=["layer", "head"])
        for readout in OF_READOUT:
            table[readout] = shares[readout].reindex(range(1, len(table) + 1)).to_numpy(float)
        name = f"effect of {intervention} alone"
        found[name] = {readout: rank_heads(table, readout) for readout in OF_READOUT}
    return found


def _dissociation(
    work: _Work,
    alone: pd.DataFrame,
    confirmed: pd.DataFrame,
    scores: pd.DataFrame,
    held: Sequence[DecisionEvent],
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Every head on the held-out half with its kind on both, and the sets of each kind."""
    n_resamples, seed = work.study.n_resamples, work.study.seed
    on = ["place", "intervention", "target"]
    halves = []
    for rows in (alone, confirmed):
        shares = set_shares(rows, n_resamples=n_resamples, seed=seed)
        shares = shares.loc[shares["target"] > 0].drop(columns="direction")
        kinds = [kind_of(row) for row in shares.to_dict("records")]
        halves.append(shares.assign(kind=kinds))
    chosen, held_out = halves
    names = {"kind": "chosen"}
    table = held_out.merge(chosen[[*on, "kind"]].rename(columns=names), on=on, how="left")
    table["chosen"] = table["chosen"].fillna("")
    heads = np.array(work.every)[table["target"].to_numpy(int) - 1]
    table.insert(2, "layer", heads[:, 0])
    table.insert(3, "head", heads[:, 1])
    table = table.assign(confirmed=(table["chosen"] == table["kind"]) & (table["kind"] != ""))
    table = table.drop(columns="target")
    return table, _sets(work, table, scores, held)


def _sets(
    work: _Work, table: pd.DataFrame, scores: pd.DataFrame, held: Sequence[DecisionEvent]
) -> pd.DataFrame:
    """Heads of a kind, chosen on the selection half, patched as one beside controls."""
    frames = []
    n_resamples, seed = work.study.n_resamples, work.study.seed
    for key, here in table.groupby(["place", "intervention"], sort=False):
        assert isinstance(key, tuple)
        place, intervention = key
        groups, names = [], []
        for kind in KINDS:
            rows = here[here["chosen"] == kind]
            heads = list(zip(rows["layer"].tolist(), rows["head"].tolist(), strict=True))
            if not heads:
                continue
            n_heads = work.model.info.n_heads
            drawn = controls(heads, scores, n_heads, seed, DRAWS, pooled=heads)
            for name, sets in {"chosen": [heads], **drawn}.items():
                groups += sets
                names += [(kind, name, draw, len(heads)) for draw in range(len(sets))]
        if not groups:
            continue
        plan = sets_plan(groups, len(work.every))
        step = f"sets, {place}, {intervention}"
        events = work.patched(step, held, plan, [str(place)])
        events = events.loc[events["intervention"] == intervention]
        shares = set_shares(events, n_resamples=n_resamples, seed=seed)
        shares = shares.loc[shares["target"] > 0].reset_index(drop=True)
        labels = pd.DataFrame(names, columns=["kind", "set", "draw", "size"])
        labels["heads"] = [" ".join(head_name(*at) for at in group) for group in groups]
        at = shares["target"].to_numpy(int) - 1
        frames.append(shares.drop(columns="target").join(labels.iloc[at].reset_index(drop=True)))
    return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame()
