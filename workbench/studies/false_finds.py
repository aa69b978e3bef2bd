"""Does the method find nothing where there is nothing? A pooled head here is a false one.

1. `run_random_models`: models of the bundled shape with random weights, on the bundled prompts.
2. `run_bystanders`: the bundled model, with an option of a bystander family dealt the role of gold.
3. `run_falsified`: the bundled model on prompts whose roles or evidence were falsified.

All go through the steps of a run, with its default thresholds. Rows of the first two grow on disk,
so that a stopped study goes on.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
import torch
from scipy.stats import binomtest
from transformers import AutoModelForCausalLM

from workbench.analysis.readout import Roles, select_options
from workbench.errors import InputError
from workbench.labels.icd10cm import category
from workbench.models.hooked import HookedModel
from workbench.models.loading import bundled_model_path, hf_config
from workbench.progress import Advance
from workbench.prompts.make import make_prompts
from workbench.prompts.prompt import PromptSet
from workbench.runs.growing import grown
from workbench.studies.falsified import deal_bystanders, shuffle_evidence, shuffle_roles
from workbench.studies.found import Found, find_pools, names

WIDER = 4.0
"""Random models start from this many times the bundled model's `initializer_range`.

From that range itself (0.02 at width 256) attention scores deviate by about 0.1, so attention is
all but uniform and the test too easy; at four times the range they deviate by about 1.6.
"""

N_RANDOM_PROMPTS = 40


@dataclass(frozen=True)
class _Case:
    """One model, or one way of dealing out roles, by the seed that makes it."""

    seed: int

    @property
    def id(self) -> str:
        return f"seed {self.seed}"


def _grow(
    path: Path, n: int, seed: int, row_of: Callable[[int], dict[str, Any]], progress: Advance | None
) -> pd.DataFrame:
    if n < 1:
        raise InputError(f"n is {n}, must be at least 1")

    def rows_of(cases: Sequence[_Case]) -> pd.DataFrame:
        return pd.DataFrame([{"id": c.id, "seed": c.seed, **row_of(c.seed)} for c in cases])

    cases = [_Case(seed + index) for index in range(n)]
    return grown(path, cases, rows_of, at_once=1, advance=progress)


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
    path: Path,
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
    Rows go to the CSV file `path`.

    Columns: id, seed, count_all, n_counting (valid pairs of the selection half), n_nominated (heads
    that beat a null; 0 where nothing was scored for want of valid pairs), heads ("L-H L-H"),
    n_pooled.

    Raises:
        InputError: `n` below 1, this installation has no bundled model, or the file cannot be read
            or written.
    """
    asked = prompts or make_prompts(n_prompts=N_RANDOM_PROMPTS, seed=seed)

    def row(at: int) -> dict[str, Any]:
        found = find_pools(random_bundled_model(at), asked, seed=at, all_valid=all_valid)
        return {"count_all": all_valid, **_columns(found)}

    return _grow(path, n, seed, row, progress)


def run_bystanders(
    path: Path,
    n: int = 60,
    seed: int = 0,
    progress: Advance | None = None,
    *,
    model: HookedModel | None = None,
    prompts: PromptSet | None = None,
    family: Callable[[str], str] = category,
) -> pd.DataFrame:
    """The method with a bystander family's option as gold, in `n` draws; each head is a false one.

    Options of one family are attended alike, so what sets a family apart for no reason would pass
    for filtering. `family` names a label's family. The bundled model and 40 of its prompts, half of
    what a run has, unless given. The model answers with the true gold, so every event is taken for
    a valid pair. Rows go to the CSV file `path`.

    Columns: as `run_random_models`, without count_all.

    Raises:
        InputError: `n` below 1, no event has a bystander family, or the file cannot be read or
            written.
    """
    model = model or HookedModel.load(bundled_model_path())
    prompts = prompts or make_prompts(seed=seed)
    asked_for = _asked_in_far(model, prompts)

    def row(at: int) -> dict[str, Any]:
        dealt = deal_bystanders(prompts, asked_for, family, at)
        return _columns(find_pools(model, dealt, seed=at, all_valid=True))

    return _grow(path, n, seed, row, progress)


def _asked_in_far(model: HookedModel, prompts: PromptSet) -> dict[tuple[str, int], str]:
    """The label that each far counterfactual asks for: the far option that the model answers."""
    asked = {}
    for event, run in zip(prompts, model.run([x.far for x in prompts]), strict=True):
        logits = select_options(run.logits, event).cpu()
        at = int(logits.masked_fill(~Roles.of(event).far, -torch.inf).argmax())
        asked[event.id, event.event] = event.options[at].label
    return asked


def run_falsified(
    seed: int = 0,
    progress: Advance | None = None,
    *,
    model: HookedModel | None = None,
    prompts: PromptSet | None = None,
) -> pd.DataFrame:
    """The method on true prompts and on the same ones with falsified roles or evidence.

    The bundled model and 40 of its prompts, half of what a run has, unless given. What is pooled on
    falsified prompts is a false find; what each falsification leaves true is told in
    `studies.falsified`.

    Columns: prompts ("true prompts", "roles dealt out anew", "evidence moved"), n_counting (valid
    pairs of the selection half), n_nominated, heads ("pool: L-H L-H; …"), n_pooled.
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
        rows.append({"prompts": name, **_columns(find_pools(model, version, seed=seed))})
        if progress is not None:
            progress(done, len(versions))
    return pd.DataFrame(rows)


def _columns(found: Found) -> dict[str, Any]:
    pools = [f"{pool}: {names(heads)}" for pool, heads in found.pools.items() if heads]
    return {
        "n_counting": found.n_valid,
        "n_nominated": found.n_nominated,
        "heads": "; ".join(pools),
        "n_pooled": len(found.heads),
    }


class Rate(NamedTuple):
    """`k` of `n` models, as a share, with its exact 95 % interval."""

    k: int
    n: int
    rate: float
    low: float
    high: float


def false_positive_rate(frame: pd.DataFrame) -> Rate:
    """Share of the rows of a table of this module in which at least one head was pooled.

    The interval is that of Clopper and Pearson (1934).

    Raises:
        InputError: a frame without the column `n_pooled`, or without rows.
    """
    if "n_pooled" not in frame or frame.empty:
        raise InputError("the table is empty or lacks column 'n_pooled'")
    k, n = int((frame["n_pooled"].to_numpy() > 0).sum()), len(frame)
    low, high = binomtest(k, n).proportion_ci(0.95, method="exact")
    return Rate(k, n, k / n, float(low), float(high))
