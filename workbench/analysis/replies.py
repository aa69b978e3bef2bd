"""What a model answers as it is: its free replies, beside what the options' logits say.

A reply is written greedily where a prompt ends, or behind a chain of thought. What is not read as
an answer counts as wrong: a reply that names no option or several, and a thought that ran out of
room before it was closed.
"""

from typing import Any

import pandas as pd

from workbench.analysis.chains.generation import write_on
from workbench.analysis.option_mass import explain_mass, mass_counts, mass_warning
from workbench.analysis.patching.patching import baseline
from workbench.analysis.readout import select_options
from workbench.analysis.statistics import Halves
from workbench.models.hooked import HookedModel
from workbench.phases import PHASES
from workbench.prompts.chain import find_cues, question_cases
from workbench.prompts.prompt import DecisionEvent, PromptSet
from workbench.prompts.replies import read_choice

REPLY_ROOM = 24
"""Tokens of a direct reply: enough for "The answer is B." and most labels."""
UNREAD, UNCLOSED = "unread", "unclosed"


def reply_table(
    model: HookedModel, prompts: PromptSet, *, chain: bool = False, room: int | None = None
) -> pd.DataFrame:
    """One row an event: what the model answers to its clean prompt.

    Columns: id, event, gold, likeliest (the option of the highest logit), written (the option that
    the reply names, else "unread", or "unclosed" where a thought never ended), focus, confusion,
    option_mass, and whether the event is a valid pair (counts_far, counts_near). With `chain` only
    `written` is behind a chain of thought; the rest is about the direct question.

    Args:
        model: with its tokenizer.
        prompts: whose events are answered.
        chain: whether the model thinks before it replies.
        room: tokens of a chain, that of the prompts' template unless given.

    Raises:
        InputError: prompts without a place for a chain, or that the model cannot run.
    """
    halves = Halves(frozenset(prompts.prompt_ids), frozenset())
    table = baseline(model, prompts, halves).query("variant == 'clean'")
    columns = ["id", "event", "focus", "confusion", "option_mass"]
    table = table[columns + [phase.valid for phase in PHASES.values()]].reset_index(drop=True)
    likeliest, gold = [], []
    for event in prompts:
        (run,) = model.run([event.clean])
        likeliest.append(event.options[int(select_options(run.logits, event).argmax())].label)
        gold.append(event.options[event.with_role("gold")[0]].label)
    replies = _behind_chains(model, prompts, room) if chain else _direct(model, prompts)
    written = [
        _read(model.tokenizer, event, reply, number)
        for event, (reply, number) in zip(prompts, replies, strict=True)
    ]
    return table.assign(gold=gold, likeliest=likeliest, written=written)


def explain_replies(table: pd.DataFrame) -> list[str]:
    """Shares and means over the events of `reply_table`, in words."""
    gold, written = (table[name].to_numpy() for name in ("gold", "written"))
    failed = {how: int((written == how).sum()) for how in (UNREAD, UNCLOSED)}
    valid = {
        phase.counterfactual: int(table[phase.valid].to_numpy(bool).sum())
        for phase in PHASES.values()
    }
    mean = table[["focus", "confusion"]].mean()
    mass = mass_counts(table.assign(variant="clean"))
    return [
        f"{len(table)} decisions: written answers right {(written == gold).mean():.3f}, "
        f"likeliest options right {(table['likeliest'].to_numpy() == gold).mean():.3f}",
        f"replies not read as an answer: {failed[UNREAD]} name no option or several, "
        f"{failed[UNCLOSED]} are thoughts that did not end",
        f"Focus {mean['focus']:.3f}, Confusion {mean['confusion']:.3f}; valid pairs "
        + ", ".join(f"{n} {name}" for name, n in valid.items()),
        *(line for line in (explain_mass(mass), mass_warning(mass)) if line),
    ]


def _direct(model: HookedModel, prompts: PromptSet) -> list[tuple[str | None, int]]:
    """Replies, and which of their answers counts; earlier answers stand in the prompt already."""
    tokenizer: Any = model.tokenizer
    asked = [event.clean for event in prompts]
    written = write_on(model, asked, tokenizer, max_new_tokens=REPLY_ROOM)
    return [(tokenizer.decode(tokens), 0) for tokens in written]


def _behind_chains(
    model: HookedModel, prompts: PromptSet, room: int | None
) -> list[tuple[str | None, int]]:
    """What is written behind each chain; None where the chain is not closed."""
    tokenizer: Any = model.tokenizer
    cues = find_cues(prompts, tokenizer)
    cases = question_cases(prompts, tokenizer, cues)
    opened = tokenizer(cues.opening, add_special_tokens=False)["input_ids"]
    n_cue = len(tokenizer(cues.answer, add_special_tokens=False)["input_ids"])
    written = write_on(
        model,
        [[*case.clean.question, *opened] for case in cases],
        tokenizer,
        max_new_tokens=(cues.room if room is None else room) + REPLY_ROOM,
    )
    found = []
    for case, tokens in zip(cases, written, strict=True):
        _, closing, reply = tokenizer.decode(tokens).partition(cues.closing)
        found.append((reply if closing else None, len(case.cue) - n_cue))
    return found


def _read(tokenizer: Any, event: DecisionEvent, reply: str | None, number: int) -> str:
    """The label that a reply names."""
    if reply is None:
        return UNCLOSED
    letters = [tokenizer.decode([option.token]).strip() for option in event.options]
    texts = {
        letter: _description(tokenizer.decode(event.clean[slice(*option.span)]), letter)
        for letter, option in zip(letters, event.options, strict=True)
    }
    chosen = read_choice(reply, texts, number)
    return UNREAD if chosen is None else event.options[letters.index(chosen)].label


def _description(shown: str, letter: str) -> str:
    """An option as shown, without its letter."""
    return shown.strip().removeprefix(f"{letter}. ").removesuffix(f" {letter}").strip()
