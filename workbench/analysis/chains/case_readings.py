"""Readings of chains that follow decision events, as tasks and prompt files have them.

For chains of our tasks all is known from the task: evidence and options by their spans, the
shortlist by the letters of a decision's own coarse step, the decision of a token by its step. Where
no step is labelled, labels are found by their texts, as in free chains.
"""

import re
from collections.abc import Callable, Sequence
from itertools import groupby
from typing import Any

from workbench.analysis.chains.places import listed_in
from workbench.analysis.chains.reading import ChainReading, Decision, LabelPlaces, last_listed
from workbench.errors import InputError
from workbench.prompts.chain import Chain, ChainCase
from workbench.prompts.prompt import DecisionEvent, Option, Span


def read_cases(
    cases: Sequence[ChainCase], tokenizer: Any, cluster: Callable[[str], str] | None = None
) -> list[ChainReading]:
    """Readings of chains that follow decision events, one per prompt.

    Cases of one prompt share its chain, that of the first one; each is a decision. Where no case
    has a coarse step of its own, the labels are found in the chain by their texts.

    Args:
        cases: their clean chains are read.
        tokenizer: the model's.
        cluster: id of a label → its family. Without it, gold and near misses of a decision are a
            family, and all labels that no decision is about are one, too.

    Raises:
        InputError: no case, or an option of several tokens.
    """
    if not cases:
        raise InputError("no chains to read: give at least one case")
    ordered = sorted(cases, key=lambda case: [one.event.id for one in cases].index(case.event.id))
    return [
        _read_prompt(list(group), tokenizer, cluster)
        for _, group in groupby(ordered, key=lambda case: case.event.id)
    ]


def _read_prompt(
    cases: Sequence[ChainCase], tokenizer: Any, cluster: Callable[[str], str] | None
) -> ChainReading:
    first = cases[0]
    chain, event = first.clean, first.event
    where = f"prompt {event.id!r}"
    if any(len(option) != 1 for case in cases for option in case.option_tokens()):
        raise InputError(f"{where}: options of several tokens cannot be read inside a chain")
    tokens = tuple(chain.up_to(chain.n_steps)) if chain.n_steps else (*chain.question,)
    start = len(chain.question) + chain.n_opening
    labels = [option.label for option in event.options]
    decisions, asked = [], [-1] * max(len(tokens) - start, 0)
    evidence: list[Span] = []
    spans: list[list[Span]] = [[] for _ in labels]
    for case in cases:
        if [option.label for option in case.event.options] != labels:
            raise InputError(f"{where}: its events offer different options")
        gold, near = (case.event.with_role(role) for role in ("gold", "near"))
        of_it: tuple[int, ...] = ()
        if case.event.evidence[1] <= start:  # else it lies in the chain, and is no anchor
            if case.event.evidence not in evidence:
                evidence.append(case.event.evidence)
            of_it = (evidence.index(case.event.evidence),)
        decisions.append(Decision(case.event.event, gold[0], tuple(near), of_it))
        for step, stage in enumerate(case.clean.stages, start=1):
            if stage not in ("coarse", "fine"):
                continue
            for at in chain.places(step):
                place = at + len(chain.question)
                asked[place - start] = len(decisions) - 1
                if stage == "coarse" and tokens[place] in event.option_tokens:
                    listed = spans[event.option_tokens.index(tokens[place])]
                    listed += [(place, place + 1)] * ((place, place + 1) not in listed)
    exact = any(case.clean.own_step for case in cases)
    texts = tuple(_text(tokenizer, event, option) for option in event.options)
    if exact:
        _hand_over(chain, start - len(chain.question), asked)
    else:
        spans = listed_in(tokenizer, tokens, start, [(text,) for text in texts])
    places = [
        LabelPlaces(option.label, family, (option.token,), (option.span,), tuple(sorted(listed)))
        for option, family, listed in zip(
            event.options, _families(labels, decisions, cluster), spans, strict=True
        )
    ]
    if not exact:
        asked = last_listed(places, decisions, start, len(asked))
    return ChainReading(
        event.id,
        tokens,
        start,
        tuple(places),
        tuple(evidence),
        tuple(decisions),
        tuple(asked),
        tuple(end - chain.n_opening for end in chain.ends if end > chain.n_opening),
        "exact" if exact else "matched",
        texts,
        tuple(tokenizer.decode(event.clean[slice(*span)]).strip() for span in evidence),
    )


def _text(tokenizer: Any, event: DecisionEvent, option: Option) -> str:
    """What the prompt calls an option, without the word that selects it."""
    text = tokenizer.decode(event.clean[slice(*option.span)]).strip()
    word = re.escape(tokenizer.decode([option.token]).strip())
    return re.sub(rf"^{word}\W+|\s+{word}$", "", text) or text


def _families(
    labels: Sequence[str], decisions: Sequence[Decision], cluster: Callable[[str], str] | None
) -> list[int]:
    """Number of each label's family, in order of first appearance."""
    if cluster is not None:
        names: list[object] = [cluster(label) for label in labels]
    else:
        names = [-1] * len(labels)
        for one in decisions:
            joined = {names[at] for at in one.members} - {-1}
            for at in one.members:
                names[at] = one.gold
            names = [one.gold if name in joined else name for name in names]
    known = list(dict.fromkeys(names))
    return [known.index(name) for name in names]


def _hand_over(chain: Chain, opening: int, asked: list[int]) -> None:
    """A step of no decision's own, just before one that is, says what that one needs."""
    for step in range(1, chain.n_steps):
        here = [at - opening for at in chain.places(step)]
        following = asked[chain.places(step + 1)[0] - opening]
        if chain.stages[step - 1] == "other" and all(asked[at] < 0 for at in here):
            for at in here:
                asked[at] = following
