"""Token ids of prompts, put together from those of their words."""

from functools import lru_cache
from typing import Any, Protocol, runtime_checkable

from tokenizers import Tokenizer


@runtime_checkable
class Encoder(Protocol):
    """Token ids of a text; `end` is the token that ends one."""

    end: int

    def __call__(self, text: str) -> list[int]:
        """Token ids of the text."""
        ...


class WordEncoder:
    """Encodes text word by word through a cache; equal to the tokenizer on the whole text.

    That holds where the tokenizer's first split is at every space, so that no token crosses a
    word's border. The text of a control token is read as text. `end` is the token that ends a text,
    by default the coding task's own.
    """

    def __init__(self, tokenizer: Tokenizer, end: int | None = None) -> None:
        self._tokenizer = Tokenizer.from_str(tokenizer.to_str())
        self._tokenizer.encode_special_tokens = True
        self.end = end_token(tokenizer) if end is None else end

    def __call__(self, text: str) -> list[int]:
        """Token ids of the text."""
        ids: list[int] = []
        for line_number, line in enumerate(text.split("\n")):
            if line_number:
                ids += _encode_word(self._tokenizer, "\n")
            head, *words = line.split(" ")
            if head:
                ids += _encode_word(self._tokenizer, head)
            for word in words:
                ids += _encode_word(self._tokenizer, " " + word)
        return ids

    def __getstate__(self) -> dict[str, Any]:
        return {"json": self._tokenizer.to_str(), "end": self.end}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(Tokenizer.from_str(state["json"]), state["end"])


@lru_cache(maxsize=500_000)
def _encode_word(tokenizer: Tokenizer, word: str) -> list[int]:
    return tokenizer.encode(word, add_special_tokens=False).ids


def end_token(tokenizer: Tokenizer) -> int:
    """Id of the token that ends an answer, which is also the padding."""
    end = tokenizer.token_to_id(END)
    assert end is not None
    return end


END = "<|end|>"
