"""The steps of a run as plain functions over an open run folder.

1. *score*: does the model do the task on each event, and did the counterfactuals move it
   (baseline)? Then CoarseScore and RefineScore on the half of the prompts that chooses, and Focus
   and Confusion layer by layer (trajectory).
2. *patch*: causal effects of nominated heads and of random ones, event by event.
3. *pool*: heads that pass the rule on the choosing half; joint effects of each pool, and of control
   sets of the same size, on the half that verifies; the head set.
4. *paths*: through whose query, key or value the pooled heads act on one another.
5. *report*: one HTML page.

A further one, *evidence*, takes longer than all of these: see `workbench.evidence`.

Each step writes its tables and is then never run again in that folder; a sweep that was stopped
goes on with the next event.
"""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from transformer_lens.utilities.statistics import derive_generator

from workbench import evidence as evidence_steps
from workbench.analysis.effects import causal_effects
from workbench.analysis.patching import EVENT_COLUMNS, sweep
from workbench.analysis.patching import baseline as baseline_table
from workbench.analysis.scores import score_heads
from workbench.analysis.screening import promising, screen_heads
from workbench.analysis.trajectories import layer_trajectory
from workbench.config import DEFAULTS, HEAD_CHOICES, RunConfig
from workbench.errors import InputError
from workbench.headsets import headset as headset_file
from workbench.headsets.headset import HeadSet
from workbench.inputs import bundled_model_path, load_prompts, parse_heads
from workbench.models import loading
from workbench.models.hooked import Head, HookedModel
from workbench.path_step import make_paths
from workbench.plots.report import DEFAULT_THRESHOLDS, event_counts, write_report
from workbench.pools import make_pools
from workbench.progress import Reporter
from workbench.prompts.prompt import VARIANTS, DecisionEvent, PromptSet
from workbench.runfolder import RunFolder, replacing
from workbench.session import (
    HEADSET_FILE,
    PROMPTS_FILE,
    OpenRun,
    check_heads,
    counting_events,
    open_run,
)
from workbench.summary import explain_counts

REPORT_FILE = "report.html"
REPORT_WITH_TEXT_FILE = "report_with_text.html"

REPORT_TABLES = ("baseline", "scores", "trajectory", "patching", "pools")

EVIDENCE_STEPS = ("stability", "chain", "curves")

EFFECT_COLUMNS = ["layer", "head", "positions", "measure", "half", "effect", "low", "high"]
EFFECT_COLUMNS += ["n", "n_excluded", "group"]


def run(
    out: str | Path,
    *,
    model: HookedModel | str | Path | None = None,
    prompts: PromptSet | str | Path | None = None,
    config: RunConfig = DEFAULTS,
    dtype: str = "float32",
    device: str | None = None,
    reporter: Reporter | None = None,
) -> HeadSet:
    """All steps, on the bundled model and prompts made for it unless others are given.

    Arguments as in `open_run`. The same call takes up a run that was stopped.

    Raises:
        InputError: the folder holds another run, or an input is bad.
    """
    _check_span(config)
    opened = open_run(
        out,
        model=model,
        prompts=prompts,
        config=config,
        make=True,
        dtype=dtype,
        device=device,
        reporter=reporter,
    )
    score(opened)
    patch(opened)
    found = pool(opened)
    paths(opened)
    report(out, reporter=opened.reporter)
    return found


def _check_span(config: RunConfig) -> None:
    if "span" not in config.positions:
        raise InputError("pools are made from span effects: positions must be span or both")


def score(opened: OpenRun) -> pd.DataFrame:
    """What can be seen without patching: the baseline of every event, both scores of every head on
    the choosing half, and the trajectory over layers.

    Returns:
        the scores table.
    """
    opened.do("baseline", lambda: _baseline(opened))
    opened.do("score", lambda: _score(opened))
    opened.do("trajectory", lambda: _trajectory(opened))
    return opened.folder.read_table("scores")


def _baseline(opened: OpenRun) -> dict[str, Any]:
    frames = []
    with opened.reporter.step("baseline", len(opened.prompts)) as advance:
        for done, event in enumerate(opened.prompts, start=1):
            one = PromptSet(opened.prompts.task, (event,))
            frames.append(baseline_table(opened.model, one, opened.halves))
            advance(done, len(opened.prompts))
    table = pd.concat(frames, ignore_index=True)
    opened.folder.write_table("baseline", table)
    by_variant = {row.pop("variant"): row for row in event_counts(table, DEFAULT_THRESHOLDS)}
    for variant, counts in by_variant.items():
        opened.reporter.say(explain_counts(variant, counts))
    return by_variant


def _score(opened: OpenRun) -> dict[str, Any]:
    chosen = opened.prompts.subset(sorted(opened.halves.choose))
    with opened.reporter.step("score", len(chosen)) as advance:
        table = score_heads(
            opened.model,
            chosen,
            n_resamples=opened.config.n_resamples,
            n_permutations=opened.config.n_permutations,
            seed=opened.config.seed,
            progress=advance,
        )
    opened.folder.write_table("scores", table)
    limit = opened.config.false_discovery_rate
    significant = {
        name: int((table[f"{name}_q"].to_numpy() <= limit).sum()) for name in ("coarse", "refine")
    }
    return {"events": len(chosen), "heads": len(table), "below_false_discovery_rate": significant}


def _trajectory(opened: OpenRun) -> dict[str, Any]:
    with opened.reporter.step("trajectory"):
        table = layer_trajectory(
            opened.model,
            opened.prompts,
            n_resamples=opened.config.n_resamples,
            seed=opened.config.seed,
        )
    opened.folder.write_table("trajectory", table)
    return {"events": len(opened.prompts)}


def patch(opened: OpenRun) -> pd.DataFrame:
    """Causal effects of heads one by one; takes up a stopped sweep at the next event.

    Events that count for no measure are not patched: their values would be left out of every mean.

    Returns:
        the patching table.

    Raises:
        InputError: `score` was not run, or a head the model does not have.
    """
    opened.folder.require("score", "score")
    opened.do("patch", lambda: _patch(opened))
    opened.folder.remove_parts("patch")  # only now: a run killed before still has its events
    return opened.folder.read_table("patching")


def _patch(opened: OpenRun) -> dict[str, Any]:
    folder, config = opened.folder, opened.config
    baseline = folder.read_table("baseline")
    counting = counting_events(opened.prompts, baseline)
    groups: dict[str, int] = {}
    if counting:
        heads = _choose_heads(opened)
        groups = heads["group"].value_counts().to_dict()
        _sweep(opened, counting, heads)
        events = pd.concat(folder.read_parts("patch"), ignore_index=True)
        effects = causal_effects(events, baseline, n_resamples=config.n_resamples, seed=config.seed)
    else:
        opened.reporter.say("patch: no event counts, so there is nothing to patch")
        events, effects = pd.DataFrame(columns=EVENT_COLUMNS), pd.DataFrame(columns=EFFECT_COLUMNS)
    folder.write_table("patching_events", events)
    folder.write_table("patching", effects)
    return {"events": len(counting), "heads": groups}


def _choose_heads(opened: OpenRun) -> pd.DataFrame:
    """Heads to patch and why: layer, head, group.

    "nominated" heads rank first in a score, or in the first-order estimate of a patched run; random
    others are their "control". Heads named one by one count as nominated.

    Raises:
        InputError: a head name that is not one, or a head the model does not have.
    """
    config, scores = opened.config, opened.folder.read_table("scores")
    every = [(layer, head) for layer, head in zip(scores["layer"], scores["head"], strict=True)]
    if config.heads == "all":
        groups = {"all": every}
    elif config.heads in HEAD_CHOICES:
        screened = config.heads == "screen"
        best = _screen(opened) if screened else nominate(scores, config.n_nominated)
        groups = {"nominated": best, "control": draw_controls(every, best, config)}
    else:
        check_heads(opened.model, config)
        groups = {"nominated": parse_heads(config.heads)}
    rows = [(*at, group) for group, members in groups.items() for at in sorted(members)]
    return pd.DataFrame(rows, columns=["layer", "head", "group"])


def nominate(scores: pd.DataFrame, count: int) -> list[Head]:
    """Heads among the first `count` of either score, by mean."""
    ranked = [scores.nlargest(count, name, keep="first") for name in ("coarse", "refine")]
    both = pd.concat(ranked)
    return sorted(set(zip(both["layer"].tolist(), both["head"].tolist(), strict=True)))


def draw_controls(
    every: Sequence[Head], nominated: Sequence[Head], config: RunConfig
) -> list[Head]:
    """Random heads among those that were not nominated."""
    others = [at for at in every if at not in set(nominated)]
    generator = derive_generator(config.seed, "patching controls")
    order = torch.randperm(len(others), generator=generator).tolist()
    return [others[index] for index in order[: config.n_controls]]


def _screen(opened: OpenRun) -> list[Head]:
    """Heads whose first-order estimates, on the choosing half, promise an effect."""
    chosen = opened.prompts.subset(sorted(opened.halves.choose))
    if not counting_events(chosen, opened.folder.read_table("baseline")):
        opened.reporter.say("screen: no event of the choosing half counts, so no head is promising")
        return []
    opened.do("screen", lambda: _estimate(opened))
    return promising(opened.folder.read_table("screen"), opened.config.n_screened)


def _estimate(opened: OpenRun) -> dict[str, Any]:
    chosen = opened.prompts.subset(sorted(opened.halves.choose))
    events = counting_events(chosen, opened.folder.read_table("baseline"))
    with opened.reporter.step("screen", len(events)) as advance:
        table = screen_heads(opened.model, events, runs_of=opened.counting_runs, progress=advance)
    opened.folder.write_table("screen", table)
    return {"events": len(events), "heads": len(promising(table, opened.config.n_screened))}


def _sweep(opened: OpenRun, counting: list[DecisionEvent], heads: pd.DataFrame) -> None:
    """Patch event by event, keeping each event's rows on disk as soon as it is done."""
    kept = opened.folder.part_numbers("patch")
    if kept:
        opened.reporter.say(f"patch: {len(kept)} of {len(counting)} events were done before")
    left = [number for number in range(len(counting)) if number not in kept]
    if not left:
        return
    frames = sweep(
        opened.model,
        PromptSet(opened.prompts.task, tuple(counting[number] for number in left)),
        list(zip(heads["layer"].tolist(), heads["head"].tolist(), strict=True)),
        opened.config.positions,
        halves=opened.halves,
        group=heads["group"].tolist(),
        runs_of=opened.runs_of,
    )
    name = f"patch, {len(heads)} heads, {' and '.join(opened.config.positions)}"
    with opened.reporter.step(name, len(counting)) as advance:
        for number, frame in zip(left, frames, strict=True):
            opened.folder.write_part("patch", number, frame)
            advance(len(counting) - len(left) + left.index(number) + 1, len(counting))


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
    return {f"{name}_heads": len(found.in_pool(name)) for name in headset_file.POOLS}


def paths(opened: OpenRun) -> pd.DataFrame:
    """Causal effects of the paths between heads, on the half that verifies; after `pool`.

    Returns:
        the paths table.

    Raises:
        InputError: `pool` was not run, or the ends that the settings name give no path.
    """
    opened.folder.require("pool", "pool")

    def work() -> dict[str, Any]:
        found = headset_file.load(opened.folder.path / HEADSET_FILE)
        table, counts = make_paths(opened, found)
        opened.folder.write_table("paths", table)
        return counts

    opened.folder.forget_unless("paths", opened.config.of_step("paths"))
    if not opened.folder.is_done("paths"):
        _outdate_reports(opened.folder)
    opened.do("paths", work)
    return opened.folder.read_table("paths")


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


def _outdate_reports(folder: RunFolder) -> None:
    """Let the report pages be written again, since what they show changes."""
    for page in (REPORT_FILE, REPORT_WITH_TEXT_FILE):
        folder.forget_unless(Path(page).stem, None)


def report(
    out: str | Path,
    *,
    show_text: bool = False,
    model: HookedModel | str | Path | None = None,
    reporter: Reporter | None = None,
) -> Path:
    """One HTML page from the tables of a run folder; needs no model.

    With `show_text` it is another file, which holds the decoded prompts, and `model` is needed for
    its tokenizer (the bundled one unless given).

    Raises:
        InputError: an earlier step is missing, or the model has no tokenizer.
    """
    folder, reporter = RunFolder.open(Path(out)), reporter or Reporter()
    path = folder.path / (REPORT_WITH_TEXT_FILE if show_text else REPORT_FILE)
    folder.require("pool", "pool")
    texts = _prompt_texts(folder, model) if show_text else None
    step = path.stem
    if not folder.begin(step, {}):
        reporter.say(f"{step}: finished before, skipped")
        return path
    started = time.monotonic()
    with reporter.step(step), replacing(path) as beside:
        write_report(
            beside,
            title=f"{folder.manifest['model']['name']} on {folder.manifest['prompts']['task']}",
            manifest=folder.manifest,
            headset=headset_file.load(folder.path / HEADSET_FILE).model_dump(),
            prompts=texts,
            paths=folder.read_table("paths") if folder.is_done("paths") else None,
            evidence={
                name: folder.read_table(name)
                for name in evidence_steps.EVIDENCE_TABLES
                if folder.has_table(name)
            },
            **{name: folder.read_table(name) for name in REPORT_TABLES},
        )
    folder.finish(step, time.monotonic() - started, {})
    return path


def _prompt_texts(
    folder: RunFolder, model: HookedModel | str | Path | None
) -> list[dict[str, Any]]:
    source = bundled_model_path() if model is None else model
    if isinstance(source, HookedModel):
        tokenizer, digest = source.tokenizer, source.info.weights_sha256
    else:
        model_folder = loading.model_folder(source)
        tokenizer = loading.read_tokenizer(model_folder)
        digest = loading.files_sha256(loading.weight_files(model_folder))
    folder.check({"model": {"weights_sha256": digest}})
    if tokenizer is None:
        raise InputError(f"{folder.path}: the model has no tokenizer, so prompts have no text")
    decode: Any = tokenizer.decode
    return [
        {
            "id": event.id,
            "event": event.event,
            **{name: {"text": decode(list(event.variant(name)))} for name in VARIANTS},
        }
        for event in load_prompts(folder.path / PROMPTS_FILE)
    ]
