"""Tokenizing what documents and labels say, so that no control token comes of it.

A page that quotes `<|endoftext|>` holds these letters, not the end of a text. Tokenizers take them
for the token unless they are told not to.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tokenizers import Tokenizer


@contextmanager
def as_text(tokenizer: Tokenizer) -> Iterator[Tokenizer]:
    """A tokenizer of the `tokenizers` package that spells control tokens out, for a while."""
    before = tokenizer.encode_special_tokens
    tokenizer.encode_special_tokens = True
    try:
        yield tokenizer
    finally:
        tokenizer.encode_special_tokens = before


def control_tokens(tokenizer: Any) -> dict[int, str]:
    """Ids and texts of the control tokens: special ones, and added ones of the chat template.

    Without the token for what is unknown, which may stand for any text. `tokenizer` is of the
    `tokenizers` package or a Hugging Face tokenizer.
    """
    if isinstance(tokenizer, Tokenizer):
        added, template = tokenizer.get_added_tokens_decoder(), ""
        unknown = getattr(tokenizer.model, "unk_token", None)
    else:
        added, unknown = tokenizer.added_tokens_decoder, tokenizer.unk_token
        template = str(getattr(tokenizer, "chat_template", None) or "")
    return {
        number: token.content
        for number, token in added.items()
        if token.content != unknown
        and (token.special or (token.content.strip() and token.content in template))
    }
