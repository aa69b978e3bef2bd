"""The answer's bars: of a prompt as it was, and with another text or with heads switched."""

from collections.abc import Mapping
from typing import Any

from workbench.analysis.answers import Answer, answer
from workbench.models.hooked import HookedModel
from workbench.prompts.prompt import ROLES, DecisionEvent

SWITCHES = [
    {"key": "", "title": "as it is", "words": "the head does what it does"},
    {"key": "zero", "title": "zero", "words": "the head writes nothing"},
    {"key": "mean", "title": "mean", "words": "the head writes its mean over this prompt's tokens"},
    {"key": "far", "title": "from far", "words": "over the suffix: its output in the far variant"},
    {"key": "near", "title": "from near", "words": "over the suffix: its output in the near one"},
]
"""What can become of a head's output; the first changes nothing."""


def answered(model: HookedModel, event: DecisionEvent, changes: Mapping[str, str]) -> Answer:
    """The answer with heads switched: head → key of `SWITCHES`.

    Raises:
        InputError: a prompt that the model cannot run, or a head that it does not have.
    """
    ablate: Any = {head: how for head, how in changes.items() if how in ("zero", "mean")}
    patch: Any = {head: how for head, how in changes.items() if how in ("far", "near")}
    return answer(model, event, ablate=ablate, patch=patch)


def answer_part(before: Answer, after: Answer, event: DecisionEvent) -> dict[str, Any]:
    """Rows of bars: the readouts, and the options by role, the likeliest before first."""
    readouts = [
        {"name": "Focus", "words": "p(gold) + p(near): is it the right region?"},
        {"name": "Confusion", "words": "p(near) / (p(gold) + p(near)): does a near miss win?"},
    ]
    for one in readouts:
        name = one["name"].lower()
        one |= {"before": getattr(before, name), "after": getattr(after, name)}
    rows = []
    texts = _texts(event)
    pairs = zip(
        event.options, texts, before.table["p"], after.table.to_dict("records"), strict=True
    )
    for option, text, p, now in pairs:
        rows.append(
            {
                "text": text,
                "label": option.label,
                "role": option.role,
                "before": None if option.role == "other" else float(p),
                "after": None if option.role == "other" else float(now["p"]),
                "logit": float(now["logit"]),
            }
        )
    rows.sort(key=lambda row: (ROLES.index(row["role"]), -(row["before"] or 0.0)))
    return {"readouts": readouts, "options": rows}


def _texts(event: DecisionEvent) -> list[str]:
    """What stands for each option: the token that selects it, and its text in the prompt."""
    if event.tokenizer is None:
        return [option.label for option in event.options]
    tokens, texts = event.str_tokens(), []
    for option in event.options:
        letter = event.tokenizer.decode([option.token]).strip()
        text = "".join(tokens[slice(*option.span)]).strip()
        text = text.removesuffix(f" {letter}").removeprefix(f"{letter}. ")
        texts.append(f"{letter} · {text}" if letter != text else text)
    return texts
