"""Generation for a batch of prompts, each continued until an end token.

The only place that calls transformers' `generate`. A model folder brings its own settings for it
(`generation_config.json`: a repetition penalty, forbidden tokens, sampling), and `generate` fills
in from them whatever the caller leaves open, also where the caller gives a whole configuration. So
they are put aside while a model writes here.
"""

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from transformers import GenerationConfig

from workbench.errors import InputError
from workbench.models.rotary import switches


def greedy_tokens(
    model: Any,
    prompts: Sequence[Sequence[int]],
    *,
    max_new_tokens: int,
    end: int | Collection[int],
    batch_size: int = 32,
) -> list[list[int]]:
    """The most likely continuation of each prompt, token by token, up to and without an end token.

    `model` is a Hugging Face causal language model; of a `HookedModel`, `bridge.original_model`,
    which still generates as it did before the bridge. `end` is the token, or are the tokens, that
    end a text; nothing else does. A continuation that has none after `max_new_tokens` is cut.

    Raises:
        InputError: an empty prompt.
    """
    settings = {"max_new_tokens": max_new_tokens}
    written = generated(model, prompts, end, batch_size, lambda _: settings)
    ends = _ends(end)
    return [
        row[: next((at for at, token in enumerate(row) if token in ends), len(row))]
        for row in written
    ]


def end_tokens(model: Any, tokenizer: Any) -> list[int]:
    """Tokens that end a text: the tokenizer's, and control tokens that the model's settings name.

    Chat models end a reply with another token than a text, and may name both in their settings
    only. An ordinary word that the settings name ends nothing: it is a default of the architecture.

    Raises:
        InputError: the tokenizer names none.
    """
    if tokenizer.eos_token_id is None:
        raise InputError("the tokenizer names no end token, so chains would never end")
    named = getattr(model.generation_config, "eos_token_id", None)
    control = tokenizer.added_tokens_decoder
    more = [token for token in _ends([] if named is None else named) if token in control]
    return list(dict.fromkeys([tokenizer.eos_token_id, *more]))


@torch.no_grad()
def generated(
    model: Any,
    prompts: Sequence[Sequence[int]],
    end: int | Collection[int],
    batch_size: int,
    settings: Callable[[int], dict[str, Any]],
) -> Iterator[list[int]]:
    """What a model writes after each prompt, with the end token and the padding behind it.

    Prompts of a batch are padded on the left, where nothing attends. `settings` are those of
    transformers' `generate`, given the width that a batch's prompts have with their padding;
    greedy, with the cache, where they say nothing.

    Raises:
        InputError: an empty prompt, or settings that do not give one sequence a prompt.
    """
    if not all(len(prompt) for prompt in prompts):
        raise InputError("a prompt to continue has no tokens")
    ends = _ends(end)
    if switches(model.config.get_text_config()):
        batch_size = 1  # prompts of a batch would be rotated as its longest
    for start in range(0, len(prompts), batch_size):
        batch = [list(row) for row in prompts[start : start + batch_size]]
        width = max(map(len, batch))
        padding = [width - len(row) for row in batch]
        rows = [[ends[0]] * missing + row for missing, row in zip(padding, batch, strict=True)]
        mask = [[0] * missing + [1] * (width - missing) for missing in padding]
        # The cache, whatever the model was trained with.
        config = GenerationConfig(
            do_sample=False, use_cache=True, eos_token_id=ends, pad_token_id=ends[0]
        )
        rest = config.update(**settings(width))
        with _without_own_settings(model):
            output = model.generate(
                input_ids=torch.tensor(rows, device=model.device),
                attention_mask=torch.tensor(mask, device=model.device),
                generation_config=config,
                **rest,
            )
        if not isinstance(output, torch.Tensor) or len(output) != len(rows):
            raise InputError("the settings of generate must give one sequence of tokens a prompt")
        yield from output[:, width:].tolist()


def _ends(end: int | Collection[int]) -> list[int]:
    return [end] if isinstance(end, int) else list(end)


@contextmanager
def _without_own_settings(model: Any) -> Iterator[None]:
    theirs = model.generation_config
    model.generation_config = GenerationConfig()
    try:
        yield
    finally:
        model.generation_config = theirs
