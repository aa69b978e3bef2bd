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
and `fine`. A position is patched where it has a counterpart in the other variant (`alignment`).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
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
            columns = self.event.option_tokens
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
        return [(at, other[at]) for at in self.wanted[base] if other[at] >= out_of.first]

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
            columns=self.event.option_tokens,
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
    where = f"prompt {case.event.id!r} event {case.event.event}"
    missing = [name for name in VARIANTS if name not in case.chains]
    if missing:
        raise InputError(f"{where}: has no chain for the {missing[0]} prompt")
    if any(len(option) != 1 for option in case.option_tokens()):
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
        scene = Scene(case.event, place, made[stage], at)
        if all(scene.pairs(*run) for run in RUNS.values() if "clean" in run):
            yield scene


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
