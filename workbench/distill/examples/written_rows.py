"""Chains that a teacher writes for rows, in large batches."""

from collections.abc import Sequence
from typing import Any

from workbench.distill.examples.row_files import Writer
from workbench.errors import InputError
from workbench.models.drafted import drafted_tokens
from workbench.prompts.templates import PlainTemplate
from workbench.prompts.text import encode_many


def teacher_writer(
    model: Any, tokenizer: Any, *, max_new_tokens: int, batch_size: int, end: int | None = None
) -> Writer:
    """Lets a model write behind the reason cue, greedily; what the rule would write is its draft.

    A text that has no end after `max_new_tokens` is cut, so that it has no whole answer.

    Args:
        model: a Hugging Face causal language model.
        tokenizer: its own, of the fast kind.
        max_new_tokens: of a chain and its answer.
        batch_size: chains written together.
        end: token that ends a text; the tokenizer's unless given.

    Raises:
        InputError: the tokenizer names no end token or is not of the fast kind.
    """
    end = tokenizer.eos_token_id if end is None else end
    if end is None:
        raise InputError("the tokenizer names no end token, so chains would never end")

    def write(prompts: Sequence[str], rule: Sequence[str]) -> list[str]:
        asked = [prompt + PlainTemplate.reason_cue for prompt in prompts]
        known = _encoded(tokenizer, asked)
        whole = _encoded(tokenizer, [a + b for a, b in zip(asked, rule, strict=True)])
        # Where prompt and chain share a token there is no draft.
        drafts = [
            ids[len(before) :] if ids[: len(before)] == before else []
            for before, ids in zip(known, whole, strict=True)
        ]
        written = drafted_tokens(
            model, known, drafts, max_new_tokens=max_new_tokens, end=end, batch_size=batch_size
        )
        texts = tokenizer.batch_decode(written, clean_up_tokenization_spaces=False)
        return [
            text if len(ids) < max_new_tokens else ""
            for text, ids in zip(texts, written, strict=True)
        ]

    return write


def _encoded(tokenizer: Any, texts: Sequence[str]) -> list[list[int]]:
    return [ids for ids, _ in encode_many(tokenizer, texts, [(0, len(text)) for text in texts])]
