"""All labels of a space as token sequences, sorted, so that a prefix is a contiguous range.

Generation of label text without a candidate list is a walk down the tree of all labels. No tree is
built: labels are rows sorted by their tokens, a node is the range of rows that share its prefix,
and the labels of a range part where the length of the prefix that a row shares with the row before
equals the node's depth. Every label ends with the end token, so that a label which is the beginning
of another is a row of its own.
"""

import logging
from bisect import bisect_left, bisect_right
from collections.abc import Collection, Iterable, Iterator, Sequence
from functools import cached_property
from itertools import chain, islice
from typing import Any, Literal, NamedTuple

import numpy as np
from jaxtyping import Integer, UInt64

from workbench.errors import InputError
from workbench.labels.as_text import as_text, control_tokens
from workbench.labels.token_rows import (
    gathered,
    row_edges,
    shared_lengths,
    sorted_rows,
    token_dtype,
    with_ends,
)

logger = logging.getLogger(__name__)

GOLD, NEAR, FAR, OTHER = range(4)
"""Role codes of next tokens; `other` leads to further gold labels only."""
CHILD_ROLES = ("gold", "near", "far", "other")

WIDE = 16_384
"""Ranges from this many labels on keep their children; there are few such ranges."""
SHOWN = 3
BLOCK = 8192
"""Texts tokenised together."""

Problems = Literal["refuse", "skip"]
Numbers = Sequence[int] | Integer[np.ndarray, " some"]
"""Label numbers, counted from 0 in the order given."""


class Node(NamedTuple):
    """The sorted rows `low` to `high` (half-open), which share their first `depth` tokens."""

    low: int
    high: int
    depth: int


class Children(NamedTuple):
    """Next tokens of a node, ascending, and the rows below each.

    Token `i` leads to rows `bounds[i]` to `bounds[i + 1]`, half-open.
    """

    tokens: Integer[np.ndarray, " child"]
    bounds: Integer[np.ndarray, " edge"]


class LabelIndex:
    """Labels sorted by their tokens; made by `build` or `from_tokens`.

    Attributes:
        tokens: tokens of every row one after the other, each row with the end token.
        offsets: where rows start in `tokens`; one more than there are rows.
        shared: how many tokens a row shares with the row before; 0 for the first.
        order: label number of each row.
        n_given: how many labels were given, skipped ones included.
        end: the end token.
    """

    def __init__(
        self,
        tokens: Integer[np.ndarray, " token"],
        offsets: Integer[np.ndarray, " edge"],
        shared: Integer[np.ndarray, " row"],
        order: Integer[np.ndarray, " row"],
        *,
        n_given: int,
        end: int,
    ) -> None:
        self.tokens = tokens
        self.offsets = offsets
        self.shared = shared
        self.order = order
        self.n_given = n_given
        self.end = end
        self._wide: dict[Node, Children] = {}

    @classmethod
    def build(
        cls,
        texts: Iterable[str],
        tokenizer: Any,
        *,
        end: int | None = None,
        before: str = "",
        problems: Problems = "refuse",
    ) -> "LabelIndex":
        """Tokenise label texts, in blocks, and sort them.

        Args:
            texts: one text a label; the text of a control token in it is read as text.
            tokenizer: of the `tokenizers` package, or a Hugging Face tokenizer; nothing special is
                added to the text.
            end: token that ends a label; the tokenizer's own end token by default.
            before: put before each text, e.g. a space where labels are written after a word.
            problems: what to do with labels that cannot be indexed: those that tokenise to nothing,
                hold a control token, or have the tokens of an earlier label. `refuse` the set, or
                `skip` these labels and log one line.

        Raises:
            InputError: naming the numbers of labels that cannot be indexed; no labels; no end
                token.
        """
        end = getattr(tokenizer, "eos_token_id", None) if end is None else end
        if end is None:
            raise InputError("the tokenizer names no end token; give one with end=")
        lines = (before + text for text in texts) if before else iter(texts)
        parts, lengths = [], []
        sized = hasattr(tokenizer, "get_vocab_size")
        n_tokens = tokenizer.get_vocab_size() if sized else len(tokenizer)
        dtype = token_dtype(max(n_tokens, end + 1))
        for ids in _encode(lines, tokenizer):
            lengths.append(np.fromiter(map(len, ids), np.int32, len(ids)))
            parts.append(np.fromiter(chain.from_iterable(ids), dtype, int(lengths[-1].sum())))
        if not parts:
            raise InputError("a label index needs at least one label, got none")
        return cls.from_tokens(
            np.concatenate(parts),
            np.concatenate(lengths),
            end=end,
            controls=control_tokens(tokenizer),
            problems=problems,
        )

    @classmethod
    def from_tokens(
        cls,
        tokens: Integer[np.ndarray, " token"],
        lengths: Integer[np.ndarray, " label"],
        *,
        end: int,
        controls: Collection[int] = (),
        problems: Problems = "refuse",
    ) -> "LabelIndex":
        """Sort labels that are tokens already, one after the other and without end tokens.

        Labels that hold one of `controls` cannot be indexed.

        Raises:
            InputError: as in `build`, or a token that is negative.
        """
        if tokens.size and int(tokens.min()) < 0:
            raise InputError(f"label tokens start at {int(tokens.min())}, must be at least 0")
        dtype = token_dtype(max(int(tokens.max(initial=0)), end) + 1)
        tokens = tokens.astype(dtype, copy=False)
        numbers = np.arange(len(lengths), dtype=np.int32)
        bad = _unusable(tokens, lengths, {end, *controls}, problems)
        if bad.any():
            tokens = tokens[~np.repeat(bad, lengths)]
            numbers, lengths = numbers[~bad], lengths[~bad]
        if not len(numbers):
            raise InputError("a label index needs at least one label, got none")
        n_given = len(bad)
        tokens, offsets = with_ends(tokens, lengths, end)
        rows = sorted_rows(tokens, offsets)
        tokens, offsets = gathered(tokens, offsets, rows)
        shared, repeats = shared_lengths(tokens, offsets, end)
        numbers = numbers[rows]
        if len(repeats):
            _report_repeats(numbers, repeats, problems)
            kept = np.ones(len(numbers), dtype=bool)
            kept[repeats] = False
            tokens = tokens[np.repeat(kept, np.diff(offsets))]
            offsets = row_edges(np.diff(offsets)[kept])
            numbers, shared = numbers[kept], shared[kept]
        return cls(tokens, offsets, shared, numbers, n_given=n_given, end=end)

    def __len__(self) -> int:
        return len(self.order)

    @property
    def root(self) -> Node:
        """The node above all labels."""
        return Node(0, len(self), 0)

    @cached_property
    def longest(self) -> int:
        """Tokens of the longest label, its end token included."""
        return int(np.diff(self.offsets).max())

    @cached_property
    def rows(self) -> Integer[np.ndarray, " label"]:
        """Row of every label number; -1 for labels that were skipped."""
        rows = np.full(self.n_given, -1, dtype=np.int32)
        rows[self.order] = np.arange(len(self), dtype=np.int32)
        return rows

    @cached_property
    def _keys(self) -> UInt64[np.ndarray, " row"]:
        """The first tokens of every row in one number, so that short prefixes are found at once."""
        keys = np.zeros(len(self), dtype=np.uint64)
        lengths = np.diff(self.offsets)
        for place in range(self._packed):
            long_enough = np.flatnonzero(lengths > place)
            shift = np.uint64(64 - self._bits * (place + 1))
            column = self.tokens[self.offsets[long_enough] + place].astype(np.uint64)
            keys[long_enough] |= column << shift
        return keys

    @property
    def _bits(self) -> int:
        return 8 * self.tokens.dtype.itemsize

    @property
    def _packed(self) -> int:
        return 64 // self._bits

    def label_tokens(self, number: int) -> Integer[np.ndarray, " token"]:
        """Tokens of one label, its end token included.

        Raises:
            InputError: no such label, or it was skipped.
        """
        row = self._row(number)
        return self.tokens[self.offsets[row] : self.offsets[row + 1]]

    def numbers(self, node: Node) -> Integer[np.ndarray, " below"]:
        """Numbers of the labels below a node, in order of their tokens."""
        return self.order[node.low : node.high]

    def children(self, node: Node) -> Children:
        """The distinct next tokens of a node; a label is complete where its end token is taken."""
        found = self._wide.get(node)
        if found is not None:
            return found
        low, high, depth = node
        if high - low == 1:
            at = int(self.offsets[low]) + depth
            # Below a complete label there is nothing.
            tokens = self.tokens[at : min(at + 1, int(self.offsets[high]))]
            return Children(tokens, np.arange(low, low + len(tokens) + 1))
        cuts = np.flatnonzero(self.shared[low + 1 : high] == depth)
        bounds = np.empty(len(cuts) + 2, dtype=np.int64)
        bounds[0], bounds[-1] = low, high
        np.add(cuts, low + 1, out=bounds[1:-1])
        found = Children(self.tokens[self.offsets[bounds[:-1]] + depth], bounds)
        if high - low >= WIDE:
            self._wide[node] = found
        return found

    def step(self, node: Node, token: int) -> Node | None:
        """The child that a token leads to; None when no label goes on so."""
        tokens, bounds = self.children(node)
        # Compared in the tokens' own width: a mixed search would convert the whole array.
        if not 0 <= token < 1 << self._bits:
            return None
        at = int(tokens.searchsorted(tokens.dtype.type(token)))
        if at == len(tokens) or tokens[at] != token:
            return None
        return Node(int(bounds[at]), int(bounds[at + 1]), node.depth + 1)

    def find(self, prefix: Sequence[int]) -> Node | None:
        """The node of a prefix of label tokens; None when no label starts so."""
        head, rest = prefix[: self._packed], prefix[self._packed :]
        if not head:
            return self.root
        key, shift = 0, 64
        for token in head:
            if not 0 <= token < 1 << self._bits:
                return None
            shift -= self._bits
            key |= int(token) << shift
        # Shorter labels are padded with zeros in the keys, and nothing follows an end token.
        if self.end in head[:-1] or (rest and head[-1] == self.end):
            return None
        last = key + (1 << shift) - 1
        low = int(self._keys.searchsorted(np.uint64(key)))
        high = int(self._keys.searchsorted(np.uint64(last), side="right"))
        if rest:
            wanted = list(rest)

            def after_head(row: int) -> list[int]:
                start = int(self.offsets[row]) + len(head)
                return self.tokens[start : min(start + len(rest), self.offsets[row + 1])].tolist()

            rows = range(low, high)
            low = rows.start + bisect_left(rows, wanted, key=after_head)
            high = rows.start + bisect_right(rows, wanted, key=after_head)
        return Node(low, high, len(prefix)) if low < high else None

    def next_tokens(self, prefix: Sequence[int]) -> Integer[np.ndarray, " child"]:
        """Tokens that may follow a prefix, ascending; none when no label starts so."""
        node = self.find(prefix)
        return self.tokens[:0] if node is None else self.children(node).tokens

    def roles(
        self, node: Node, gold: Numbers, near: Numbers, other: Numbers = ()
    ) -> Integer[np.ndarray, " child"]:
        """What lies below each next token of a node: role codes, one for each of its children.

        `GOLD` where a label of `gold` lies below, else `OTHER` where one of `other` (further gold
        labels) does, else `NEAR` where one of `near` does, else `FAR`. Skipped labels count
        nowhere.

        Raises:
            InputError: a label number that the index was not given.
        """
        edges = self.children(node).bounds
        codes = np.full(len(edges) - 1, FAR, dtype=np.int8)
        for code, numbers in ((NEAR, near), (OTHER, other), (GOLD, gold)):
            rows = self.rows[self._checked(numbers)]
            rows = rows[(rows >= node.low) & (rows < edges[-1])]
            codes[edges.searchsorted(rows, side="right") - 1] = code
        return codes

    def _row(self, number: int) -> int:
        row = int(self.rows[self._checked([number])[0]])
        if row < 0:
            raise InputError(f"label {number} is not in the index, it was skipped")
        return row

    def _checked(self, numbers: Numbers) -> Integer[np.ndarray, " some"]:
        array = np.asarray(numbers, dtype=np.int64)
        outside = array[(array < 0) | (array >= self.n_given)]
        if len(outside):
            raise InputError(
                f"label {int(outside[0])} is not in the index of labels 0..{self.n_given - 1}"
            )
        return array


def _encode(texts: Iterator[str], tokenizer: Any) -> Iterator[list[list[int]]]:
    """Token ids of blocks of texts, without special, padding or truncated tokens."""
    fast = getattr(tokenizer, "backend_tokenizer", tokenizer)
    if hasattr(fast, "encode_batch_fast"):
        if fast.padding is not None or fast.truncation is not None:
            fast = type(fast).from_str(fast.to_str())  # the caller's keeps its settings
            fast.no_padding()
            fast.no_truncation()
        while block := list(islice(texts, BLOCK)):
            with as_text(fast):
                encoded = fast.encode_batch_fast(block, add_special_tokens=False)
            yield [one.ids for one in encoded]
    else:
        while block := list(islice(texts, BLOCK)):
            yield tokenizer(block, add_special_tokens=False, split_special_tokens=True)["input_ids"]


def _unusable(tokens: Any, lengths: Any, controls: Collection[int], problems: Problems) -> Any:
    """Which labels are empty or hold a control token."""
    empty = lengths == 0
    holds_control = np.zeros(len(lengths), dtype=bool)
    found = np.flatnonzero(np.isin(tokens, list(controls)))
    holds_control[row_edges(lengths).searchsorted(found, side="right") - 1] = True
    which = ", ".join(map(str, np.unique(tokens[found]).tolist()[:SHOWN]))
    for bad, what in (
        (empty, "no tokens at all"),
        (holds_control, f"the end or another control token ({which}) inside the text"),
    ):
        if bad.any():
            numbers = np.flatnonzero(bad)
            _report(f"{_name(numbers)}: {what}, needs a text that other tokens spell", problems)
    return empty | holds_control


def _report_repeats(numbers: Any, repeats: Any, problems: Problems) -> None:
    later = numbers[repeats]
    first = int(later.argmin())
    # The first row of a run of equal rows is the earliest label.
    start = int(repeats[first]) - 1
    while start in repeats:
        start -= 1
    more = f" ({len(later)} labels repeat an earlier one)" if len(later) > 1 else ""
    _report(
        f"labels {int(numbers[start])} and {int(later[first])} have the same tokens{more}, "
        "keep one of them",
        problems,
    )


def _report(message: str, problems: Problems) -> None:
    if problems == "refuse":
        raise InputError(message)
    logger.warning("%s; skipped", message)


def _name(numbers: Integer[np.ndarray, " some"]) -> str:
    shown = ", ".join(map(str, numbers[:SHOWN].tolist()))
    more = f" and {len(numbers) - SHOWN} more" if len(numbers) > SHOWN else ""
    return f"label{'s' if len(numbers) > 1 else ''} {shown}{more}"
