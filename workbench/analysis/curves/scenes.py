"""Where heads are patched between variants of an event, and where its answer is read.

A *scene* is an event's variants run as plain sequences, and a place whose positions are patched:

    decision  the last token, of the direct question
    span      the aligned suffix, of the direct question
    early     queries before the first chain tokens: `n_early` at most, before t*
    late      queries before chain tokens from t* on
    coarse    queries before the tokens of the decision's own coarse step
    fine      queries before the tokens of its own fine steps

At the last four every variant goes on with its own chain, teacher-forced, and the answer is asked
for by the cue: after the whole chain for `early` and `late`, right after the own step for `coarse`
and `fine`. So the counterfactual is in the note *and* in what the chain says of it, and heads get
at a chain token what they had at the same token of the other variant's own chain.

A position is patched where it has a counterpart in the other variant (`alignment`), in a chain also
in the step of the same number; others stay as they are. `Scene.positions` says how many. An event
of which nothing can be patched has no scene.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import torch
from jaxtyping import Float
from torch import Tensor

from workbench.analysis.chains.effects import kept_at
from workbench.analysis.patching.alignment import Alignment
from workbench.analysis.patching.patching import baseline_rows
from workbench.analysis.patching.transplants import PlainRun, patched_logits
from workbench.analysis.readout import Roles, focus_confusion, widen
from workbench.errors import InputError
from workbench.heads import Head
from workbench.models.branches import Branch
from workbench.models.forked import forked_forward
from workbench.models.hooked import HookedModel
from workbench.phases import PHASES, RUNS
from workbench.prompts.chain import Chain, ChainCase
from workbench.prompts.prompt import VARIANTS, DecisionEvent, Variant

DIRECT = ("decision", "span")
READ_AFTER = {"early": "end", "late": "end", "coarse": "coarse", "fine": "fine"}
"""Place in a chain → the stage of it (see `chains.effects`) after which the answer is read."""
PLACES = (*DIRECT, *READ_AFTER)


@dataclass(frozen=True)
class Scene:
    """One event at one place: its variants, and the positions of each that can be patched."""

    event: DecisionEvent
    place: str
    runs: dict[Variant, PlainRun]
    wanted: dict[Variant, Sequence[int]]
    steps: Mapping[Variant, Mapping[int, int]] = field(default_factory=dict)
    """Of chains: number of the step whose token is written behind each position."""

    @property
    def columns(self) -> list[int]:
        """Tokens that are read at the last position."""
        return self.event.option_tokens

    @cached_property
    def roles(self) -> Roles:
        """Of the options."""
        return Roles.of(self.event)

    @cached_property
    def unpatched(self) -> dict[Variant, Float[Tensor, " option"]]:
        """Option logits of each variant as it is."""
        found = {}
        for name, run in self.runs.items():
            last = Branch(len(run.tokens) - 1, run.tokens[-1:])
            columns = self.columns
            [logits] = forked_forward(run.model, run.base, [last], columns=columns, last_only=True)
            found[name] = widen(logits[0]).cpu()
        return found

    @cached_property
    def valid(self) -> dict[str, bool]:
        """Phase → whether the event is a valid pair here."""
        logits = torch.stack([self.unpatched[name] for name in VARIANTS]).double()
        row = baseline_rows(*focus_confusion(logits, self.roles))[0]
        return {name: bool(row[phase.valid]) for name, phase in PHASES.items()}

    def pairs(self, base: Variant, source: Variant) -> list[tuple[int, int]]:
        """Positions of one variant that are patched, with their counterparts in another."""
        to, out_of = self.runs[base], self.runs[source]
        other = Alignment.of(to.tokens, out_of.tokens).counterparts.tolist()
        here, there = (self.steps.get(name, {}) for name in (base, source))
        return [
            (at, other[at])
            for at in self.wanted[base]
            if other[at] >= out_of.first and here.get(at) == there.get(other[at])
        ]

    def positions(self, run: tuple[Variant, Variant]) -> tuple[int, int]:
        """How many positions are patched in a run, and how many its place has."""
        return len(self.pairs(*run)), len(self.wanted[run[0]])

    def patched(
        self, run: tuple[Variant, Variant], groups: Sequence[Sequence[Head]], intervention: str
    ) -> Float[Tensor, "group option"]:
        """Option logits of the first variant of `run`, each group patched from the second."""
        base, source = run
        logits = patched_logits(
            self.runs[base],
            self.runs[source],
            self.pairs(base, source),
            groups,
            intervention=intervention,
            columns=self.columns,
        )
        return widen(logits).cpu()


def direct_scenes(
    model: HookedModel, event: DecisionEvent, places: Sequence[str] = DIRECT
) -> Iterator[Scene]:
    """Scenes of the direct question."""
    wanted = [place for place in DIRECT if place in places]
    kept = event.aligned_suffix if "span" in wanted else 1
    runs: dict[Variant, PlainRun] = {
        name: PlainRun.of(model, event.variant(name), kept) for name in VARIANTS
    }
    for place in wanted:
        n = 1 if place == "decision" else event.aligned_suffix
        at: dict[Variant, Sequence[int]] = {
            name: range(len(run.tokens) - n, len(run.tokens)) for name, run in runs.items()
        }
        yield Scene(event, place, runs, at)


def chain_scenes(
    model: HookedModel,
    case: ChainCase,
    places: Sequence[str] = tuple(READ_AFTER),
    *,
    n_early: int = 30,
    t_star: float = 0.5,
) -> Iterator[Scene]:
    """Scenes in the chains of a case; places that one of its chains does not have are left out.

    Raises:
        InputError: a variant without a chain, or an option of several tokens.
    """
    check_chains(case)
    if any(len(option) != 1 for option in case.option_tokens()):
        where = f"prompt {case.event.id!r} event {case.event.event}"
        raise InputError(f"{where}: options of several tokens cannot be patched for")
    options = [option[0] for option in case.option_tokens()]
    made: dict[str, dict[Variant, PlainRun]] = {}
    for place in (place for place in READ_AFTER if place in places):
        stage = READ_AFTER[place]
        kept = {name: kept_at(case.chains[name], stage, options) for name in VARIANTS}
        at: dict[Variant, Sequence[int]] = {
            name: [
                len(chain.question) + token - 1
                for token in chain_tokens(chain, place, n_early=n_early, t_star=t_star)
                if token < (kept[name] or 0)
            ]
            for name, chain in case.chains.items()
        }
        if not all(at.values()):
            continue
        if stage not in made:
            made[stage] = {
                name: _run(model, case.chains[name], kept[name] or 0, case.cue) for name in VARIANTS
            }
        steps: dict[Variant, Mapping[int, int]] = {
            name: _steps(chain) for name, chain in case.chains.items()
        }
        scene = Scene(case.event, place, made[stage], at, steps)
        if all(scene.pairs(*run) for run in RUNS.values() if "clean" in run):
            yield scene


def check_chains(case: ChainCase) -> None:
    """Refuse a case of which a variant has no chain, with an `InputError`."""
    for name in VARIANTS:
        if name not in case.chains:
            where = f"prompt {case.event.id!r} event {case.event.event}"
            raise InputError(f"{where}: has no chain for the {name} prompt")


def _steps(chain: Chain) -> dict[int, int]:
    before = len(chain.question) - 1
    return {before + at: step for step in range(1, chain.n_steps + 1) for at in chain.places(step)}


def _run(model: HookedModel, chain: Chain, kept: int, cue: Sequence[int]) -> PlainRun:
    """Kept from the token before the chain on."""
    written = chain.tokens[:kept]
    tokens = [*chain.question, *written, *cue]
    return PlainRun.of(model, tokens, len(written) + len(cue) + 1)


def chain_tokens(chain: Chain, place: str, *, n_early: int = 30, t_star: float = 0.5) -> list[int]:
    """Indices into a chain's tokens of those that are written at a place; the opening is not."""
    if place in ("coarse", "fine"):
        own = [step for step, stage in enumerate(chain.stages, start=1) if stage == place]
        return [at for step in own for at in chain.places(step)]
    written = range(chain.n_opening, chain.kept(chain.n_steps))
    late = chain.n_opening + t_star * len(written)
    if place == "late":
        return [at for at in written if at >= late]
    return [at for at in written[:n_early] if at < late]
