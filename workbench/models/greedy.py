"""Generation for a batch of prompts, each continued until its end token."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch

from workbench.errors import InputError


def greedy_tokens(
    model: Any,
    prompts: Sequence[Sequence[int]],
    *,
    max_new_tokens: int,
    end: int,
    batch_size: int = 32,
) -> list[list[int]]:
    """The most likely continuation of each prompt, token by token, up to and without `end`.

    `model` is a Hugging Face causal language model; of a `HookedModel`, `bridge.original_model`,
    which still generates as it did before the bridge. A continuation that has no end after
    `max_new_tokens` is cut.

    Raises:
        InputError: an empty prompt.
    """
    # The cache, whatever the model was trained with.
    settings = {"max_new_tokens": max_new_tokens, "do_sample": False, "use_cache": True}
    written = generated(model, prompts, end, batch_size, lambda _: settings)
    return [row[: row.index(end)] if end in row else row for row in written]


@torch.no_grad()
def generated(
    model: Any,
    prompts: Sequence[Sequence[int]],
    end: int,
    batch_size: int,
    settings: Callable[[int], dict[str, Any]],
) -> Iterator[list[int]]:
    """What a model writes after each prompt, with `end` and the padding behind it.

    Prompts of a batch are padded on the left, where nothing attends. `settings` are those of
    transformers' `generate`, given the width that a batch's prompts have with their padding.

    Raises:
        InputError: an empty prompt.
    """
    if not all(len(prompt) for prompt in prompts):
        raise InputError("a prompt to continue has no tokens")
    for start in range(0, len(prompts), batch_size):
        batch = [list(row) for row in prompts[start : start + batch_size]]
        width = max(map(len, batch))
        padding = [width - len(row) for row in batch]
        rows = [[end] * missing + row for missing, row in zip(padding, batch, strict=True)]
        mask = [[0] * missing + [1] * (width - missing) for missing in padding]
        output = model.generate(
            input_ids=torch.tensor(rows, device=model.device),
            attention_mask=torch.tensor(mask, device=model.device),
            eos_token_id=end,
            pad_token_id=end,
            **settings(width),
        )
        yield from output[:, width:].tolist()
