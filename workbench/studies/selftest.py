"""Does the method find heads that are there, and none where there are none?

1. `run_placements`: models whose heads were set by hand (`workbench.studies.planted`), at random
   places. Found heads are compared with the declared ones.
2. `run_random_models`: models of the bundled shape with random weights, on the bundled prompts.
   A pooled head there is a false positive.
3. `run_falsified`: the bundled model on prompts whose roles or evidence were falsified.

All go through the steps of a run, with its default thresholds.
"""

from collections.abc import Collection
from dataclasses import dataclass, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
import torch
from rich.console import Console
from scipy.stats import binomtest
from transformers import AutoModelForCausalLM

from workbench.analysis.statistics import Halves, split_half
from workbench.errors import InputError
from workbench.files import make_folder, write_table
from workbench.heads import Head, head_name
from workbench.headsets.pooling import pool_heads
from workbench.models.hooked import HookedModel
from workbench.models.loading import bundled_model_path, hf_config
from workbench.phases import PHASES, POOLS, valid_pairs
from workbench.plots.style import percent
from workbench.progress import Advance, Reporter
from workbench.prompts.make import make_prompts
from workbench.prompts.prompt import PromptSet
from workbench.runs.config import DEFAULTS, RunConfig
from workbench.runs.patch import heads_of
from workbench.runs.pool import thresholds_of
from workbench.runs.steps import MAKER
from workbench.runs.subject import Subject, do_steps
from workbench.studies.falsified import shuffle_evidence, shuffle_roles
from workbench.studies.planted import DISTRACTORS, Planted, plant

SHAPES: tuple[tuple[int, int, int], ...] = (
    (3, 4, 4),
    (3, 8, 4),
    (4, 8, 8),
    (4, 8, 2),
    (6, 4, 4),
    (6, 8, 4),
)
"""Layers, heads and key-value heads of planted models: three depths, with and without sharing."""

WIDER = 4.0
"""Random models start from this many times the bundled model's `initializer_range`.

From that range itself (0.02 at width 256) attention scores deviate by about 0.1, so attention is
all but uniform and the test too easy; at four times the range they deviate by about 1.6.
"""

N_RANDOM_PROMPTS = 16


@dataclass(frozen=True)
class Found:
    """The heads that the method pools in one model.

    `n_valid` is how many events of the selection half, which alone decides, are valid pairs for a
    phase; `n_nominated` how many heads had a score that beats its null, so that only patching could
    keep them out.
    """

    coarse: frozenset[Head]
    refine: frozenset[Head]
    n_valid: int
    n_nominated: int


class _SelectionAlone(Subject):
    """A run on prompts that all select heads: none is held out."""

    @cached_property
    def halves(self) -> Halves:
        return Halves(frozenset(self.prompts.prompt_ids), frozenset())


def find_pools(
    model: HookedModel,
    prompts: PromptSet,
    *,
    seed: int = 0,
    all_valid: bool = False,
    every_head: bool = False,
    n_resamples: int = DEFAULTS.n_resamples,
    n_permutations: int = DEFAULTS.n_permutations,
) -> Found:
    """The pools of a model, by the steps of `find_heads` that decide them.

    Only what can change the pools is done: the selection half alone is run, nothing more where it
    has no valid pair, and without `every_head` only heads whose score beats its null are patched,
    since no other may enter. With `all_valid` every event is taken for a valid pair, whether or not
    the model does the task.
    """
    config = RunConfig(
        seed=seed,
        heads="all",
        positions=("span",),
        n_resamples=n_resamples,
        n_permutations=n_permutations,
    )
    selection = prompts.subset(sorted(split_half(prompts.prompt_ids, seed).choose))
    subject = _SelectionAlone(model, selection, config, Reporter(Console(quiet=True)))
    tables = do_steps([MAKER["baseline"]], subject, {})
    if all_valid:
        tables["baseline"][[phase.valid for phase in PHASES.values()]] = True
    n_valid = len(valid_pairs(selection, tables["baseline"]))
    if not n_valid:
        return Found(frozenset(), frozenset(), 0, 0)
    tables = do_steps([MAKER["scores"]], subject, tables)
    scores, thresholds = tables["scores"], thresholds_of(config)
    best = scores[[phase.q for phase in PHASES.values()]].to_numpy().min(axis=1)
    nominated = best <= thresholds.false_discovery_rate
    if not (every_head or nominated.any()):
        return Found(frozenset(), frozenset(), n_valid, 0)
    if not every_head:
        heads = ",".join(head_name(*at) for at in heads_of(scores.loc[nominated]))
        subject = replace(subject, config=replace(config, heads=heads))
    tables = do_steps([MAKER["patching"]], subject, tables)
    pooled = pool_heads(scores, tables["patching"], thresholds)
    coarse, refine = (frozenset(heads_of(pooled.loc[pooled["pool"] == pool])) for pool in POOLS)
    return Found(coarse, refine, n_valid, int(nominated.sum()))


def _names(heads: Collection[Head]) -> str:
    return " ".join(head_name(*head) for head in sorted(heads))


def run_placements(
    n: int = 54,
    seed: int = 0,
    progress: Advance | None = None,
    *,
    n_prompts: int = DEFAULTS.n_prompts,
) -> pd.DataFrame:
    """Find planted heads in `n` models; shapes of `SHAPES` in turn, places drawn anew for each.

    Columns: seed, n_layers, n_heads, n_kv_heads, n_counting, `coarse_true`, `coarse_found`,
    `coarse_precision`, `coarse_recall`, the same for refine, and `distractors_pooled`. Heads are
    written "L-H L-H". Precision is 1 where nothing was found: nothing found is wrong.

    A match head can be missed with few prompts. Its read-out attends to the marked option, so in
    the near run it hardly looks at gold, and RefineScore, a first-order estimate there, sees what
    the near option loses but not what gold gains. The third option of the cluster then scores like
    gold, and a shuffle reaches the observed score as soon as it never deals gold's role to the near
    option: in (2/3)^n of all shuffles for n prompts of the selection half, 0.8 % for 12 and 0.03 %
    for 20. It was missed in 3 of 54 models with 24 prompts, and in none with 40, the default.

    Raises:
        InputError: `n` below 1.
    """
    _check_count(n)
    rows = []
    for index in range(n):
        shape = SHAPES[index % len(SHAPES)]
        planted = plant(seed + index, *shape, n_prompts=n_prompts)
        found = find_pools(planted.model, planted.prompts, seed=seed + index, every_head=True)
        sizes = dict(zip(("n_layers", "n_heads", "n_kv_heads"), shape, strict=True))
        rows.append({"seed": seed + index, **sizes, **compare(planted, found)})
        if progress is not None:
            progress(index + 1, n)
    return pd.DataFrame(rows)


def compare(planted: Planted, found: Found) -> dict[str, Any]:
    """Found heads against the declared ones: the columns of `run_placements` after the shape."""
    row: dict[str, Any] = {"n_counting": found.n_valid}
    for pool in ("coarse", "refine"):
        true, got = getattr(planted, pool), getattr(found, pool)
        right = len(true & got)
        row |= {
            f"{pool}_true": _names(true),
            f"{pool}_found": _names(got),
            f"{pool}_precision": right / len(got) if got else 1.0,
            f"{pool}_recall": right / len(true),
        }
    return row | {"distractors_pooled": len(planted.distractors & (found.coarse | found.refine))}


def random_bundled_model(seed: int, wider: float = WIDER) -> HookedModel:
    """A model of the bundled shape with random weights (see `WIDER`), in float32 on the CPU.

    Raises:
        InputError: this installation has no bundled model.
    """
    config: Any = hf_config(bundled_model_path())
    config.initializer_range *= wider
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = AutoModelForCausalLM.from_config(
            config, dtype=torch.float32, trust_remote_code=False
        )
    return HookedModel.from_pretrained_model(model, name=f"random-{seed}")


def run_random_models(
    n: int = 100,
    seed: int = 0,
    all_valid: bool = False,
    progress: Advance | None = None,
    *,
    prompts: PromptSet | None = None,
) -> pd.DataFrame:
    """Look for heads in `n` random models of the bundled shape; every head found is a false one.

    A random model hardly does the task, so few events are valid pairs and empty pools prove little.
    With `all_valid` every event is taken for one, and scores and patching alone must keep the heads
    out. `prompts` are `N_RANDOM_PROMPTS` of the bundled task unless given, the same for all models.

    Columns: seed, count_all, n_counting (valid pairs of the selection half), n_nominated (heads
    that beat a null; 0 where nothing was scored for want of valid pairs), coarse_heads,
    refine_heads ("L-H L-H"), n_pooled.

    Raises:
        InputError: `n` below 1, or this installation has no bundled model.
    """
    _check_count(n)
    prompts = prompts or make_prompts(n_prompts=N_RANDOM_PROMPTS, seed=seed)
    rows = []
    for index in range(n):
        model = random_bundled_model(seed + index)
        found = find_pools(model, prompts, seed=seed + index, all_valid=all_valid)
        rows.append({"seed": seed + index, "count_all": all_valid, **_found_columns(found)})
        if progress is not None:
            progress(index + 1, n)
    return pd.DataFrame(rows)


def run_falsified(
    seed: int = 0,
    progress: Advance | None = None,
    *,
    model: HookedModel | None = None,
    prompts: PromptSet | None = None,
) -> pd.DataFrame:
    """The method on true prompts and on the same ones with falsified roles or evidence.

    The bundled model and as many of its prompts as a run has, unless given. What is pooled on
    falsified prompts is a false find; what each falsification leaves true is told in
    `studies.falsified`.

    Columns: prompts ("true prompts", "roles dealt out anew", "evidence moved"), n_counting (valid
    pairs of the selection half), n_nominated, coarse_heads, refine_heads ("L-H L-H"), n_pooled.
    """
    model = model or HookedModel.load(bundled_model_path())
    prompts = prompts or make_prompts(seed=seed)
    versions = {
        "true prompts": prompts,
        "roles dealt out anew": shuffle_roles(prompts, seed),
        "evidence moved": shuffle_evidence(prompts, seed),
    }
    rows = []
    for done, (name, version) in enumerate(versions.items(), start=1):
        found = find_pools(model, version, seed=seed)
        rows.append({"prompts": name, **_found_columns(found)})
        if progress is not None:
            progress(done, len(versions))
    return pd.DataFrame(rows)


def _found_columns(found: Found) -> dict[str, Any]:
    return {
        "n_counting": found.n_valid,
        "n_nominated": found.n_nominated,
        "coarse_heads": _names(found.coarse),
        "refine_heads": _names(found.refine),
        "n_pooled": len(found.coarse | found.refine),
    }


def _check_count(n: int) -> None:
    if n < 1:
        raise InputError(f"n is {n} models, must be at least 1")


class Rate(NamedTuple):
    """`k` of `n` models, as a share, with its exact 95 % interval."""

    k: int
    n: int
    rate: float
    low: float
    high: float


def false_positive_rate(frame: pd.DataFrame) -> Rate:
    """Share of the models of `run_random_models` in which at least one head was pooled.

    The interval is that of Clopper and Pearson (1934).

    Raises:
        InputError: a frame without the column `n_pooled`, or without rows.
    """
    if "n_pooled" not in frame or frame.empty:
        raise InputError("the table of random models is empty or lacks column 'n_pooled'")
    k, n = int((frame["n_pooled"].to_numpy() > 0).sum()), len(frame)
    low, high = binomtest(k, n).proportion_ci(0.95, method="exact")
    return Rate(k, n, k / n, float(low), float(high))


@dataclass(frozen=True)
class SelfTest:
    """Tables of all tests; `random` and `random_all` are those without and with `all_valid`."""

    placements: pd.DataFrame
    random: pd.DataFrame
    random_all: pd.DataFrame
    falsified: pd.DataFrame

    def save(self, out: Path) -> None:
        """Write the tables into a new folder, as CSV."""
        make_folder(out)
        for field in fields(self):
            write_table(out / f"{field.name}.csv", getattr(self, field.name))

    @property
    def exact(self) -> bool:
        """Whether both pools of every planted model are the declared ones."""
        names = [f"{pool}_{kind}" for pool in POOLS for kind in ("precision", "recall")]
        return bool((self.placements[names].to_numpy() == 1).all())

    def lines(self) -> list[str]:
        """What came out, in plain words."""
        table = self.placements
        out = []
        for pool in POOLS:
            right = sum(table[f"{pool}_true"].to_numpy() == table[f"{pool}_found"].to_numpy())
            out.append(
                f"planted {pool} heads: exactly found in {right} of {len(table)} models "
                f"(mean precision {table[f'{pool}_precision'].mean():.2f}, "
                f"recall {table[f'{pool}_recall'].mean():.2f})"
            )
        pooled = sum(table["distractors_pooled"].tolist())
        out.append(f"distractors: {pooled} of {len(DISTRACTORS) * len(table)} were pooled")
        out.append(_rate_line("random models", self.random))
        out.append(_rate_line("random models, every event taken as valid", self.random_all))
        for row in self.falsified.to_dict("records"):
            heads = (
                f"coarse {row['coarse_heads'] or 'none'}, refine {row['refine_heads'] or 'none'}"
            )
            out.append(f"{row['prompts']}: {heads} ({row['n_counting']} valid pairs)")
        return out


def run_selftest(placements: int, random_models: int, seed: int = 0) -> SelfTest:
    """All tests, with progress on standard error."""
    reporter = Reporter()
    with reporter.step("planted circuits", placements) as advance:
        planted = run_placements(placements, seed, advance)
    with reporter.step("random models", random_models) as advance:
        plain = run_random_models(random_models, seed, False, advance)
    with reporter.step("random models, every event taken as valid", random_models) as advance:
        every = run_random_models(random_models, seed, True, advance)
    with reporter.step("falsified prompts", 3) as advance:
        return SelfTest(planted, plain, every, run_falsified(seed, advance))


def _rate_line(name: str, frame: pd.DataFrame) -> str:
    k, n, rate, low, high = false_positive_rate(frame)
    valid = sum(count > 0 for count in frame["n_counting"].tolist())
    nominated = sum(count > 0 for count in frame["n_nominated"].tolist())
    return (
        f"{name}: heads were pooled in {k} of {n} ({percent(rate)}, 95 % interval {percent(low)} "
        f"to {percent(high)}); some valid pair in {valid}, "
        f"some head was nominated in {nominated}"
    )
