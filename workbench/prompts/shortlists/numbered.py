"""The event of a document that is told as numbered mentions, as models trained here know them.

One mention for each gold label on offer: the sentences since the mention before, then the label's
evidence, and where that is part of a sentence, the rest of it; the last goes on to the end of the
document. Runs of spaces and line breaks become one space.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from workbench.labels.space import LabelSpace
from workbench.prompts.drawn import DrawnPrompt, Mention
from workbench.prompts.events import build_event
from workbench.prompts.prompt import DecisionEvent
from workbench.prompts.shortlists.plan import Dropped, Edit, Plan
from workbench.prompts.task import Posed
from workbench.prompts.templates import CharSpan, Template
from workbench.prompts.text import ControlTextError, SpanError

_RADII = (1_000_000, 64, 32, 16, 8, 4, 2, 1, 0)
"""Sentences of context on each side of the evidence, tried until a prompt is short enough."""


class Numbered:
    """Writes events with numbered mentions.

    Args:
        template: how a prompt reads.
        tokenizer: the model's.
        max_tokens: of a prompt.
    """

    def __init__(self, template: Template, tokenizer: Any, max_tokens: int) -> None:
        self._template, self._tokenizer, self._max = template, tokenizer, max_tokens

    def event(self, plan: Plan) -> tuple[DecisionEvent, bool]:
        """The event with as much of the document around its evidence as fits; whether it is cut.

        Where even the evidence of all mentions is too long, only the decided label is mentioned.

        Raises:
            Dropped: it is too long all the same, or its variants do not align.
            InputError: an option letter that is not one token.
        """
        offered = {plan.gold, *plan.near, *plan.far}
        kept = tuple(label for label in plan.candidates if label in offered)
        alone = replace(plan, others=(), candidates=kept)
        for tried in [plan, alone] if plan.others else [plan]:
            for radius in _RADII:
                event = self._build(tried, radius)
                longest = max(len(tokens) for tokens in (event.clean, event.far, event.near))
                if longest <= self._max:
                    return event, radius < len(plan.document.cut.sentences)
        raise Dropped(f"longer than {self._max} tokens")

    def _build(self, plan: Plan, radius: int) -> DecisionEvent:
        space = LabelSpace(plan.id, [plan.labels[label] for label in plan.candidates])
        mentions = _mentions(plan, radius)
        decided = [label for label, *_ in mentions].index(plan.gold)
        prompts, rendered, swapped, evidence = [], [], [], (0, 0)
        for number, edit in enumerate(plan.variants):
            prompt, span, changed = _prompt(plan, mentions, edit)
            text = self._template.render(space, prompt)
            firsts = [
                last - len(mention.text)
                for mention, (_, last) in zip(prompt.mentions, text.mentions, strict=True)
            ]
            start, end = (firsts[decided] + at for at in span)
            start -= start > 0 and text.text[start - 1] == " "
            evidence = (start, end) if number == 0 else evidence
            last = max((firsts[place] + at for place, at in changed), default=end)
            prompts.append(prompt)
            rendered.append(text)
            swapped.append((start, max(end, last)))
        letters = prompts[0].letters
        asked = "".join(f" {letters[label]}" for label in prompts[0].golds[:decided])
        posed = Posed([text.asking(asked) for text in rendered], swapped, evidence)
        roles = [prompts[0].role(decided, label) for label in prompts[0].candidates]
        try:
            event = build_event(self._tokenizer, prompts[0], decided, rendered, posed, roles)
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


_Place = tuple[int, int, int, int]
"""Of a mention: its label, its evidence, and the sentences that it begins and stops with."""


def _mentions(plan: Plan, radius: int) -> list[_Place]:
    """Which sentences each mention holds, `radius` on each side of its evidence at most.

    A mention ends with the sentence of its evidence, or before the next evidence.
    """
    cut = plan.document.cut
    own = {label: plan.document.main(label).sentence for label in plan.others}
    own[plan.gold] = plan.evidence
    order = sorted(own, key=own.__getitem__)
    places: list[_Place] = []
    earlier = 0
    for place, label in enumerate(order):
        at = own[label]
        start = max(earlier, at - radius)
        rest = range(at + 1, len(cut.sentences))
        earlier = next((x for x in rest if cut.begins[x] or x in own.values()), len(cut.sentences))
        stop = at + 1 + radius if place == len(order) - 1 else earlier
        places.append((label, at, start, min(stop, len(cut.sentences))))
    return places


def _prompt(
    plan: Plan, mentions: Sequence[_Place], edit: Edit
) -> tuple[DrawnPrompt, CharSpan, list[tuple[int, int]]]:
    """One variant; the evidence's span in its mention; mention and end of what else is changed."""
    document, made, changed, span = plan.document, [], [], (0, 0)
    for place, (label, at, start, stop) in enumerate(mentions):
        held = edit.get(at, document.cut.sentences[at]) or ""
        before = document.on_one_line(start, at, edit) + document.cut.gaps[at]
        before = before.lstrip(" ") if start < at or document.cut.gaps[at].strip() else ""
        text = before + held + document.on_one_line(at + 1, stop, edit)
        if label == plan.gold:
            span = (len(before), len(before) + len(held))
        for other in plan.changed:
            if start <= other < at:
                changed.append((place, len(document.on_one_line(start, other + 1, edit))))
            elif at < other < stop:
                after = document.on_one_line(at + 1, other + 1, edit)
                changed.append((place, len(before) + len(held) + len(after)))
        made.append(Mention(plan.labels[label].id, text))
    name = [plan.labels[label].id for label in plan.candidates]
    home = {plan.labels[label].id for label in (plan.gold, *plan.near)}
    families = (
        tuple(label for label in name if label in home),
        tuple(label for label in name if label not in home),
    )
    decided = [label for label, *_ in mentions].index(plan.gold)
    drawn = DrawnPrompt(plan.id, tuple(made), families, tuple(name), decided)
    return drawn, span, changed
