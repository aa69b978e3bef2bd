"""How much of the probability the options hold, and what is likely wrong where they hold little.

Focus and Confusion are over the options alone. A model that means to write something else (a letter
without the space before it, a line break first) still divides what little it gives them, and those
numbers look fine.
"""

from collections.abc import Mapping
from typing import Any

import pandas as pd

from workbench.analysis.readout import option_mass
from workbench.models.hooked import HookedModel
from workbench.prompts.prompt import DecisionEvent, PromptSet

FLOOR = 0.05
"""Least probability on the options at a clean decision: 19 of 20 answers are something else then.

A model that does the task gives them nearly all, one that knows nothing of it n options of its
whole vocabulary; between the two there is room.
"""
MANY = 0.1
"""Share of events below the floor that is worth a warning."""
LOOKED_AT = 8
"""Events that the likely mistake is looked for in."""
SPACES = ("Ġ", "▁", " ")
"""How vocabularies write the space before a word."""


def mass_counts(baseline: pd.DataFrame) -> dict[str, Any]:
    """Mean and least mass at clean decisions, events, and how many are below the floor.

    Empty for a baseline without the column, as earlier versions wrote it.
    """
    if "option_mass" not in baseline:
        return {}
    mass = baseline.loc[baseline["variant"] == "clean", "option_mass"]
    below = int((mass < FLOOR).sum())
    ends = {"mean": float(mass.mean()), "least": float(mass.min())}
    return {**ends, "events": len(mass), "below": below}


def explain_mass(counts: Mapping[str, Any]) -> str:
    """One line: how much of the probability the options hold at clean decisions."""
    if not counts:
        return ""
    mean, least = _share(counts["mean"]), _share(counts["least"])
    return f"options hold {mean} of the probability at clean decisions, {least} at the least"


def mass_warning(counts: Mapping[str, Any]) -> str:
    """What is wrong with the readouts where options hold too little, else nothing; one line.

    `counts` are those of `mass_counts`, with the likely "mistake" where it was looked for.
    """
    if not counts or counts["below"] < max(1, MANY * counts["events"]):
        return ""
    return (
        f"warning: at {counts['below']} of {counts['events']} clean decisions the options hold "
        f"less than {FLOOR} of the probability (mean {_share(counts['mean'])}): the model means to "
        "write something else, and Focus and Confusion say little"
        + (f"; likely: {counts['mistake']}" if "mistake" in counts else "")
    )


def likely_mistake(model: HookedModel, prompts: PromptSet) -> str:
    """Why a model may not consider the options of clean prompts: the mistakes that people make."""
    events = prompts.events[:LOOKED_AT]
    logits = [run.logits for run in model.run([event.clean for event in events])]
    tokenizer: Any = model.tokenizer
    if tokenizer is None:
        return "check the options' tokens and where the prompts end"
    own = sum(float(option_mass(row, e)) for row, e in zip(logits, events, strict=True))
    respelt = [_respelt(tokenizer, event) for event in events]
    other = sum(
        float(row.float().softmax(dim=-1)[tokens].sum())
        for row, (tokens, _) in zip(logits, respelt, strict=True)
    )
    mean = _share(other / len(events))
    if other > max(own, FLOOR * len(events)):
        if respelt[0][1]:
            return f"with a space before them the same options hold {mean}: keep it in token_text"
        return f"without the space before them the same options hold {mean}: leave it out"
    first = [tokenizer.decode([int(row.argmax())]) for row in logits]
    if 2 * sum(not text.strip() for text in first) > len(events):
        return "it wants a space or a line break first: end the prompts with it, or give its token"
    if tokenizer.chat_template and not any(_in_chat_form(tokenizer, event) for event in events):
        return "it is a chat model and the prompts are not in its form: use --template chat"
    return "check the options' tokens, where the prompts end, and whether it does this task"


def _respelt(tokenizer: Any, event: DecisionEvent) -> tuple[list[int], bool]:
    """Tokens of the options' texts with the space before them left out or added; true if added."""
    known = tokenizer.get_vocab()
    names = tokenizer.convert_ids_to_tokens(list(event.option_tokens))
    bare = [name for name in names if name and not name.startswith(SPACES)]
    if bare:
        found = [known[space + name] for name in bare for space in SPACES if space + name in known]
    else:
        found = [known[name[1:]] for name in names if name and name[1:] in known]
    return sorted(set(found) - set(event.option_tokens)), bool(bare)


def _in_chat_form(tokenizer: Any, event: DecisionEvent) -> bool:
    control = set(tokenizer.added_tokens_decoder) - {tokenizer.bos_token_id}
    return not control.isdisjoint(event.clean)


def _share(value: float) -> str:
    return f"{value:.2f}" if value >= 0.01 else f"{value:.0e}"
