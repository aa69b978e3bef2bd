"""When the two phases form: pools of a trained model, followed back through its checkpoints.

Every checkpoint of one training run sees the same prompts. Of each are kept: Focus, Confusion and
p(gold) of the three variants; the scores of the later pools' heads and of the best other head; what
patching the later pools does, and patching the heads that have the highest scores at that moment
(`moment_coarse`, `moment_refine`).

Early checkpoints do not do the task, so the shares of `effects.py` have few valid pairs or none.
Beside them stand two differences over all events, in the unit of Focus and Confusion:

    focus_moved      F_patched − F_far         far run, patched with clean
    confusion_moved  C_near − C_patched        near run, patched with clean

Everything is a mean over a mean of per-event terms, which are what is kept on disk: a study that
was stopped goes on with the next checkpoint, and `formation` resamples the same prompts in all.
"""

import re
import time
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from workbench.analysis.patching.effects import measure_terms
from workbench.analysis.patching.patching import EventCache, baseline_rows, sweep_event
from workbench.analysis.readout import Roles, focus_confusion, select_options
from workbench.analysis.scores.registry import known_scores
from workbench.analysis.scores.scores import EventScores, score_event
from workbench.errors import InputError
from workbench.heads import Head, head_name
from workbench.headsets import headset as headset_file
from workbench.headsets.headset import HeadSet
from workbench.measures import BOUNDED, MEASURES, Measure
from workbench.models import loading
from workbench.models.hooked import HookedModel
from workbench.models.prefix import Prefix
from workbench.phases import OF_READOUT, PHASES, POOLS
from workbench.progress import Advance, Reporter
from workbench.prompts.files import check_vocabulary
from workbench.prompts.prompt import VARIANTS, DecisionEvent, PromptSet
from workbench.runs.config import DEFAULTS, RunConfig
from workbench.runs.folder import RunFolder
from workbench.runs.place import hold, is_run
from workbench.studies.checkpoint_terms import STEP, Cell, Terms, terms_frame, training_table

TERMS = "training_terms"
N_MOMENT = 4


OF_PHASE: dict[str, dict[str, Measure]] = {
    pool: {name: one for name, one in BOUNDED.items() if one.pool == pool}
    | {phase.moved: replace(MEASURES[phase.chief], scale=(), only_valid_pairs=False)}
    for pool, phase in PHASES.items()
}
"""What patching is measured by in each phase: its measures, and a difference over all events."""


@dataclass(frozen=True)
class Target:
    """Heads that are patched together, and how their rows are named."""

    pool: str
    heads: tuple[Head, ...]
    whole: bool
    phases: tuple[str, ...] = POOLS
    """Whose measures are taken."""

    def cell(self, quantity: str) -> Cell:
        """Key of its row: layer and head are NaN for a whole pool."""
        layer, head = (np.nan, np.nan) if self.whole else self.heads[0]
        return quantity, float(layer), float(head), self.pool


def study_checkpoints(
    folders: Sequence[Path],
    *,
    prompts: PromptSet,
    headset: HeadSet,
    extra_heads: Sequence[Head] = (),
    config: RunConfig = DEFAULTS,
    dtype: str = "float32",
    device: str | None = None,
    out: Path | None = None,
    reporter: Reporter | None = None,
) -> pd.DataFrame:
    """Focus, Confusion, scores and causal effects of the later pools at every checkpoint.

    `folders` are model folders named `step-000600` and so on; `extra_heads` are followed beside the
    pools of `headset`. Effects are over the span. The heads of the moment are the first four of
    each score on these prompts, so their effects are chosen and measured on the same prompts. With
    `out`, terms and table are kept there, and the same call goes on where it stopped.

    Returns:
        columns step, quantity, layer, head (both missing for the model and for whole pools), pool
        ("model", "coarse", "refine", "extra", "other" for the best head outside the pools,
        "moment_coarse", "moment_refine"), value, low, high (95 % over prompts), n (events that
        count). Quantities: `focus_clean` and so on, the two scores (a pool's is the mean of its
        heads'), four measures of causal effect, `focus_moved`, `confusion_moved`. A measure with
        fewer than five valid pairs is NaN.

    Raises:
        InputError: no folder, a folder whose name says no step or that holds no model, a head set
            or prompts that do not fit it, or an `out` that holds something else.
    """
    reporter = reporter or Reporter()
    by_step = _by_step(folders)
    pools = {pool: [(h.layer, h.head) for h in headset.of_phase(pool)] for pool in POOLS}
    targets = _later_targets(pools, extra_heads)
    with nullcontext() if out is None else hold(out):
        folder = None if out is None else _open(out, by_step, prompts, targets, dtype)
        settings = {"seed": config.seed, "n_resamples": config.n_resamples}
        if folder is not None:
            if lost := folder.lost(STEP):
                reporter.say(f"{lost}; {STEP} is done again")
            folder.parts(STEP).drop_damaged()
        if folder is not None and not folder.begin(STEP, settings):
            reporter.say(f"{STEP}: finished before, skipped")
            return folder.read_table(STEP)
        started = time.monotonic()
        frames = []
        for step, path in by_step.items():
            if folder is not None and step in folder.parts(STEP):
                reporter.say(f"step {step}: was done before")
                continue
            model = HookedModel.load(path, dtype=dtype, device=device)
            _check_fit(model, headset, prompts, extra_heads)
            with reporter.step(f"step {step}", 2 * len(prompts)) as advance:
                terms = _checkpoint_terms(model, prompts, targets, advance)
            frame = terms_frame(step, terms, prompts)
            if folder is not None:
                folder.parts(STEP)[step] = frame
            else:
                frames.append(frame)
        kept = frames if folder is None else folder.parts(STEP).values()
        joined = pd.concat(kept, ignore_index=True)
        table = training_table(joined, n_resamples=config.n_resamples, seed=config.seed)
        if folder is not None:
            folder.write_table(TERMS, joined)
            folder.write_table(STEP, table)
            counts = {"checkpoints": len(by_step), "events": len(prompts)}
            made = [f"{name}.parquet" for name in (TERMS, STEP)]
            folder.finish(STEP, time.monotonic() - started, counts, made)
            folder.parts(STEP).clear()
        return table


def read_terms(out: Path) -> pd.DataFrame:
    """The per-event terms of a finished study, for the intervals of `formation`.

    Columns: step, quantity, layer, head, pool, prompt, event (numbers), numerator, denominator.

    Raises:
        InputError: no finished study lies there.
    """
    folder = RunFolder.open(out)
    if not folder.is_done(STEP):
        raise InputError(f"{out}: holds no finished study of checkpoints")
    return folder.read_table(TERMS)


def _by_step(folders: Sequence[Path]) -> dict[int, Path]:
    """Folders in order of their steps."""
    by_step: dict[int, Path] = {}
    for path in map(Path, folders):
        named = re.fullmatch(r"step-(\d+)", path.name)
        if named is None:
            raise InputError(f"{path}: the name of a checkpoint folder must be step-NUMBER")
        if int(named[1]) in by_step:
            raise InputError(f"{path}: step {int(named[1])} is given twice")
        by_step[int(named[1])] = path
    if not by_step:
        raise InputError(
            "no checkpoint folder is given; `workbench organism --snapshots` makes some"
        )
    return dict(sorted(by_step.items()))


def _later_targets(pools: dict[Any, list[Head]], extra_heads: Sequence[Head]) -> list[Target]:
    targets = []
    for pool, heads in pools.items():
        if heads:
            targets.append(Target(pool, tuple(heads), whole=True))
        targets += [Target(pool, (at,), whole=False) for at in heads]
    pooled = {at for heads in pools.values() for at in heads}
    new = [at for at in dict.fromkeys(extra_heads) if at not in pooled]
    return targets + [Target("extra", (at,), whole=False) for at in new]


def _open(
    out: Path, by_step: dict[int, Path], prompts: PromptSet, targets: list[Target], dtype: str
) -> RunFolder:
    heads = {
        pool: [head_name(*t.heads[0]) for t in targets if t.pool == pool and not t.whole]
        for pool in (*POOLS, "extra")
    }
    weights = {
        f"step-{step:06}": loading.weights_sha256(loading.model_folder(path))
        for step, path in by_step.items()
    }
    study = {"weights_sha256": weights, "heads": heads, "dtype": dtype}
    identity = {"prompts": {"sha256": prompts.sha256, "task": prompts.task}, "study": study}
    if not is_run(out):
        return RunFolder.create(out, identity)
    folder = RunFolder.open(out)
    folder.check(identity)
    known = len(folder.manifest["study"]["weights_sha256"])
    if known != len(weights):
        raise InputError(f"{out}: was begun with {known} checkpoints, not {len(weights)}")
    return folder


def _check_fit(
    model: HookedModel, headset: HeadSet, prompts: PromptSet, extra_heads: Sequence[Head]
) -> None:
    fields = ("n_layers", "n_heads", "n_kv_heads", "d_model", "architecture")
    try:
        headset_file.check_model(headset, **{name: getattr(model.info, name) for name in fields})
        check_vocabulary(prompts, model.info.d_vocab, model.context_length)
    except InputError as error:
        raise InputError(f"checkpoint {model.info.name}: {error}") from None
    for layer, head in extra_heads:
        model.check_head(layer, head)


def _checkpoint_terms(
    model: HookedModel, prompts: PromptSet, later: Sequence[Target], advance: Advance
) -> Terms:
    """All terms of one checkpoint: scores first, since they say whom else to patch."""
    weights = model.output_weights()
    scores = []
    for done, event in enumerate(prompts, start=1):
        scores.append(score_event(model, event, weights))
        advance(done, 2 * len(prompts))
    per_head = _head_scores(scores)
    targets = [*later, *_moment_targets(per_head)]
    groups = sorted({tuple(sorted(target.heads)) for target in targets})
    wanted = {
        pool: [groups.index(tuple(sorted(t.heads))) for t in targets if pool in t.phases]
        for pool in POOLS
    }
    frames = []
    for done, event in enumerate(prompts, start=1):
        frames.append(_patch_event(model, event, groups, wanted))
        advance(len(prompts) + done, 2 * len(prompts))
    base, patched = (pd.concat(part, ignore_index=True) for part in zip(*frames, strict=True))
    base = base.pivot(index=["id", "event"], columns="variant")
    base = base.loc[[(event.id, event.event) for event in prompts]]
    terms = {
        name: measure_terms(patched, base, measure, by=("target",))
        for measures in OF_PHASE.values()
        for name, measure in measures.items()
    }
    return {
        **_model_terms(base),
        **_score_terms(per_head, later),
        **{
            target.cell(name): tuple(
                array[:, groups.index(tuple(sorted(target.heads)))].numpy()
                for array in terms[name][:2]
            )
            for target in targets
            for pool in target.phases
            for name in OF_PHASE[pool]
        },
    }


def _head_scores(scores: Sequence[EventScores]) -> dict[str, np.ndarray]:
    """The score of each phase per event, layer and head."""
    return {
        f"{name}_score": known_scores()[name]
        .of_events(torch.stack([one.own(name) for one in scores]))
        .numpy()
        for name in POOLS
    }


def _moment_targets(per_head: dict[str, np.ndarray]) -> list[Target]:
    """The first heads of each score at this checkpoint, together and one by one."""
    targets = []
    for values, pool in zip(per_head.values(), POOLS, strict=True):
        means = values.mean(axis=0)
        first = np.argsort(-means, axis=None, kind="stable")[:N_MOMENT]
        heads = tuple((int(at) // means.shape[1], int(at) % means.shape[1]) for at in first)
        name = f"moment_{pool}"
        targets.append(Target(name, heads, whole=True, phases=(pool,)))
        targets += [Target(name, (at,), whole=False, phases=(pool,)) for at in heads]
    return targets


def _patch_event(
    model: HookedModel,
    event: DecisionEvent,
    groups: Sequence[Sequence[Head]],
    wanted: Mapping[str, Sequence[int]],
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Baseline, and patched values of the wanted sets of heads in each phase's runs, of one event.

    `target` counts the sets of `groups`.
    """
    cache = EventCache.of(model, event, ["span"])
    bases = [cache.bases[name] for name in VARIANTS]
    if all(isinstance(base, Prefix) for base in bases):
        logits = torch.stack([base.logits for base in bases if isinstance(base, Prefix)])
    else:
        logits = torch.stack([r.logits for r in model.run([event.variant(v) for v in VARIANTS])])
    readout = focus_confusion(select_options(logits, event), Roles.of(event))
    base = pd.DataFrame(baseline_rows(*readout)).assign(id=event.id, event=event.event)
    frames = []
    for pool, phase in PHASES.items():
        targets = sorted(set(wanted[pool]))
        sets = [groups[target] for target in targets]
        runs = (phase.denoising, phase.noising)
        frame = sweep_event(model, event, sets, ["span"], runs=runs, cache=cache)
        frames.append(frame.assign(target=[targets[row] for row in frame["target"]]))
    return base, pd.concat(frames)


def _model_terms(base: pd.DataFrame) -> Terms:
    return {
        (f"{name}_{variant}", np.nan, np.nan, "model"): (
            base[name, variant].to_numpy(float),
            np.ones(len(base)),
        )
        for name in (*OF_READOUT, "p_gold")
        for variant in VARIANTS
    }


def _score_terms(per_head: dict[str, np.ndarray], later: Sequence[Target]) -> Terms:
    """Of the later pools, their heads, the extra heads, and the best head outside the pools."""
    terms: Terms = {}
    pooled = [at for target in later if target.pool in POOLS for at in target.heads]
    for score, values in per_head.items():
        means = values.mean(axis=0)
        for layer, head in pooled:
            means[layer, head] = -np.inf
        layer, head = np.unravel_index(int(means.argmax()), means.shape)
        best = Target("other", ((int(layer), int(head)),), whole=False)
        for target in (*later, best):
            of_heads = np.stack([values[:, layer, head] for layer, head in target.heads])
            terms[target.cell(score)] = of_heads.mean(axis=0), np.ones(len(values))
    return terms
