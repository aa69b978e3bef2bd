"""What the steps of a run work on, and steps done one after the other in memory."""

from collections.abc import Callable, Collection, Iterable, Mapping, MutableMapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import pandas as pd

from workbench.analysis.statistics import Halves, split_half
from workbench.models.hooked import HookedModel
from workbench.phases import DIRECTIONS, Direction, runs_that_count
from workbench.progress import Reporter
from workbench.prompts.prompt import DecisionEvent, PromptSet
from workbench.runs.config import DEFAULTS, RunConfig
from workbench.runs.steps import Step

Tables = Mapping[str, Any]
"""Tables by name; under "headset" the head set."""
Parts = MutableMapping[int | str, pd.DataFrame]
"""What a resumable step keeps: rows of single events by number, tables of its own by name."""
RunsOf = Callable[[DecisionEvent], tuple[str, ...]]


@dataclass(frozen=True)
class Subject:
    """A model, prompts and settings."""

    model: HookedModel
    prompts: PromptSet
    config: RunConfig = DEFAULTS
    reporter: Reporter = field(default_factory=Reporter)

    @cached_property
    def halves(self) -> Halves:
        """Ids of the prompts that select heads, and of those held out to verify them."""
        return split_half(self.prompts.prompt_ids, self.config.seed, self.prompts.families)

    @cached_property
    def selection(self) -> PromptSet:
        """The selection half of the prompts."""
        return self.prompts.subset(sorted(self.halves.choose))

    @cached_property
    def held_out(self) -> PromptSet:
        """The held-out half of the prompts."""
        return self.prompts.subset(sorted(self.halves.verify))

    @property
    def template(self) -> str | None:
        """The template of the prompts, where this run made them."""
        return None


def do_steps(steps: Iterable[Step], subject: Subject, tables: Tables) -> dict[str, Any]:
    """`tables` and those that the steps add to them, without a folder."""
    made = dict(tables)
    for step in steps:
        if step.wanted(subject.config):
            kept: list[Parts] = [{}] if step.resumable else []
            with subject.reporter.between(step.name):
                made |= step.do(subject, made, *kept).tables
    return made


def valid_runs(baseline: pd.DataFrame, directions: Collection[Direction] = DIRECTIONS) -> RunsOf:
    """Patched runs for which an event is a valid pair, by the baseline table."""
    rows = baseline.drop_duplicates(["id", "event"]).to_dict("records")
    runs = {(row["id"], row["event"]): runs_that_count(row, directions) for row in rows}
    return lambda event: runs[event.id, event.event]


def runs_worth_patching(baseline: pd.DataFrame, halves: Halves) -> RunsOf:
    """Of the runs for which an event is a valid pair, those that are read later.

    Pools are selected by denoising and transfer; noising is measured on the held-out half.
    """
    every, selecting = valid_runs(baseline), valid_runs(baseline, ("denoising", "transfer"))
    return lambda event: (every if halves.of(event.id) == "verify" else selecting)(event)
