"""Where a chain itself decides: the first token in which two variants' own chains part.

Up to there both chains say the same, so that a variant and its counterfactual differ in the note
alone, and every chain token has its counterpart. The place `parting` is every query before a chain
token, up to the one before the token that parts them; what the model would write there is read:

    Focus       clean against far, where the chain names the family that is shortlisted
    Confusion   clean against near, where it says what tells gold from the near miss

The readout is between two tokens, the clean chain's and the other's: their log-odds, and the
probability of the clean one among the two. So the heads that *write* a step of the chain are
measured, not those that read it when the answer is asked for. The two phases part at different
places of the chain, each at its own.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import torch

from workbench.analysis.curves.scenes import Scene, check_chains
from workbench.analysis.patching.patching import THRESHOLDS
from workbench.analysis.patching.transplants import PlainRun
from workbench.analysis.readout import Roles, good_readout
from workbench.models.hooked import HookedModel
from workbench.phases import PHASES, Phase
from workbench.prompts.chain import ChainCase
from workbench.prompts.prompt import Variant

PARTING = "parting"


@dataclass(frozen=True)
class PartingScene(Scene):
    """A scene that ends where the chains of two variants part; `tokens` are what they write."""

    phase: Phase = PHASES["coarse"]
    tokens: tuple[int, int] = (0, 1)

    @property
    def columns(self) -> list[int]:
        """The clean chain's token, and the other's."""
        return list(self.tokens)

    @cached_property
    def roles(self) -> Roles:
        """The first token is gold; the other is near or far, by the phase."""
        other, neither = torch.tensor([False, True]), torch.zeros(2, dtype=torch.bool)
        near, far = (neither, other) if self.phase.rises else (other, neither)
        return Roles(~other, near, far)

    @cached_property
    def valid(self) -> dict[str, bool]:
        """Whether the clean run writes its token, and the counterfactual one is moved."""
        clean, other = (
            float(good_readout(self.unpatched[name].double(), self.roles, self.phase.readout))
            for name in ("clean", self.phase.counterfactual)
        )
        limit = THRESHOLDS["clean_focus"]
        if not self.phase.rises:
            limit = 1 - THRESHOLDS["clean_confusion"]
        moved = clean >= limit and clean - other >= THRESHOLDS["moved"]
        return {name: moved and phase == self.phase for name, phase in PHASES.items()}


def parting_scenes(model: HookedModel, case: ChainCase) -> Iterator[PartingScene]:
    """A scene per phase whose two chains part at a token behind the cue that opens them.

    Raises:
        InputError: a variant without a chain.
    """
    check_chains(case)
    clean = case.clean
    for phase in PHASES.values():
        names: tuple[Variant, Variant] = ("clean", phase.counterfactual)
        other = case.chains[phase.counterfactual]
        pairs = enumerate(zip(clean.tokens, other.tokens, strict=False))
        at = next((place for place, (a, b) in pairs if a != b), None)
        if at is None or at < clean.n_opening or clean.n_opening != other.n_opening:
            continue
        n_kept = at - clean.n_opening + 1
        runs, wanted = {}, {}
        for name in names:
            tokens = [*case.chains[name].question, *clean.tokens[:at]]
            runs[name] = PlainRun.of(model, tokens, n_kept)
            wanted[name] = range(len(tokens) - n_kept, len(tokens))
        tokens = clean.tokens[at], other.tokens[at]
        yield PartingScene(case.event, PARTING, runs, wanted, phase=phase, tokens=tokens)
