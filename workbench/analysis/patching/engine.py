"""Which engine patches a set of prompts, why the slow one where it does, and how much slower."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from workbench.models.forked import FORKED, can_fork
from workbench.models.hooked import HookedModel
from workbench.models.shortcuts import Shortcut
from workbench.prompts.prompt import DecisionEvent

SHARED = "shared forward"
SEPARATE = "one forward per patch"


@dataclass(frozen=True)
class EngineUse:
    """How many events are patched in shared forwards, and how many by a forward per patch.

    `slowdown` is an estimate by counting, 1 without slow events: tokens that the events' patched
    runs compute, in units of what shared forwards would.
    """

    shared: int
    separate: int
    reason: str
    slowdown: float

    @property
    def words(self) -> str:
        """What a manifest, a head set and a report say."""
        if not self.separate:
            return SHARED
        why = f"{self.reason}; about {self.slowdown:.2g} times the tokens, by count"
        if not self.shared:
            return f"{SEPARATE} ({why})"
        of = f"{self.shared} of {self.shared + self.separate} events"
        return f"{SHARED} for {of}, else {SEPARATE} ({why})"


def engine_use(
    model: HookedModel, events: Iterable[DecisionEvent], positions: Sequence[str], n_patches: int
) -> EngineUse:
    """The engine for these events; it is tried where it was not before.

    A shared forward computes the prompt, and for each patch the repeated tokens in the layers above
    it: half of them on average. A forward per patch computes the whole prompt each time.
    """
    shared, slow, quick = 0, 0.0, 0.0
    separate = 0
    for event in events:
        if can_fork(model, event.longest):
            shared += 1
            continue
        separate += 1
        for place in positions:
            repeated = 1 if place == "decision" else event.aligned_suffix
            length = len(event.clean)
            slow += n_patches * length
            quick += length + n_patches * repeated / 2
    known = model.shortcuts.get(FORKED, Shortcut())
    processed = "the bridge's weights were processed"
    reason = processed if model.bridge.compatibility_mode else f"{known.reason}{known.where}"
    return EngineUse(shared, separate, reason if separate else "", slow / quick if quick else 1.0)
