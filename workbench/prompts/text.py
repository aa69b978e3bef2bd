"""From text to tokens: where character spans lie, and which token would come next.

Tokenizers disagree about the space before a word: byte-level ones put it into the word's token, but
some report offsets that leave it out, and others make it a token of its own. So a span may start at
that space or after it, and means the same tokens.

What documents and labels say is *quoted*: the text of a control token there is read as text, while
the control tokens of the template around it remain what they are.
"""

import re
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import takewhile
from typing import Any

from workbench.errors import InputError
from workbench.labels.as_text import control_tokens
from workbench.models.pieces import added_start
from workbench.prompts.prompt import Span
from workbench.prompts.templates import CharSpan

Encoding = tuple[list[int], list[CharSpan]]
"""Token ids, and the characters of each."""


class SpanError(InputError):
    """A character span that is no span of tokens."""


class ControlTextError(SpanError):
    """Quoted text that this tokenizer takes for a control token."""


@dataclass(frozen=True)
class TokenizedText:
    """A text and its tokens; `offsets` are the characters of each, none for an added token."""

    text: str
    tokens: tuple[int, ...]
    offsets: tuple[CharSpan, ...]

    def token_span(self, span: CharSpan) -> Span:
        """The tokens of a character span.

        The span must start where a token starts, or one space before or after, and end where a
        token ends; blanks that its last token adds, a line break after a bracket, do not count.

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
        last = bisect_left(self._begins, end) - 1
        rest = self.text[end : self.offsets[last][1]]
        if first is None or last < first or self.offsets[last][1] < end or rest.strip():
            border = "starts" if first is None else "ends"
            raise SpanError(f"span [{start}, {end}] {border} inside a token")
        return first, last + 1

    @cached_property
    def _begins(self) -> list[int]:
        return [begin for begin, _ in self.offsets]

    @cached_property
    def _ends(self) -> list[int]:
        return [end for _, end in self.offsets]

    def _first_token(self, start: int) -> int | None:
        for place in [start, start + 1] if self.text[start] == " " else [start]:
            index = bisect_right(self._ends, place)
            if index < len(self.offsets):
                begin = self.offsets[index][0]
                if begin == place or (begin == place - 1 and self.text[begin] == " "):
                    return index
        return None


def tokenize(tokenizer: Any, text: str, quoted: CharSpan | None = None) -> TokenizedText:
    """Tokens of a text, with their places in it.

    No special token is added, except the beginning-of-sequence token where the tokenizer adds one
    and the text does not begin with it: text rendered by a chat template has it already. An end
    token is never added, since the last token is the one that decides. In the characters `quoted`
    no control token is read.

    Raises:
        InputError: the tokenizer is not a Hugging Face tokenizer of the fast kind.
        ControlTextError: it makes a control token of quoted text all the same.
    """
    return tokenize_all(tokenizer, [text], quoted)[0]


def tokenize_all(
    tokenizer: Any, texts: Sequence[str], quoted: CharSpan | None = None
) -> list[TokenizedText]:
    """Each text as `tokenize` has it; they are the same up to the end of what is quoted."""
    found = []
    for text, (ids, offsets) in zip(texts, _encoded(tokenizer, texts, quoted), strict=True):
        added = added_start(tokenizer, text, as_text=quoted is not None and quoted[0] == 0)
        placed = [(0, 0)] * len(added) + _without_gaps(text, offsets)
        found.append(TokenizedText(text, (*added, *ids), tuple(placed)))
    return found


def encode_many(tokenizer: Any, texts: Sequence[str], quoted: Sequence[CharSpan]) -> list[Encoding]:
    """Tokens of many texts, as of `tokenize`, with their places as the tokenizer gives them.

    Raises:
        InputError, ControlTextError: as `tokenize`.
    """
    check_fast(tokenizer)
    controls = set(control_tokens(tokenizer))
    found = []
    for text, row, span in zip(texts, _encode(tokenizer, texts), quoted, strict=True):
        if _has(controls, span, tokenizer, text, *row):
            row = _spelled_out(tokenizer, text, row, span, controls)
        ids, offsets = row
        added = added_start(tokenizer, text, as_text=span[0] == 0)
        found.append(([*added, *ids], [*[(0, 0)] * len(added), *offsets]))
    return found


def next_tokens(
    tokenizer: Any, text: str, continuations: Sequence[str], quoted: CharSpan | None = None
) -> list[int]:
    """The one token by which each continuation lengthens the tokenized text.

    The text is encoded together with the continuation, because a token can depend on what stands
    before it.

    Raises:
        InputError: a continuation that is not exactly one token after this text.
        ControlTextError: as `tokenize`.
    """
    texts = [text, *(text + continuation for continuation in continuations)]
    alone, *rows = (ids for ids, _ in _encoded(tokenizer, texts, quoted))
    for at, row in enumerate(rows):
        if row[:-1] != alone:
            merges = row[: len(alone)] != alone
            why = "merges with its end" if merges else f"takes {len(row) - len(alone)}"
            raise InputError(
                f"the text of options[{at}] is not one token at the end of the prompt, it {why}"
            )
    return [row[-1] for row in rows]


def _encoded(tokenizer: Any, texts: Sequence[str], quoted: CharSpan | None) -> list[Encoding]:
    """Texts that are the same up to the end of what is quoted."""
    check_fast(tokenizer)
    parsed = _encode(tokenizer, texts)
    if quoted is None:
        return parsed
    controls = set(control_tokens(tokenizer))
    if not any(
        _has(controls, quoted, tokenizer, text, *row)
        for text, row in zip(texts, parsed, strict=True)
    ):
        return parsed
    return [
        _spelled_out(tokenizer, text, row, quoted, controls)
        for text, row in zip(texts, parsed, strict=True)
    ]


def _encode(tokenizer: Any, texts: Sequence[str], *, as_text: bool = False) -> list[Encoding]:
    encoding = tokenizer(
        list(texts),
        add_special_tokens=False,
        split_special_tokens=as_text,
        return_offsets_mapping=True,
        verbose=False,  # a text may be longer than the model's context; it is cut then
    )
    return list(zip(encoding["input_ids"], encoding["offset_mapping"], strict=True))


def _has(
    controls: set[int],
    within: CharSpan,
    tokenizer: Any,
    text: str,
    ids: Sequence[int],
    offsets: Sequence[CharSpan],
) -> bool:
    """Whether a control token, or the unknown one where its name is written, is in some text."""
    unknown, name = tokenizer.unk_token_id, tokenizer.unk_token
    return any(
        begin < within[1]
        and end > within[0]
        and (token in controls or (token == unknown and text[begin:end].strip() == name))
        for token, (begin, end) in zip(ids, offsets, strict=True)
    )


def _spelled_out(
    tokenizer: Any, text: str, parsed: Encoding, quoted: CharSpan, controls: set[int]
) -> Encoding:
    """What is quoted read as text, with as much around it as has no control token.

    Tokenizers cut texts at control tokens before anything else, so what is between two of them can
    be encoded alone; that it comes out the same is tried with other words in its place.
    """
    places = [place for token, place in zip(*parsed, strict=True) if token in controls and place[1]]
    start = max((end for _, end in places if end <= quoted[0]), default=0)
    stop = min((begin for begin, _ in places if begin >= quoted[1]), default=len(text))

    def in_parts(whole: str) -> Encoding:
        ids, offsets = [], []
        for begin, end in ((0, start), (start, stop), (stop, len(whole))):
            ((part, at),) = _encode(tokenizer, [whole[begin:end]], as_text=begin == start)
            ids += part
            offsets += [(a + begin, b + begin) for a, b in at]
        return ids, offsets

    spelled = in_parts(text)
    names = sorted([*control_tokens(tokenizer).values(), tokenizer.unk_token or ""], reverse=True)
    control = re.compile("|".join(map(re.escape, names)))
    plain = control.sub(lambda found: "x" * len(found[0]), text[slice(*quoted)])
    plain = text[: quoted[0]] + plain + text[quoted[1] :]
    same = start == 0 and stop == len(text)
    if _has(controls, quoted, tokenizer, text, *spelled) or not (
        same or in_parts(plain)[0] == _encode(tokenizer, [plain])[0][0]
    ):
        raise ControlTextError(
            "a document or label holds the text of a control token, and "
            f"{type(tokenizer).__name__} takes it for the token"
        )
    return spelled


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


def _without_gaps(text: str, offsets: Iterable[CharSpan]) -> list[CharSpan]:
    """Offsets that leave nothing out.

    Spaces belong to the token after them. Other characters that a tokenizer passes over, such as
    the accents of letters it composes or soft hyphens, belong to the token before them.
    """
    whole: list[CharSpan] = []
    reached = 0
    for begin, end in [*offsets, (len(text), len(text))]:
        gap = text[reached:begin]
        passed = next((i for i, sign in enumerate(gap) if sign.isspace()), len(gap))
        if gap and whole:
            whole[-1] = (whole[-1][0], reached + passed)
        whole.append((min(begin, reached + passed if whole else 0), end))
        reached = end
    return whole[:-1]


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
