"""What the prompts of a file hold, told to people: sizes always, text only where it is wanted."""

from collections.abc import Sequence

from workbench.prompts.meaning import COUNTERFACTUALS, Meaning, changed
from workbench.prompts.prompt import DecisionEvent, PromptSet


def sizes(prompts: PromptSet) -> str:
    """How long prompts, evidence and option spans are, in tokens; none of their text."""
    options = [option for event in prompts for option in event.options]
    ranges = {
        "prompts": [len(event.clean) for event in prompts],
        "evidence": [event.evidence[1] - event.evidence[0] for event in prompts],
        "option spans": [option.span[1] - option.span[0] for option in options],
        "aligned suffix": [event.aligned_suffix for event in prompts],
    }
    said = ", ".join(f"{name} {_range(found)}" for name, found in ranges.items())
    return f"tokens: {said}; options {_range([len(event.options) for event in prompts])}"


def unchecked(prompts: PromptSet) -> list[str]:
    """What could not be checked, a line each."""
    blind = sum(event.tokenizer is None for event in prompts)
    if blind:
        return [
            "not checked without a tokenizer (--model): what spans hold, the space before option "
            "tokens, the end of prompts"
        ]
    unread = sum(Meaning(event).tail is None for event in prompts)
    if unread:
        return [
            f"not checked in {unread} of {len(prompts)} events: option tokens, since this "
            "tokenizer makes other tokens of the text of the prompt's end"
        ]
    return []


def shown(event: DecisionEvent) -> list[str]:
    """The text of evidence, counterfactuals and options, a line each.

    Raises:
        InputError: the event has no tokenizer.
    """
    lines = [f"prompt {event.id!r} event {event.event}"]
    lines.append(f"  evidence {list(event.evidence)}: {event.pieces().of(event.evidence)!r}")
    if event.fine_evidence is not None:
        fine = event.pieces().of(event.fine_evidence)
        lines.append(f"  fine evidence {list(event.fine_evidence)}: {fine!r}")
    for name in COUNTERFACTUALS:
        here, there = changed(event, name)
        old, new = event.pieces().of(here), event.pieces(name).of(there)
        lines.append(f"  {name}: {new!r} for {old!r}")
    held = Meaning(event)
    for option, token in zip(event.options, held.continuations, strict=True):
        text = event.pieces().of(option.span)
        lines.append(
            f"  {option.role:5} {option.label!r}: token {option.token} {token!r}, "
            f"span {list(option.span)}: {text!r}"
        )
    return lines


def _range(numbers: Sequence[int]) -> str:
    low, high = min(numbers), max(numbers)
    return str(low) if low == high else f"{low} to {high}"
