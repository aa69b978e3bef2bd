"""Prompts whose annotation is made false on purpose: what the method must not find anything on.

The permutation nulls test the scores alone. A falsified set goes through every step instead
(baseline, scores, patching, pools), and what is pooled on it is a false find. Texts, tokens and
counterfactuals stay as they are.

*Roles* (`shuffle_roles`): the model answers with the true gold, so on most events it now seems not
to do the task, and these do not count; what is left must not nominate a head either.
*Evidence* (`shuffle_evidence`): only the evidence route of CoarseScore reads the span. The decision
route, RefineScore and the patching do not, and keep what they truly show.
*Bystanders* (`deal_bystanders`): a family that neither the evidence nor its far counterfactual
names becomes the right cluster. Nothing that the evidence changes is about it.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace

import torch
from transformer_lens.utilities.statistics import derive_generator

from workbench.errors import InputError
from workbench.prompts.prompt import DecisionEvent, PromptSet, Role, Span


def shuffle_roles(prompts: PromptSet, seed: int = 0) -> PromptSet:
    """The same events with roles gold, near and far dealt out anew within each, and no families.

    Role `other` stays where it is; label, token and span stay with their option. Each event is
    shuffled by itself, the same way wherever it stands in the set.
    """
    events = []
    for event in prompts:
        dealt = [index for index, option in enumerate(event.options) if option.role != "other"]
        generator = derive_generator(seed, "falsified roles", event.id, event.event)
        order = torch.randperm(len(dealt), generator=generator).tolist()
        roles: dict[int, Role] = {
            at: event.options[dealt[other]].role for at, other in zip(dealt, order, strict=True)
        }
        options = tuple(
            replace(option, role=roles.get(index, option.role), family=None)
            for index, option in enumerate(event.options)
        )
        events.append(replace(event, options=options))
    return PromptSet(prompts.task, tuple(events))


def shuffle_evidence(prompts: PromptSet, seed: int = 0) -> PromptSet:
    """The same events, each with another span of the clean prompt as its evidence.

    The new span is as long as the true one, lies on the same side of the options (in the note, say
    on another mention), overlaps neither it nor an option's span, and is drawn evenly from such
    places. An event without such a place is left out: its evidence is most of what stands on its
    side.

    Raises:
        InputError: no event has one.
    """
    events = []
    for event in prompts:
        places = _other_places(event)
        if not places:
            continue
        generator = derive_generator(seed, "falsified evidence", event.id, event.event)
        drawn = int(torch.randint(len(places), (1,), generator=generator))
        events.append(replace(event, evidence=places[drawn]))
    if not events:
        raise InputError(
            "no event has tokens on its side of the options that could stand in for its evidence"
        )
    return PromptSet(prompts.task, tuple(events))


def deal_bystanders(
    prompts: PromptSet,
    asked_in_far: Mapping[tuple[str, int], str],
    family: Callable[[str], str],
    seed: int = 0,
) -> PromptSet:
    """The same events, each with an option of a bystander family as gold, its siblings as near.

    A bystander family has two options or more with role `far`, and none that is gold or that the
    far counterfactual asks for (`asked_in_far`, a label by prompt id and event). All others of role
    gold, near or far become far. An event without such a family is left out.

    Raises:
        InputError: no event has one.
    """
    events = []
    for event in prompts:
        taken = {family(event.options[at].label) for at in event.with_role("gold")}
        taken.add(family(asked_in_far[event.id, event.event]))
        members: dict[str, list[int]] = {}
        for at in event.with_role("far"):
            members.setdefault(family(event.options[at].label), []).append(at)
        free = [each for name, each in members.items() if name not in taken and len(each) > 1]
        if not free:
            continue
        generator = derive_generator(seed, "bystanders", event.id, event.event)
        chosen = free[int(torch.randint(len(free), (1,), generator=generator))]
        gold = chosen[int(torch.randint(len(chosen), (1,), generator=generator))]
        roles: dict[int, Role] = {
            at: "gold" if at == gold else "near" if at in chosen else "far"
            for at, option in enumerate(event.options)
            if option.role != "other"
        }
        options = tuple(
            replace(
                option,
                role=roles.get(at, option.role),
                family=option.family and ("bystander" if at in chosen else option.family),
            )
            for at, option in enumerate(event.options)
        )
        events.append(replace(event, options=options))
    if not events:
        raise InputError(f"prompt set {prompts.task!r}: no event has a bystander family")
    return PromptSet(prompts.task, tuple(events))


def _other_places(event: DecisionEvent) -> list[Span]:
    start, end = event.evidence
    length = end - start
    spans = [option.span for option in event.options]
    first, last = min(spans)[0], max(span[1] for span in spans)
    least, most = (0, first) if start < first else (last, len(event.clean))
    places = [(at, at + length) for at in range(least, most - length + 1)]
    return [place for place in places if place[1] <= start or end <= place[0]]
