"""Sets of heads patched on events of a prompt file, event by event, at any place."""

from collections.abc import Iterator, MutableMapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import pandas as pd

from workbench.analysis.chains.generation import write_chains
from workbench.analysis.curves.cumulative import KEYS, cumulative_event
from workbench.analysis.curves.faithfulness import Plan
from workbench.analysis.curves.parting import PARTING, parting_scenes
from workbench.analysis.curves.scenes import DIRECT, READ_AFTER, Scene, chain_scenes, direct_scenes
from workbench.analysis.curves.written import WRITTEN, written_scenes
from workbench.errors import InputError
from workbench.heads import Head
from workbench.models.hooked import HookedModel
from workbench.phases import Direction
from workbench.progress import Reporter
from workbench.prompts.chain import ChainCase, find_cues, question_cases
from workbench.prompts.choices import stage_reader
from workbench.prompts.given_chains import given_cases, holds_chains
from workbench.prompts.prompt import VARIANTS, DecisionEvent, PromptSet, Variant
from workbench.prompts.templates import Cues, PlainTemplate

Place = Literal[
    "decision",
    "span",
    "early",
    "late",
    "coarse",
    "fine",
    "parting",
    "written_early",
    "written_late",
    "written",
]
Parts = MutableMapping[Any, pd.DataFrame]
"""What was done, by name: rows of one event each."""
Cases = dict[tuple[str, int], ChainCase]
"""Chains by the event that they lead to."""


class NoPairs(InputError):
    """No event is a valid pair of which something can be patched."""


@dataclass
class Work:
    """A model and prompts, and what was done with them.

    `cases` are the chains that places lie in, `free` those that the model wrote itself.
    """

    model: HookedModel
    prompts: PromptSet
    places: Sequence[str]
    interventions: Sequence[str]
    n_early: int
    t_star: float
    parts: Parts
    reporter: Reporter
    cases: Cases = field(default_factory=dict)
    free: Cases = field(default_factory=dict)
    cues: Cues = PlainTemplate.cues

    @property
    def every(self) -> list[Head]:
        """All heads of the model."""
        info = self.model.info
        return [(layer, head) for layer in range(info.n_layers) for head in range(info.n_heads)]

    def find_chains(self) -> None:
        """The chains that the places need, or that heads are scored on: given or written.

        Prompts that hold chains, each variant its own, keep them. Otherwise the model writes:
        for every variant where a place lies in the chains, else for the clean one. Prompts that
        have no place for a chain give none.

        Raises:
            InputError: there can be no chains, and a place lies in them.
        """
        needed = bool(set(self.places) - set(DIRECT))
        variants: tuple[Variant, ...] = VARIANTS if needed else ("clean",)
        tokenizer = self.model.tokenizer
        try:
            if tokenizer is None:
                raise InputError("the model has no tokenizer")
            self.cues = find_cues(self.prompts, tokenizer)
            stages = stage_reader(self.prompts.task)
            if holds_chains(self.prompts, tokenizer, self.cues):
                cases = given_cases(self.prompts, tokenizer, self.cues, stages, variants)
                self.cases = _by_event(cases)
                if not set(self.places) & set(WRITTEN):
                    return
            else:
                cases = question_cases(self.prompts, tokenizer, self.cues)
            with self.reporter.step(f"{len(variants) * len(cases)} chains"):
                written = write_chains(
                    self.model, cases, tokenizer, cues=self.cues, variants=variants, stages=stages
                )
            self.free = _by_event(written)
            self.cases = self.cases or self.free
        except InputError as error:
            if needed:
                raise
            self.reporter.say(f"no chain scores ({error})")

    def scenes(self, event: DecisionEvent, places: Sequence[str]) -> Iterator[Scene]:
        """An event at each of the places that it has."""
        wanted, key = set(places), (event.id, event.event)
        given = {"n_early": self.n_early, "t_star": self.t_star}
        if wanted & set(DIRECT):
            yield from direct_scenes(self.model, event, places)
        if wanted & set(READ_AFTER):
            yield from chain_scenes(self.model, self.cases[key], places, **given)
        if PARTING in wanted:
            yield from parting_scenes(self.model, self.cases[key])
        if wanted & set(WRITTEN):
            yield from written_scenes(self.model, self.free[key], places, self.cues, **given)

    def patched(
        self,
        name: str,
        events: Sequence[DecisionEvent],
        plan: Plan,
        places: Sequence[str] = (),
        directions: Sequence[Direction] = ("denoising",),
    ) -> pd.DataFrame:
        """Rows of `cumulative_event` of all events, at all places unless some are given.

        Raises:
            NoPairs: no event is a valid pair at any place.
        """
        places, frames = places or self.places, []
        with self.reporter.step(name, len(events)) as advance:
            for done, event in enumerate(events, start=1):
                key = f"{name} {done:06}"
                if key not in self.parts:
                    rows = [
                        cumulative_event(scene, plan, self.interventions, directions)
                        for scene in self.scenes(event, places)
                    ]
                    rows = [each for each in rows if len(each)]
                    self.parts[key] = pd.concat(rows) if rows else pd.DataFrame({"id": []})
                frames.append(self.parts[key])
                advance(done, len(events))
        full = [frame for frame in frames if len(frame)]
        if not full:
            raise NoPairs(
                f"{name}: no event is a valid pair of which a position at {', '.join(places)} can "
                "be patched"
            )
        return pd.concat(full, ignore_index=True)


def positions_table(events: pd.DataFrame, places: Sequence[str]) -> pd.DataFrame:
    """What could be patched: columns `KEYS`, n (valid pairs), and means of patched and wanted.

    A place without a valid pair has one row, with n = 0.
    """
    first = events.loc[events["target"] == 0]
    grouped = first.groupby(KEYS, as_index=False, sort=False)
    table = grouped.agg(n=("id", "size"), patched=("patched", "mean"), wanted=("wanted", "mean"))
    empty = [{"place": place, "n": 0} for place in places if place not in set(first["place"])]
    return pd.concat([table, pd.DataFrame(empty)], ignore_index=True) if empty else table


def _by_event(cases: Sequence[ChainCase]) -> Cases:
    return {(case.event.id, case.event.event): case for case in cases}
