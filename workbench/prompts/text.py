"""From text to tokens: where character spans lie, and which token would come next.

Tokenizers disagree about the space before a word: byte-level ones put it into the word's token, but
some report offsets that leave it out, and others make it a token of its own. So a span may start at
that space or after it, and means the same tokens.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import Any

from workbench.errors import InputError
from workbench.prompts.prompt import Span
from workbench.prompts.templates import CharSpan


class SpanError(InputError):
    """A character span that is no span of tokens."""


@dataclass(frozen=True)
class TokenizedText:
    """A text and its tokens; `offsets` are the characters of each, none for an added token."""

    text: str
    tokens: tuple[int, ...]
    offsets: tuple[CharSpan, ...]

    def token_span(self, span: CharSpan) -> Span:
        """The tokens of a character span.

        The span must start where a token starts, or one space before or after, and end where a
        token ends.

        Raises:
            SpanError: a span outside the text, empty, or not on token borders.
        """
        start, end = span
        if not 0 <= start < end <= len(self.text):
            raise SpanError(
                f"span [{start}, {end}] is outside the text of {len(self.text)} characters or empty"
            )
        first = self._first_token(start)
        # Several tokens may share the bytes of one character; the last of them ends it.
        last = max((i for i, (begin, _) in enumerate(self.offsets) if begin < end), default=-1)
        if first is None or last < first or self.offsets[last][1] != end:
            border = "starts" if first is None else "ends"
            raise SpanError(f"span [{start}, {end}] {border} inside a token")
        return first, last + 1

    def _first_token(self, start: int) -> int | None:
        for place in [start, start + 1] if self.text[start] == " " else [start]:
            index = next((i for i, (_, end) in enumerate(self.offsets) if end > place), None)
            if index is not None:
                begin = self.offsets[index][0]
                if begin == place or (begin == place - 1 and self.text[begin] == " "):
                    return index
        return None


def tokenize(tokenizer: Any, text: str) -> TokenizedText:
    """Tokens of a text, with their places in it.

    No special token is added, except the beginning-of-sequence token where the tokenizer adds one
    and the text does not begin with it: text rendered by a chat template has it already. An end
    token is never added, since the last token is the one that decides.

    Raises:
        InputError: the tokenizer is not a Hugging Face tokenizer of the fast kind.
    """
    check_fast(tokenizer)
    encoding = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    added = _added_start(tokenizer, text)
    tokens = (*added, *encoding["input_ids"])
    offsets = [(0, 0)] * len(added) + _with_spaces(text, encoding["offset_mapping"])
    return TokenizedText(text, tokens, tuple(offsets))


def next_tokens(tokenizer: Any, text: str, continuations: Sequence[str]) -> list[int]:
    """The one token by which each continuation lengthens the tokenized text.

    The text is encoded together with the continuation, because a token can depend on what stands
    before it.

    Raises:
        InputError: a continuation that is not exactly one token after this text.
    """
    check_fast(tokenizer)
    texts = [text, *(text + continuation for continuation in continuations)]
    alone, *rows = tokenizer(texts, add_special_tokens=False)["input_ids"]
    for at, row in enumerate(rows):
        if row[:-1] != alone:
            merges = row[: len(alone)] != alone
            why = "merges with its end" if merges else f"takes {len(row) - len(alone)}"
            raise InputError(
                f"the text of options[{at}] is not one token at the end of the prompt, it {why}"
            )
    return [row[-1] for row in rows]


def check_fast(tokenizer: Any) -> None:
    """Refuse a tokenizer without character offsets.

    Raises:
        InputError: it is not a Hugging Face tokenizer of the fast kind.
    """
    if not getattr(tokenizer, "is_fast", False):
        raise InputError(
            f"tokenizer {type(tokenizer).__name__} gives no character offsets; needs a Hugging "
            "Face tokenizer of the fast kind"
        )


def _with_spaces(text: str, offsets: Iterable[CharSpan]) -> list[CharSpan]:
    """Offsets that leave no spaces out: each token begins where the one before it ends."""
    whole: list[CharSpan] = []
    reached = 0
    for begin, end in offsets:
        whole.append((reached if text[reached:begin].isspace() else begin, end))
        reached = end
    return whole


def _added_start(tokenizer: Any, text: str) -> list[int]:
    start = tokenizer.bos_token_id
    if start is None or text.startswith(tokenizer.bos_token):
        return []
    return [start] if start in tokenizer("", add_special_tokens=True)["input_ids"][:1] else []


def common_suffix(sequences: Iterable[Sequence[int]]) -> int:
    """How many trailing tokens the sequences share."""
    columns = zip(*(reversed(tokens) for tokens in sequences), strict=False)
    return sum(1 for _ in takewhile(lambda column: len(set(column)) == 1, columns))


def shared_suffix(texts: Sequence[TokenizedText], swapped: Sequence[Span]) -> int:
    """How many trailing tokens the texts share behind what was swapped in each.

    What was swapped may end in the same tokens, which are not of the suffix.
    """
    after = min(len(text.tokens) - end for text, (_, end) in zip(texts, swapped, strict=True))
    return min(common_suffix([text.tokens for text in texts]), after)
