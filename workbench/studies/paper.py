"""The paper's figures and tables for a model, its students, and any chains (arXiv 2606.06840).

For every model: chains (its own, or given), and Focus and Confusion along them. For the first one,
the teacher, besides: what every head does at chain tokens, the heads ranked by it, where the first
early head looks, the leading heads stage by stage, and the first heads of each ranking patched
together (see `cumulative`): on prompts of the same task, half of which rank the heads.
"""

import time
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import pandas as pd
import plotly.graph_objects as go

from workbench.analysis.chains.chain_scores import CHAIN_SCORES
from workbench.analysis.chains.embeddings import open_embedding
from workbench.analysis.chains.reading import ChainSettings, coverage
from workbench.analysis.chains.stages import early_attention, stage_table
from workbench.analysis.chains.texts import along, text_values, with_contrasts
from workbench.analysis.chains.trajectories import READOUTS, chain_values
from workbench.analysis.curves.cumulative import AREAS, CURVES, DIFFERENCES, paper_sizes
from workbench.analysis.curves.faithfulness import check_sizes
from workbench.models.hooked import HookedModel
from workbench.models.loading import model_folder, weights_sha256
from workbench.plots import paper as figures
from workbench.plots.cumulative import cumulative_figures
from workbench.progress import Reporter
from workbench.runs.folder import RunFolder
from workbench.runs.place import hold, is_run
from workbench.studies.compared import compared
from workbench.studies.cumulative import CumulativeStudy, settings_of, study_cumulative
from workbench.studies.paper_chains import Asked, Chains, counterfactual_prompts, make_chains
from workbench.studies.patched_sets import NoPairs, Parts
from workbench.studies.ranked_chains import leaders, ranked_chains, read_heads
from workbench.studies.reported import reported_along, reported_cumulative

STEP = "paper"
N_LEADING = 4
"""Heads of each ranking that are followed through the stages."""
KEYS = ["model", "id", "event", "step", "share"]
CUMULATIVE = {"curves": CURVES, "areas": AREAS, "differences": DIFFERENCES}
"""Tables of `study_cumulative` that are kept, as "cumulative_…", and their columns."""
TABLES = ("scores", "coverage", "along", "values", "attention", "stages", "compared")
TABLES += tuple(f"cumulative_{name}" for name in CUMULATIVE)

Tables = Mapping[str, pd.DataFrame]
FIGURES: dict[str, Callable[[Tables], go.Figure]] = {
    "figure1": lambda made: figures.heads_ranked(made["scores"]),
    "figure1_attention": lambda made: figures.early_attention(made["attention"]),
    "figure2": lambda made: figures.trajectories(made["along"], reported_along()),
    "figure4": lambda made: figures.stages(made["stages"]),
}
"""Name of a file → the figure of it, from the study's tables; figure 3: `cumulative_figures`."""


def paper_figures(made: Tables) -> dict[str, go.Figure]:
    """Name of a file → figure, of all that were made."""
    found = {name: draw(made) for name, draw in FIGURES.items()}
    found |= cumulative_figures(made["cumulative_curves"], reported_cumulative())
    return dict(sorted(found.items()))


@dataclass(frozen=True)
class PaperStudy:
    """What the study is about, and how.

    Attributes:
        models: the teacher, then students: whatever `HookedModel.load` takes.
        asked: which chains.
        chains: what early, late and stages are.
        cumulative: of the first heads together; left out where it is not given, and for chains of
            one's own, which have no counterfactual.
        embedding: of texts: "own", "own:LAYER", or a folder of sentence-transformers.
        n_resamples: behind every interval.
        n_permutations: behind every p-value, at least 20 a head.
        seed: of prompts, resamples and permutations.
    """

    models: tuple[str, ...]
    asked: Asked
    chains: ChainSettings = field(default_factory=ChainSettings)
    cumulative: CumulativeStudy | None = None
    embedding: str = "own"
    n_resamples: int = 2000
    n_permutations: int = 2000
    seed: int = 0


def study_paper(
    study: PaperStudy,
    out: Path | None = None,
    *,
    device: str | None = None,
    dtype: str = "float32",
    reporter: Reporter | None = None,
) -> dict[str, pd.DataFrame]:
    """All tables, by the names in `TABLES`; with `out` a study that was stopped goes on.

    Raises:
        InputError: a model, prompts or chains that cannot be used, or an `out` that holds something
            else.
    """
    reporter = reporter or Reporter()
    with nullcontext() if out is None else hold(out):
        folder = None if out is None else _open(out, study)
        started = time.monotonic()
        if folder is not None and not folder.begin(STEP, _settings(study)):
            reporter.say(f"{STEP}: finished before, skipped")
            return {name: folder.read_table(name) for name in TABLES}
        if folder is not None:
            folder.parts(STEP).drop_damaged()
        parts: Parts
        parts = {} if folder is None else folder.parts(STEP)
        values, made = [], {}
        for number, name in enumerate(study.models):
            model = HookedModel.load(name, dtype=dtype, device=device, reporter=reporter)
            if number == 0:
                _sized(model, study)
            key = f"chains {number}"
            chains = make_chains(model, study.asked, study.seed, parts.get(key), reporter)
            parts[key] = chains.written
            values.append(_follow(model, chains, study, number, parts, reporter))
            if number == 0:
                made = _heads(model, chains, study, parts, reporter)
                made |= _cumulative(model, _sized(model, study), parts, reporter)
            del model
        joined = with_contrasts(pd.concat(values, ignore_index=True))
        quantities = [x for x in joined.columns.drop(KEYS) if x in READOUTS or "_text" in x]
        means = along(joined, quantities, n_resamples=study.n_resamples, seed=study.seed)
        made |= {"values": joined, "along": means}
        tables = (made[name] for name in ("scores", "along", "stages", "cumulative_curves"))
        made["compared"] = compared(*tables, teacher=study.models[0])
        if folder is not None:
            for name in TABLES:
                folder.write_table(name, made[name])
            counts = {"models": len(study.models), "chains": int(made["coverage"]["n"].iloc[0])}
            files = [f"{name}.parquet" for name in TABLES]
            folder.finish(STEP, time.monotonic() - started, counts, files)
            parts.clear()
    return {name: made[name] for name in TABLES}


def _settings(study: PaperStudy) -> dict[str, Any]:
    return {
        "chains": asdict(study.chains) | {"stage_ends": list(study.chains.stage_ends)},
        "cumulative": study.cumulative and settings_of(study.cumulative),
        "embedding": study.embedding,
        "n_resamples": study.n_resamples,
        "n_permutations": study.n_permutations,
    }


def _open(out: Path, study: PaperStudy) -> RunFolder:
    identity = {
        "prompts": {"task": study.asked.name, "sha256": study.asked.sha256},
        "study": {
            "weights_sha256": [weights_sha256(model_folder(name)) for name in study.models],
            "seed": study.seed,
            "n": study.asked.n,
        },
    }
    if not is_run(out):
        return RunFolder.create(out, identity)
    folder = RunFolder.open(out)
    folder.check(identity)
    return folder


def _follow(
    model: HookedModel,
    chains: Chains,
    study: PaperStudy,
    number: int,
    parts: Any,
    reporter: Reporter,
) -> pd.DataFrame:
    """Focus and Confusion along a model's chains: by text, and by probability where it is asked."""
    name = model.info.name if number == 0 else f"{model.info.name} ({number})"
    embedding = open_embedding(study.embedding, model)
    frames = []
    with reporter.step(f"{name}: along its chains", len(chains.readings)) as advance:
        for done, reading in enumerate(chains.readings):
            key = f"along {number} {done:06}"
            if key not in parts:
                table = text_values(embedding, reading, model.tokenizer, name)
                case = chains.followed(done)
                if case is not None:
                    found = chain_values(model, [case])
                    keys = ["id", "event", "step"]
                    table = table.merge(found[[*keys, *READOUTS]], on=keys, how="left")
                parts[key] = table
            frames.append(parts[key])
            advance(done + 1, len(chains.readings))
    return pd.concat(frames, ignore_index=True)


def _heads(
    model: HookedModel, chains: Chains, study: PaperStudy, parts: Any, reporter: Reporter
) -> dict[str, pd.DataFrame]:
    """Scores of all heads, the stages of the leading ones, and an early head's attention."""
    readings, given = chains.readings, study.chains
    covered = coverage(readings, given)
    reporter.say(f"read: {_said(covered)}")
    tables = read_heads(model, readings, given, parts, reporter, "shown chain")
    seeded = {"n_resamples": study.n_resamples, "seed": study.seed}
    drawn = {"n_permutations": study.n_permutations, **seeded}
    scores = ranked_chains(readings, tables, reporter, **drawn)
    lead = {name: leaders(scores, name)[:N_LEADING] for name in CHAIN_SCORES}
    followed = dict.fromkeys([*lead["refine_chain"], *lead["refine_chain_guarded"]])
    early = dict.fromkeys([*lead["coarse_chain"][:1], *lead["coarse_chain_guarded"][:1]])
    shown = next((one for one in readings if one.early(given)), None)
    attention = pd.DataFrame()
    if shown is not None and early:
        attention = early_attention(model, shown, [*early], given, model.tokenizer)
    return {
        "scores": scores,
        "coverage": covered,
        "attention": attention,
        "stages": stage_table(readings, tables, [*followed], given, **seeded),
    }


def _cumulative(
    model: HookedModel, study: PaperStudy, parts: Parts, reporter: Reporter
) -> dict[str, pd.DataFrame]:
    """The first heads of each ranking together; what cannot be patched is said, and left out."""
    found = {name: pd.DataFrame(columns=columns) for name, columns in CUMULATIVE.items()}
    asked = study.cumulative
    if asked is not None:
        prompts = counterfactual_prompts(model, study.asked, study.seed)
        if prompts is None:
            reporter.say("no figure 3: chains of one's own have no counterfactual to patch from")
        elif len(set(prompts.prompt_ids)) < 2:
            reporter.say("no figure 3: one prompt cannot both rank heads and show what they do")
        else:
            try:
                found |= study_cumulative(model, prompts, asked, parts=parts, reporter=reporter)
            except NoPairs as error:
                reporter.say(f"no figure 3: {error}")
    return {f"cumulative_{name}": found[name] for name in CUMULATIVE}


def _sized(model: HookedModel, study: PaperStudy) -> PaperStudy:
    """With the paper's sizes where none are given; refused before anything is done."""
    if study.cumulative is None:
        return study
    n_heads = model.info.n_layers * model.info.n_heads
    sizes = study.cumulative.sizes or tuple(paper_sizes(n_heads))
    check_sizes(sizes, n_heads)
    return replace(study, cumulative=replace(study.cumulative, sizes=sizes))


def _said(covered: pd.DataFrame) -> str:
    shares = covered.set_index("what")["share"]
    return ", ".join(f"{what} {share:.0%}" for what, share in shares.items())
