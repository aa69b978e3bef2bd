"""Constrained decoding: a model that can write nothing but labels of an index.

A Hugging Face logits processor, for greedy search, sampling and beams. What it knows about a row
is found again by the tokens that the row has written, so rows may be reordered or copied between
steps as beam search does.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int, Integer
from torch import Tensor
from transformers import LogitsProcessor, LogitsProcessorList

from workbench.errors import InputError
from workbench.labels.index import LabelIndex, Node
from workbench.models.greedy import generated

Allowed = Integer[np.ndarray, " allowed"]


class _State(NamedTuple):
    """Where a row is: in a label, or (`node` None) after the end of its list.

    `taken` are the rows of labels written so far, ascending.
    """

    node: Node | None
    taken: tuple[int, ...]


_OVER = _State(None, ())


class LabelConstraint(LogitsProcessor):
    """Leaves the scores of tokens that continue a label of the index, and −∞ for all others.

    Args:
        index: the labels; its end token ends the text.
        prompt_length: width of the (left-padded) prompts that generation starts from.
        separator: token that ends one label and begins the next, for lists of labels; without it
            one label is written. It must not occur in a label.
        repeats: whether a list may hold a label twice.
        max_labels: longest list.

    Raises:
        InputError: a separator that occurs in labels or is the end token, or a bad number.
    """

    def __init__(
        self,
        index: LabelIndex,
        prompt_length: int,
        *,
        separator: int | None = None,
        repeats: bool = False,
        max_labels: int | None = None,
    ) -> None:
        if prompt_length < 1:
            raise InputError(f"prompt_length is {prompt_length}, must be at least 1")
        if max_labels is not None and max_labels < 1:
            raise InputError(f"max_labels is {max_labels}, must be at least 1")
        if separator is not None:
            check_separator(index, separator)
        self.index = index
        self.prompt_length = prompt_length
        self.separator = separator
        self.repeats = repeats
        self.max_labels = max_labels
        self._start = _State(index.root, ())
        self._states: dict[tuple[int, ...], _State] = {(): self._start}
        self._ends = np.array([index.end])

    def __call__(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, input_ids: Int[Tensor, "row position"], scores: Float[Tensor, "row d_vocab"]
    ) -> Float[Tensor, "row d_vocab"]:
        """Scores with −∞ for tokens that no label continues with.

        A row that has left the labels (only a beam without probability can) may only end.

        Raises:
            InputError: no row continues a label, or the vocabulary is too small for the labels.
        """
        written = [tuple(row) for row in input_ids[:, self.prompt_length :].tolist()]
        states: dict[tuple[int, ...], _State] = {}
        for row in written:
            if row not in states:
                states[row] = self._state(row)
        self._check(written, states)
        self._states = states
        allowed = {row: self._allowed(state) for row, state in states.items()}
        d_vocab = scores.shape[-1]
        parts = [allowed[row] + at * d_vocab for at, row in enumerate(written)]
        largest = max(int(part[-1]) - at * d_vocab for at, part in enumerate(parts))
        if largest >= d_vocab:
            raise InputError(
                f"labels have token {largest}, the model's vocabulary is 0..{d_vocab - 1}; "
                "build the index with this model's tokenizer"
            )
        kept = torch.from_numpy(np.concatenate(parts)).to(scores.device)
        masked = torch.full_like(scores, -torch.inf)
        masked.view(-1)[kept] = scores.reshape(-1)[kept]
        return masked

    def _state(self, row: tuple[int, ...]) -> _State:
        """From the step before where it is known, else from the start."""
        before = self._states.get(row[:-1]) if row else self._start
        if before is not None and row:
            return self._advance(before, row[-1])
        state = self._start
        for token in row:
            state = self._advance(state, token)
        return state

    def _advance(self, state: _State, token: int) -> _State:
        if state.node is None:
            return state
        if token == self.separator:
            done = self.index.step(state.node, self.index.end)
            if done is None:
                return _OVER
            return _State(self.index.root, tuple(sorted({*state.taken, done.low})))
        node = self.index.step(state.node, token)
        # After the end token nothing is decided any more; the rest of the row is padding.
        return _OVER if node is None or token == self.index.end else _State(node, state.taken)

    def _allowed(self, state: _State) -> Allowed:
        """Tokens that may come next, ascending; at least one."""
        node, taken = state
        if node is None:
            return self._ends
        tokens, bounds = self.index.children(node)
        if taken and not self.repeats:
            used = np.diff(np.asarray(taken).searchsorted(bounds))
            tokens = tokens[used < np.diff(bounds)]
        if self.separator is not None and self._may_go_on(node, taken, tokens):
            tokens = np.append(tokens.astype(np.int64), self.separator)
            tokens.sort()
        return tokens.astype(np.int64)

    def _may_go_on(self, node: Node, taken: tuple[int, ...], tokens: Allowed) -> bool:
        """Whether a label ends here and another one may follow."""
        if self.index.end not in tokens:
            return False
        n = len(taken) + 1
        if self.max_labels is not None and n >= self.max_labels:
            return False
        return self.repeats or n < len(self.index)

    def _check(
        self, written: Sequence[tuple[int, ...]], states: dict[tuple[int, ...], _State]
    ) -> None:
        """A first token that begins no label, in all rows, is a wrong prompt length."""
        if (
            written[0]
            and all(states[row].node is None for row in written)
            and all(self.index.step(self.index.root, row[0]) is None for row in written)
        ):
            raise InputError(
                f"after {self.prompt_length} prompt tokens no row goes on with a label; "
                "prompt_length must be the width of the prompts given to generate"
            )


def check_separator(index: LabelIndex, separator: int) -> None:
    """Refuse a token that cannot part two labels.

    Raises:
        InputError: the separator ends texts or occurs in labels.
    """
    if separator == index.end:
        raise InputError(f"separator {separator} is the end token; give another one")
    at = np.flatnonzero(index.tokens == separator)
    if len(at):
        row = int(index.offsets.searchsorted(at[0], side="right")) - 1
        raise InputError(
            f"separator {separator} occurs in label {int(index.order[row])}; give a token that no "
            "label has"
        )


def generate_labels(
    model: Any,
    prompts: Sequence[Sequence[int]],
    index: LabelIndex,
    *,
    separator: int | None = None,
    repeats: bool = False,
    max_labels: int = 1,
    batch_size: int = 16,
    **settings: Any,
) -> list[list[int]]:
    """Labels that a model writes after each prompt, by number, in the order written.

    Args:
        model: a Hugging Face causal language model; of a `HookedModel`, `bridge.original_model`.
        prompts: token ids; shorter ones are padded on the left, where nothing attends.
        index: the labels, of this model's tokenizer.
        separator: parts the labels of a list; needed from two labels on.
        repeats: whether a list may hold a label twice.
        max_labels: longest list.
        batch_size: prompts generated together.
        settings: passed on to `generate`, e.g. `do_sample`, `num_beams`; greedy by default. A
            smaller `max_new_tokens` than labels need cuts the last one, which is then left out.

    Raises:
        InputError: an empty prompt, or as `LabelConstraint` does.
    """
    if max_labels > 1 and separator is None:
        raise InputError(f"max_labels is {max_labels}: lists of labels need a separator token")
    settings = {"max_new_tokens": index.longest * max_labels, **settings}

    def constrained(width: int) -> dict[str, Any]:
        constraint = LabelConstraint(
            index, width, separator=separator, repeats=repeats, max_labels=max_labels
        )
        return {"logits_processor": LogitsProcessorList([constraint]), **settings}

    written = generated(model, prompts, index.end, batch_size, constrained)
    return [read_labels(index, row, separator) for row in written]


def read_labels(
    index: LabelIndex, tokens: Sequence[int], separator: int | None = None
) -> list[int]:
    """Numbers of the labels that written tokens spell, up to the first that is none or is cut."""
    numbers = []
    node: Node | None = index.root
    for token in tokens:
        ends = token == index.end or token == separator
        node = index.step(node, index.end if ends else token)
        if node is None:
            break
        if ends:
            numbers.append(int(index.order[node.low]))
            node = index.root
        if token == index.end:
            break
    return numbers
