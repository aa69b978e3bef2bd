"""Chains that stand in a prompt already, as those of the task `laterality-chain` do."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from workbench.errors import InputError
from workbench.prompts.chain import Chain, ChainCase, StageReader, find_last, make_chain
from workbench.prompts.prompt import PromptSet
from workbench.prompts.templates import Cues


def holds_chains(prompts: PromptSet, tokenizer: Any, cues: Cues) -> bool:
    """Whether a chain is opened in the first prompt, before its answer cue."""
    return _parts(prompts.events[0].clean, tokenizer, cues) is not None


def given_cases(
    prompts: PromptSet, tokenizer: Any, cues: Cues, stages: StageReader
) -> list[ChainCase]:
    """Cases with the clean prompts' own chains: between the cue that opens one and the answer cue.

    Raises:
        InputError: a prompt without a chain.
    """
    cases = []
    for event in prompts:
        parts = _parts(event.clean, tokenizer, cues)
        if parts is None:
            raise InputError(f"prompt {event.id!r} event {event.event}: holds no chain")
        question, opening, written, cue = parts
        chain = make_chain(
            tokenizer, question, written, opening=opening, stages=stages, event=event.event
        )
        cases.append(ChainCase(event, tuple(cue), {"clean": _whole(chain, len(written))}))
    return cases


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
