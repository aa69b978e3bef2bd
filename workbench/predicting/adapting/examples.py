"""What an adapter learns from: training documents, each with the candidates that are retrieved."""

import random
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor
from torch.utils.data import Dataset

from workbench.errors import InputError
from workbench.labels.corpus import Document
from workbench.prompts.forms.asking import Asker, Question

AT_ONCE = 64
"""Documents that are asked about together."""
POOL = 50
"""Batches that are sorted by length together."""
WIDTH = 16
"""Tokens that lengths of batches are whole multiples of."""


@dataclass(frozen=True)
class Example:
    """A question about a document, and which options are right.

    Attributes:
        tokens: up to the decision.
        option_tokens: of the names of the options, one each.
        labels: positions of the candidates in the corpus, in the order shown.
        gold: positions of the document's right labels, retrieved or not.
    """

    tokens: tuple[int, ...] = field(repr=False)
    option_tokens: tuple[tuple[int, ...], ...] = field(repr=False)
    labels: tuple[int, ...]
    gold: frozenset[int]

    @property
    def right(self) -> list[bool]:
        """Which candidates are right labels."""
        return [label in self.gold for label in self.labels]


def candidates_of(
    retrieved: Sequence[int], gold: Iterable[int], n: int, *, add_gold: bool
) -> tuple[int, ...]:
    """The first `n` retrieved labels; with `add_gold` the last ones give way to right labels.

    The right labels that were not among them stand behind the others, in their own order.
    """
    first = [int(label) for label in retrieved[:n]]
    if not add_gold:
        return tuple(first)
    right = list(dict.fromkeys(gold))
    missing = [label for label in right if label not in first][:n]
    wrong = [label for label in first if label not in right]
    gone = set(wrong[len(wrong) - max(0, len(first) + len(missing) - n) :])
    return tuple([label for label in first if label not in gone] + missing)[:n]


def make_examples(
    documents: Iterable[tuple[Document, Sequence[int]]],
    asker: Asker,
    label_texts: Sequence[str],
    advance: Callable[[int], None] | None = None,
) -> list[Example]:
    """The question about every document and its candidates.

    Args:
        documents: with the positions of their candidates, in the order shown; at least one each.
        asker: asks as predictions do.
        label_texts: of the corpus.
        advance: called with how many documents are done.

    Raises:
        InputError: a document that does not fit with one option, or names that take several tokens.
    """
    made: list[Example] = []
    for part in _parts(documents):
        for document, labels, question in _asked(part, asker, label_texts):
            if any(len(tokens) != 1 for tokens in question.option_tokens):
                raise InputError(
                    f"the names of {len(labels)} options take several tokens each for this "
                    "tokenizer, and an adapter is made for names of one; give fewer --candidates"
                )
            gold = frozenset(document.labels)
            made.append(Example(question.tokens, question.option_tokens, tuple(labels), gold))
        if advance:
            advance(len(made))
    return made


def _asked(
    part: Sequence[tuple[Document, Sequence[int]]], asker: Asker, texts: Sequence[str]
) -> list[tuple[Document, Sequence[int], Question]]:
    """Documents, candidates and questions; fewer candidates, as `predict` does, where too long."""

    def options(labels: Sequence[int]) -> list[str]:
        return [texts[label] for label in labels]

    try:
        questions = asker.ask_many(
            [document.full_text for document, _ in part], [options(labels) for _, labels in part]
        )
        return [(*one, question) for one, question in zip(part, questions, strict=True)]
    except InputError:  # of one document, which is not known
        found = []
    for document, labels in part:
        while True:
            try:
                question = asker.ask(document.full_text, options(labels))
                break
            except InputError:
                if len(labels) < 2:
                    raise
                labels = labels[: len(labels) * 3 // 4]
        found.append((document, labels, question))
    return found


def _parts(
    documents: Iterable[tuple[Document, Sequence[int]]],
) -> Iterator[list[tuple[Document, Sequence[int]]]]:
    rest = iter(documents)
    while part := list(islice(rest, AT_ONCE)):
        yield part


def held_out_ids(
    ids: Sequence[str], n: int, groups: Mapping[str, int] | None, seed: int
) -> set[str]:
    """About `n` of the documents, at random; those of a group are held out together."""
    members: dict[Any, list[str]] = {}
    for one in ids:
        group = (groups or {}).get(one)
        members.setdefault(("alone", one) if group is None else ("group", group), []).append(one)
    order = list(members.values())
    random.Random(f"{seed}:held out").shuffle(order)
    held: set[str] = set()
    for some in order:
        if len(held) + len(some) <= n:
            held.update(some)
    return held


def order_of_batches(
    lengths: Sequence[int], n_batches: int, batch_size: int, seed: int
) -> Int[np.ndarray, " sample"]:
    """Numbers of examples, batch after batch: each passes once before any does again.

    Batches are of like length: `POOL` of them are drawn, sorted by length, and shuffled.
    """
    rng = np.random.default_rng(seed)
    wanted = n_batches * batch_size
    passes = [rng.permutation(len(lengths)) for _ in range(-(-wanted // len(lengths)))]
    drawn = np.concatenate(passes)[:wanted]
    sizes = np.array(lengths)
    pools = []
    for start in range(0, wanted, POOL * batch_size):
        pool = drawn[start : start + POOL * batch_size]
        batches = pool[np.argsort(sizes[pool], kind="stable")].reshape(-1, batch_size)
        pools.append(rng.permutation(batches).ravel())
    return np.concatenate(pools)


class ExampleOrder(Dataset[Example]):
    """Examples in an order in which they may come again."""

    def __init__(self, examples: Sequence[Example], order: Int[np.ndarray, " sample"]) -> None:
        self._examples, self._order = examples, order

    def __len__(self) -> int:
        return len(self._order)

    def __getitem__(self, index: int) -> Example:
        return self._examples[int(self._order[index])]


def collate(examples: Sequence[Example]) -> dict[str, Tensor]:
    """Examples side by side, padded on the right, where no causal model looks.

    Returns:
        `input_ids` [example, token]; `last`, the position of each decision; `options`, their tokens
        [example, option], -1 where an example has fewer; `right`, whether each is right.
    """
    longest = max(len(example.tokens) for example in examples)
    widest = max(len(example.labels) for example in examples)
    input_ids = torch.zeros(len(examples), -(-longest // WIDTH) * WIDTH, dtype=torch.long)
    options = torch.full((len(examples), widest), -1)
    right = torch.zeros(len(examples), widest, dtype=torch.bool)
    for row, example in enumerate(examples):
        input_ids[row, : len(example.tokens)] = torch.tensor(example.tokens)
        n = len(example.labels)
        options[row, :n] = torch.tensor([token for (token,) in example.option_tokens])
        right[row, :n] = torch.tensor(example.right)
    last = torch.tensor([len(example.tokens) - 1 for example in examples])
    return {"input_ids": input_ids, "last": last, "options": options, "right": right}
