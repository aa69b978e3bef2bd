"""The heads that the method finds in one model: those steps of a run alone that decide it."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import cached_property

from rich.console import Console

from workbench.analysis.patching.effects import moved_margins
from workbench.analysis.statistics import Halves, split_half
from workbench.heads import Head, head_name
from workbench.headsets.pooling import pool_heads
from workbench.models.hooked import HookedModel
from workbench.phases import PHASES, valid_pairs
from workbench.progress import Reporter
from workbench.prompts.prompt import PromptSet
from workbench.roles import HEAD_POOLS
from workbench.runs.config import DEFAULTS, RunConfig
from workbench.runs.patch import heads_of
from workbench.runs.pool import thresholds_of
from workbench.runs.steps import MAKER
from workbench.runs.subject import Subject, do_steps


@dataclass(frozen=True)
class Found:
    """The heads that the method names in one model, by pool.

    `n_valid` is how many events of the selection half, which alone decides, are valid pairs for a
    phase; `n_nominated` how many heads had a score that beats its null, so that only patching could
    keep them out.
    """

    pools: Mapping[str, frozenset[Head]]
    n_valid: int
    n_nominated: int

    @property
    def heads(self) -> frozenset[Head]:
        """Heads of all pools."""
        return frozenset().union(*self.pools.values())


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
    n_resamples: int = DEFAULTS.n_resamples,
    n_permutations: int = DEFAULTS.n_permutations,
) -> Found:
    """The pools of a model, by the steps of `find_heads` that decide them.

    Only what can change the pools is done: the selection half alone is run, nothing more where it
    has no valid pair, and no head is patched where no counterfactual moves its margin. Every head
    is patched, since one that no score nominates may enter, too. With `all_valid` every event is
    taken for a valid pair, whether or not the model does the task.
    """
    config = RunConfig(
        seed=seed,
        heads="all",
        positions=("span",),
        n_resamples=n_resamples,
        n_permutations=n_permutations,
    )
    halves = split_half(prompts.prompt_ids, seed, prompts.families)
    selection = prompts.subset(sorted(halves.choose))
    subject = _SelectionAlone(model, selection, config, Reporter(Console(quiet=True)))
    tables = do_steps([MAKER["baseline"]], subject, {})
    if all_valid:
        tables["baseline"][[phase.valid for phase in PHASES.values()]] = True
    n_valid = len(valid_pairs(selection, tables["baseline"]))
    if not n_valid:
        return Found({}, 0, 0)
    tables = do_steps([MAKER["scores"]], subject, tables)
    scores, thresholds = tables["scores"], thresholds_of(config)
    best = scores[[phase.q for phase in PHASES.values()]].to_numpy().min(axis=1)
    nominated = best <= thresholds.false_discovery_rate
    if not moved_margins(tables["baseline"], "choose", n_resamples=n_resamples, seed=seed):
        return Found({}, n_valid, int(nominated.sum()))
    tables = do_steps([MAKER["patching"], MAKER["sets"], MAKER["passing"]], subject, tables)
    pooled = pool_heads(scores, tables["patching"], thresholds, tables["passing"], tables["sets"])
    pools = {pool: frozenset(heads_of(pooled.loc[pooled["pool"] == pool])) for pool in HEAD_POOLS}
    return Found(pools, n_valid, int(nominated.sum()))


def names(heads: Collection[Head]) -> str:
    """Heads as tables write them: `4-3 5-1`."""
    return " ".join(head_name(*head) for head in sorted(heads))
