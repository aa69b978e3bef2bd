"""What the steps of a run work on, and steps done one after the other in memory."""

from collections.abc import Callable, Collection, Iterable, Mapping, MutableMapping
from dataclasses import dataclass, field
from functools import cached_property
from itertools import accumulate
from typing import Any

import pandas as pd

from workbench.analysis.statistics import Halves, deal_more, split_half
from workbench.models.hooked import HookedModel
from workbench.phases import DIRECTIONS, Direction, runs_that_count
from workbench.processes import Alone
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
    asks_anew: bool = True
    """Whether a step that adds to what is there was not asked for what the settings say before."""
    together: Alone = field(default_factory=Alone, kw_only=True)
    """The processes that share the work on events."""

    @property
    def batches(self) -> tuple[int, ...]:
        """Events of each time that prompts were added, the first ones first."""
        return (len(self.prompts),)

    @cached_property
    def halves(self) -> Halves:
        """Ids of the prompts that select heads, and of those held out to verify them.

        Prompts that were added later are dealt to the halves of those before.
        """
        return halves_of(self.prompts, self.batches, self.config.seed)

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

    def asked(self, step: str) -> list[RunConfig]:
        """Settings with which a step was asked for, the present ones last: it does all of it."""
        return [self.config]

    def rows(self, step: str) -> pd.DataFrame:
        """Rows of single events that the step kept when it was done before."""
        return pd.DataFrame()


def halves_of(prompts: PromptSet, batches: Iterable[int], seed: int) -> Halves:
    """The halves of prompts that were added in batches of so many events.

    Raises:
        InputError: fewer than two distinct prompts.
    """
    first, *more = accumulate(batches)
    start = PromptSet(prompts.task, prompts.events[:first])
    halves = split_half(start.prompt_ids, seed, start.families)
    for end in more:
        there = PromptSet(prompts.task, prompts.events[:end])
        halves = deal_more(halves, there.prompt_ids, seed, there.families)
    return halves


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
