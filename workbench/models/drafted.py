"""Greedy texts that are mostly known beforehand: a draft is checked in one forward, not written.

What a model would write is the draft up to the first token that is not the model's own choice.
There its choice is put, and the draft is tried again from where it has that choice, or from the
next token. After some rounds the model writes what is left token by token. The texts are those of
`greedy_tokens`, but for rounding: a forward of a whole text may round otherwise than one token at a
time.
"""

import inspect
from collections.abc import Sequence
from typing import Any

import torch

from workbench.models.greedy import greedy_tokens
from workbench.models.rotary import switches
from workbench.progress import beating, pulse

ROUNDS = 16
"""Forwards that a draft is given."""
BACK, AHEAD = 4, 16
"""How far from a wrong token the draft may have the right one: it was left out, or is one more."""
LOGITS = 5 * 10**8
"""Of a forward: texts are checked in as large batches as have no more."""


def drafted_tokens(
    model: Any,
    prompts: Sequence[Sequence[int]],
    drafts: Sequence[Sequence[int]],
    *,
    max_new_tokens: int,
    end: int,
    batch_size: int = 32,
) -> list[list[int]]:
    """The most likely continuation of each prompt, up to and without the end token.

    Args:
        model: a Hugging Face causal language model.
        prompts: tokens to go on from, none empty.
        drafts: what the continuations may be, they change no text.
        max_new_tokens: at most; a continuation without an end by then is cut.
        end: ends a text.
        batch_size: texts that are written together, where a draft does not help.
    """
    if switches(model.config.get_text_config()):  # a longer text would rotate otherwise
        return greedy_tokens(
            model, prompts, max_new_tokens=max_new_tokens, end=end, batch_size=batch_size
        )
    trial = [[*draft, end][:max_new_tokens] for draft in drafts]
    shift = [0] * len(trial)  # of a place in the text against the same in the draft
    known = [0] * len(trial)
    open_ = [at for at, draft in enumerate(trial) if draft]
    for _ in range(ROUNDS):
        again = []
        for at, own in _choices(model, prompts, trial, open_):
            text = trial[at]
            right = next((i for i, token in enumerate(own) if token != text[i]), len(own))
            known[at] = min(right + 1, len(own))
            if right == len(own):
                continue
            if own[right] != end:
                again.append(at)
            draft = [*drafts[at], end]
            place = _nearest(draft, own[right], right - shift[at])
            shift[at] = right - place
            trial[at] = [*text[:right], own[right], *draft[place + 1 :]][:max_new_tokens]
        open_ = again
        if not open_:
            break
    texts = [draft[:n] for draft, n in zip(trial, known, strict=True)]
    rest = [at for at, text in enumerate(texts) if len(text) < max_new_tokens and end not in text]
    rest.sort(key=lambda at: len(texts[at]))
    for start in range(0, len(rest), batch_size):
        some = rest[start : start + batch_size]
        with beating("seconds of writing"):
            written = greedy_tokens(
                model,
                [[*prompts[at], *texts[at]] for at in some],
                max_new_tokens=max_new_tokens - len(texts[some[0]]),
                end=end,
                batch_size=batch_size,
            )
        for at, more in zip(some, written, strict=True):
            texts[at] = [*texts[at], *more][:max_new_tokens]
    return [text[: text.index(end)] if end in text else text for text in texts]


def _nearest(draft: Sequence[int], token: int, place: int) -> int:
    """Where a draft has a token, near a place; the place itself unless it is there."""
    near = range(max(0, place - BACK), min(len(draft), place + AHEAD))
    found = [at for at in near if draft[at] == token]
    return min(found, key=lambda at: abs(at - place), default=place)


@torch.no_grad()
def _choices(
    model: Any,
    prompts: Sequence[Sequence[int]],
    drafts: Sequence[Sequence[int]],
    which: Sequence[int],
) -> list[tuple[int, list[int]]]:
    """For each text its number, and the most likely token at every place of the draft."""
    last_only = "logits_to_keep" in inspect.signature(model.forward).parameters
    size = model.config.get_text_config().vocab_size
    found = []
    # The longest together: padding is forwarded, too.
    for some in _batches(prompts, drafts, which, size):
        rows = [[*prompts[at], *drafts[at]][:-1] for at in some]
        width = max(map(len, rows))
        first = min(len(prompts[at]) for at in some) - 1
        ids = torch.tensor([row + [0] * (width - len(row)) for row in rows], device=model.device)
        keep = {"logits_to_keep": width - first} if last_only else {}
        logits = model(input_ids=ids, use_cache=False, **keep).logits
        own = logits[:, first - width :].argmax(-1).tolist()
        for at, row in zip(some, own, strict=True):
            start = len(prompts[at]) - 1 - first
            found.append((at, row[start : start + len(drafts[at])]))
        pulse("drafts", len(some))
    return found


def _batches(
    prompts: Sequence[Sequence[int]],
    drafts: Sequence[Sequence[int]],
    which: Sequence[int],
    vocabulary: int,
) -> list[list[int]]:
    batches: list[list[int]] = []
    shortest = longest = 0
    for at in sorted(which, key=lambda at: len(prompts[at]) + len(drafts[at]), reverse=True):
        length = len(prompts[at]) + len(drafts[at])
        ahead = len(prompts[at])
        if batches:
            wide = longest - min(shortest, ahead)
            if (len(batches[-1]) + 1) * wide * vocabulary <= LOGITS:
                batches[-1].append(at)
                shortest = min(shortest, ahead)
                continue
        batches.append([at])
        shortest, longest = ahead, length
    return batches
