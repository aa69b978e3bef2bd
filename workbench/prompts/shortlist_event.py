"""The decision event of a document whose shortlist is chosen: its words, tokens, spans and roles.

The document is told as numbered mentions, one for each gold label mentioned: the sentences since
the mention before, then the label's evidence, and where that is part of a sentence, the rest of it;
the last goes on to the end of the document.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from workbench.labels.space import Label, LabelSpace
from workbench.prompts.drawn import DrawnPrompt, Mention
from workbench.prompts.events import build_event
from workbench.prompts.prompt import DecisionEvent
from workbench.prompts.support import Support
from workbench.prompts.task import Posed
from workbench.prompts.templates import CharSpan, Template
from workbench.prompts.text import ControlTextError, SpanError

_RADII = (1_000_000, 64, 32, 16, 8, 4, 2, 1, 0)
"""Sentences of context on each side of the evidence, tried until a prompt is short enough."""


class Dropped(Exception):
    """A document that gives no prompt, with the reason."""


@dataclass(frozen=True)
class ToldDocument:
    """A document that was read, its sentences, and where each gold label is supported.

    `given` says whether the source says where, rather than that it was found. Before each sentence
    stands its gap; `begins` says which are no rest of a sentence.
    """

    labels: tuple[int, ...]
    ignored: tuple[int, ...]
    query: str = field(repr=False)
    sentences: tuple[str, ...] = field(repr=False)
    gaps: tuple[str, ...] = field(repr=False)
    begins: tuple[bool, ...] = field(repr=False)
    supports: dict[int, Support] = field(repr=False)
    given: bool = False

    def told(self, start: int, stop: int) -> str:
        """These sentences, and their gaps."""
        pairs = zip(self.gaps[start:stop], self.sentences[start:stop], strict=True)
        return "".join(gap + sentence for gap, sentence in pairs)


@dataclass(frozen=True)
class Plan:
    """A prompt's content: whose sentence is decided about, and what may replace it.

    `mentioned` are gold labels in the order of their sentences; `event` is one's place in it.
    """

    id: str
    document: ToldDocument
    mentioned: tuple[int, ...]
    event: int
    near: tuple[int, ...]
    far: tuple[int, ...]
    candidates: tuple[int, ...]
    labels: dict[int, Label]
    swaps: tuple[str, str] = field(repr=False)
    n_made_up: int = 0

    @property
    def gold(self) -> int:
        """The label that is decided about."""
        return self.mentioned[self.event]


def longest_event(plan: Plan, template: Template, tokenizer: Any, max_tokens: int) -> DecisionEvent:
    """The event with as much of the document around its evidence as fits.

    Where even the evidence of all mentions is too long, only the decided label is mentioned.

    Raises:
        Dropped: it is too long all the same, or its variants do not align.
        InputError: an option letter that is not one token.
    """
    alone = replace(plan, mentioned=(plan.gold,), event=0)
    for tried in [plan] if len(plan.mentioned) == 1 else [plan, _without_others(alone)]:
        for radius in _RADII:
            event = _build(tried, radius, template, tokenizer)
            longest = max(len(tokens) for tokens in (event.clean, event.far, event.near))
            if longest <= max_tokens:
                return event
    raise Dropped(f"longer than {max_tokens} tokens")


def _without_others(plan: Plan) -> Plan:
    offered = {plan.gold, *plan.near, *plan.far}
    kept = tuple(label for label in plan.candidates if label in offered)
    return replace(plan, candidates=kept)


def _build(plan: Plan, radius: int, template: Template, tokenizer: Any) -> DecisionEvent:
    space = LabelSpace(plan.id, [plan.labels[label] for label in plan.candidates])
    passages = _passages(plan, radius)
    evidence = plan.document.sentences[plan.document.supports[plan.gold].sentence]
    prompts, rendered, swapped = [], [], []
    for sentence in (evidence, *plan.swaps):
        prompt, (start, end) = _prompt(plan, passages, sentence)
        text = template.render(space, prompt)
        _, last = text.mentions[plan.event]
        first = last - len(prompt.mentions[plan.event].text)
        spaced = first + start > 0 and text.text[first + start - 1] == " "
        prompts.append(prompt)
        rendered.append(text)
        swapped.append((first + start - spaced, first + end))
    letters = prompts[0].letters
    asked = "".join(f" {letters[label]}" for label in prompts[0].golds[: plan.event])
    posed = Posed([text.asking(asked) for text in rendered], swapped, swapped[0])
    roles = [prompts[0].role(plan.event, label) for label in prompts[0].candidates]
    try:
        event = build_event(tokenizer, prompts[0], plan.event, rendered, posed, roles)
    except ControlTextError:
        raise Dropped(
            "with the text of a control token, which the tokenizer takes for it"
        ) from None
    except SpanError:
        part = "evidence does" if plan.document.given else "sentences do"
        raise Dropped(f"whose {part} not fall on token borders") from None
    if event is None:
        raise Dropped("with counterfactuals that do not align")
    return event


def _prompt(
    plan: Plan, passages: Sequence[tuple[str, str]], sentence: str
) -> tuple[DrawnPrompt, CharSpan]:
    """The prompt with this sentence as the evidence, whose span in its mention is given."""
    mentions = []
    span = (0, 0)
    own = [plan.document.supports[label].sentence for label in plan.mentioned]
    for place, (before, after) in enumerate(passages):
        is_decided = place == plan.event
        held = sentence if is_decided else plan.document.sentences[own[place]]
        if is_decided:
            span = (len(before), len(before) + len(held))
        mentions.append(Mention(plan.labels[plan.mentioned[place]].id, before + held + after))
    name = [plan.labels[label].id for label in plan.candidates]
    home = {plan.labels[label].id for label in (plan.gold, *plan.near)}
    families = (
        tuple(label for label in name if label in home),
        tuple(label for label in name if label not in home),
    )
    return DrawnPrompt(plan.id, tuple(mentions), families, tuple(name), plan.event), span


def _passages(plan: Plan, radius: int) -> list[tuple[str, str]]:
    """What stands before and after the evidence in each mention, `radius` sentences at most.

    A mention ends with the sentence of its evidence, or before the next evidence.
    """
    document = plan.document
    own = [plan.document.supports[label].sentence for label in plan.mentioned]
    passages = []
    earlier = 0
    for place, at in enumerate(own):
        start = max(earlier, at - radius)
        rest = range(at + 1, len(document.sentences))
        earlier = next((x for x in rest if document.begins[x] or x in own), len(document.sentences))
        before = document.told(start, at) + document.gaps[at] if start < at else ""
        stop = at + 1 + radius if place == len(own) - 1 else earlier
        after = document.told(at + 1, stop)
        passages.append((before.lstrip(" "), after))
    return passages


def one_line(text: str) -> str:
    """The text with every run of spaces and line breaks as one space."""
    return " ".join(text.split())
