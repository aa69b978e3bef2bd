"""Greedy generation for a batch of prompts, each continued until its end token."""

from collections.abc import Sequence
from typing import Any

import torch

from workbench.errors import InputError


@torch.no_grad()
def greedy_tokens(
    model: Any,
    prompts: Sequence[Sequence[int]],
    *,
    max_new_tokens: int,
    end: int,
    batch_size: int = 32,
) -> list[list[int]]:
    """The most likely continuation of each prompt, token by token, up to and without `end`.

    Args:
        model: a Hugging Face causal language model; of a `HookedModel`, `bridge.original_model`,
            which still generates as it did before the bridge.
        prompts: token ids; shorter ones are padded on the left, where nothing attends.
        max_new_tokens: a continuation that has no end by then is cut.
        end: token that ends a continuation, and pads.
        batch_size: prompts generated together.

    Raises:
        InputError: an empty prompt.
    """
    if not all(prompts):
        raise InputError("a prompt to continue has no tokens")
    written = []
    for start in range(0, len(prompts), batch_size):
        batch = [list(row) for row in prompts[start : start + batch_size]]
        width = max(map(len, batch))
        padding = [width - len(row) for row in batch]
        rows = [[end] * missing + row for missing, row in zip(padding, batch, strict=True)]
        mask = [[0] * missing + [1] * (width - missing) for missing in padding]
        output = model.generate(
            input_ids=torch.tensor(rows, device=model.device),
            attention_mask=torch.tensor(mask, device=model.device),
            max_new_tokens=max_new_tokens,
            do_sample=False,
            use_cache=True,  # whatever the model was trained with
            eos_token_id=end,
            pad_token_id=end,
        )
        for row in output[:, width:].tolist():
            written.append(row[: row.index(end)] if end in row else row)
    return written
