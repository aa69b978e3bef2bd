"""Retrieval heads: heads that look at the very token that is written next.

Wu et al. (2024, "Retrieval Head Mechanistically Explains Long-Context Factuality", arXiv
2404.15574): a head copies a token when its largest attention weight, at the step that writes the
token, lies in the needle, and on that same token. Its score is the share of the needle's tokens
that it copies while the model answers freely, a mean over answers that hold more than half of the
needle.

Here the needle is the text of the gold option, and what is written the model's own chain of
thought, which repeats it; where a prompt has no place for a chain, the answer, which is one token.
A letter is no copy of a text: unless half of some needle is written, there is no score.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from workbench.analysis.chains.generation import write_chains
from workbench.errors import InputError
from workbench.models.hooked import HookedModel
from workbench.models.pattern_rows import attention_rows
from workbench.processes import Spread, in_order
from workbench.prompts.chain import find_cues, question_cases
from workbench.prompts.prompt import DecisionEvent, PromptSet, Span

ENOUGH = 0.5
"""Share of the needle that an answer must hold more of, in order or not."""


class Written(NamedTuple):
    """A prompt and what the model wrote behind it."""

    tokens: list[int]
    first: int
    """Where the model's own tokens begin."""
    needle: Span

    @property
    def recall(self) -> float:
        """Share of the needle's tokens that are written, each as often as it is written."""
        needle = Counter(self.tokens[slice(*self.needle)])
        return (needle & Counter(self.tokens[self.first :])).total() / needle.total()


def own_chains(
    model: HookedModel, events: Sequence[DecisionEvent], *, spread: Spread = in_order
) -> list[Written]:
    """The chain that the model writes for each event, without the cue that opens it.

    Raises:
        InputError: no tokenizer, or no place or room for a chain.
    """
    if model.tokenizer is None:
        raise InputError("the model has no tokenizer")
    prompts = PromptSet("retrieval heads", tuple(events))
    cues = find_cues(prompts, model.tokenizer)
    cases = question_cases(prompts, model.tokenizer, cues)
    found = write_chains(model, cases, model.tokenizer, cues=cues, spread=spread)
    chains = [case.clean for case in found]
    return [
        Written(
            [*chain.question, *chain.tokens], len(chain.question) + chain.n_opening, _needle(event)
        )
        for chain, event in zip(chains, events, strict=True)
    ]


def own_answers(
    model: HookedModel, events: Sequence[DecisionEvent], *, spread: Spread = in_order
) -> list[Written]:
    """The token that the model writes next at each event."""

    def likeliest(some: Sequence[DecisionEvent]) -> list[int]:
        return [int(run.logits.argmax()) for run in model.run([event.clean for event in some])]

    return [
        Written([*event.clean, token], len(event.clean), _needle(event))
        for event, token in zip(events, spread(likeliest, events), strict=True)
    ]


def _needle(event: DecisionEvent) -> Span:
    return event.options[event.with_role("gold")[0]].span


def copied(model: HookedModel, written: Written) -> Float[Tensor, "layer head"]:
    """Share of the needle's tokens that every head copies."""
    start, end = written.needle
    steps = range(written.first - 1, len(written.tokens) - 1)
    tokens = torch.tensor(written.tokens)
    following = tokens[written.first :]
    shares = []
    for rows in attention_rows(model, written.tokens[:-1], steps):
        top = rows.argmax(dim=-1).cpu()
        same = (top >= start) & (top < end) & (tokens[top] == following)
        places = torch.zeros(len(top), end, dtype=torch.bool)
        for head, at in enumerate(top):
            places[head, at[same[head]]] = True
        shares.append(places.sum(dim=-1).double() / (end - start))
    return torch.stack(shares)


def retrieval_scores(
    model: HookedModel,
    events: Sequence[DecisionEvent],
    *,
    progress: Callable[[int, int], None] | None = None,
    spread: Spread = in_order,
) -> Float[Tensor, "layer head"]:
    """Retrieval score of every head, from 0 to 1.

    Raises:
        InputError: no event, nothing written that holds more than half of its needle, or a model
            that shows no attention.
    """
    if not events:
        raise InputError("retrieval heads: no event to score heads on")
    why = ""
    try:
        written = own_chains(model, events, spread=spread)
    except InputError as error:
        written, why = own_answers(model, events, spread=spread), f" (no chain: {error})"
    enough = [each for each in written if each.recall > ENOUGH]
    if not enough:
        raise InputError(
            f"retrieval heads: in none of {len(events)} events does the model write more than half "
            f"of the gold option's text; a token that selects an option is no copy of it{why}"
        )
    total = torch.zeros(model.info.n_layers, model.info.n_heads, dtype=torch.float64)
    for share in spread(lambda some: (copied(model, each) for each in some), enough, progress):
        total += share
    return total / len(enough)
