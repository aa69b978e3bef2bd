"""Chains that stand in a prompt already, as those of the task `laterality-chain` do."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from workbench.errors import InputError
from workbench.prompts.chain import Chain, ChainCase, StageReader, find_cues, find_last, make_chain
from workbench.prompts.prompt import DecisionEvent, PromptSet, Variant
from workbench.prompts.templates import Cues


def holds_chains(prompts: PromptSet, tokenizer: Any, cues: Cues) -> bool:
    """Whether a chain is opened in the first prompt, before its answer cue."""
    return _parts(prompts.events[0].clean, tokenizer, cues) is not None


def given_cases(
    prompts: PromptSet,
    tokenizer: Any,
    cues: Cues,
    stages: StageReader,
    variants: Sequence[Variant] = ("clean",),
) -> list[ChainCase]:
    """Cases with the prompts' own chains: between the cue that opens one and the answer cue.

    Each of `variants` has the chain that its own prompt holds.

    Raises:
        InputError: a prompt without a chain, or with another answer cue than the clean one's.
    """
    cases = []
    for event in prompts:
        where = f"prompt {event.id!r} event {event.event}"
        chains: dict[Variant, Chain] = {}
        cue: tuple[int, ...] = ()
        for name in variants:
            parts = _parts(event.variant(name), tokenizer, cues)
            if parts is None:
                raise InputError(f"{where}: holds no chain")
            question, opening, written, asked = parts
            cue = cue or tuple(asked)
            if tuple(asked) != cue:
                raise InputError(
                    f"{where}: the {name} prompt is asked by another cue than the {variants[0]} one"
                )
            chain = make_chain(
                tokenizer, question, written, opening=opening, stages=stages, event=event.event
            )
            chains[name] = _whole(chain, len(written))
        cases.append(ChainCase(event, cue, chains))
    return cases


def step_ends(event: DecisionEvent, tokenizer: Any) -> list[int]:
    """Positions of the last tokens of the steps of the chain that a clean prompt holds.

    None where it holds no chain, or where the tokenizer gives no character offsets.
    """
    if not getattr(tokenizer, "is_fast", False):
        return []
    prompts = PromptSet("one", (event,))
    cues = find_cues(prompts, tokenizer)
    if not holds_chains(prompts, tokenizer, cues):
        return []
    [case] = given_cases(prompts, tokenizer, cues, lambda at, steps: ["other"] * len(steps))
    return [len(case.clean.question) + end - 1 for end in case.clean.ends]


def _whole(chain: Chain, n_written: int) -> Chain:
    """The last step ends where the chain does."""
    ends = (*chain.ends[:-1], chain.n_opening + n_written) if chain.ends else ()
    return replace(chain, ends=ends)


def _parts(
    tokens: Sequence[int], tokenizer: Any, cues: Cues
) -> tuple[Sequence[int], Sequence[int], Sequence[int], Sequence[int]] | None:
    """Question, opening, chain and cue with the answers before this decision."""
    end = find_last(tokens, tokenizer, cues.answer)
    start = None if end is None else find_last(tokens[:end], tokenizer, cues.opening)
    if start is None or end is None:
        return None
    opened = start + len(tokenizer(cues.opening, add_special_tokens=False)["input_ids"])
    return tokens[:start], tokens[start:opened], tokens[opened:end], tokens[end:]
