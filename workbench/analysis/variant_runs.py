"""Plain runs of decision events: the variants of several events in one forward."""

from collections.abc import Collection, Iterator, Sequence

from workbench.errors import InputError
from workbench.models.hooked import HookedModel, Run
from workbench.prompts.prompt import VARIANTS, DecisionEvent, PromptSet

KEPT_TOKENS = 4096
"""Tokens of a forward whose activations are wanted: every layer keeps them until it is done."""


def variant_runs(
    model: HookedModel, events: PromptSet | Sequence[DecisionEvent], names: Collection[str] = ()
) -> Iterator[list[Run]]:
    """Each event's runs, in the order of `VARIANTS`, with the named activations.

    As many events go into one forward as the model's budget has tokens for: on a CPU, where more
    are no faster, mostly one.

    Raises:
        InputError: naming the event that the model cannot run, or runs to logits that are no
            numbers.
    """
    events = list(events)
    tokens = min(model.pack_budget.tokens, KEPT_TOKENS) if names else model.pack_budget.tokens
    longest = max((len(event.longest) for event in events), default=1)
    size = max(1, tokens // (len(VARIANTS) * longest))
    for start in range(0, len(events), size):
        part = events[start : start + size]
        sequences = [event.variant(name) for event in part for name in VARIANTS]
        try:
            runs = model.run(sequences, names, batch_size=len(sequences))
        except InputError as error:
            if len(part) == 1:
                raise InputError(f"prompt {part[0].id!r} event {part[0].event}: {error}") from None
            for event in part:  # by itself, to say which
                yield from variant_runs(model, [event], names)
            continue
        for at in range(0, len(runs), len(VARIANTS)):
            yield runs[at : at + len(VARIANTS)]
