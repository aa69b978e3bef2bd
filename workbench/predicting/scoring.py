"""How probable a model holds each option of a question: exactly, also for names of several tokens.

Options of one question share everything up to the decision. Names of one token need one forward
and its last logits. Longer names form a tree: the question runs once, its keys and values are
kept, and all inner nodes of the tree follow it in one more forward, where each sees the question
and the nodes above it.

Questions of a forward are padded on the right, where no causal model looks, and no mask is needed
for them. Where the tree cannot be (a model whose layers look back over a window that is shorter, or
whose positions are rotated by the length of the whole, or that gives other logits for it), every
node is a sequence of its own: slower, and as exact.
"""

from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformers import DynamicCache

from workbench.errors import InputError
from workbench.models.batch_budget import PackBudget
from workbench.predicting.model import PlainModel
from workbench.predicting.trees import NameTree, Path, branches

OFF = {torch.float32: 1e-4, torch.float64: 1e-6}
"""Difference of logits that is rounding, as a part of their range."""
OFF_IN_HALF = 0.03


@runtime_checkable
class Asked(Protocol):
    """A question at its decision; see `prompts.forms.asking.Question`."""

    @property
    def tokens(self) -> tuple[int, ...]:
        """Up to the decision."""
        ...

    @property
    def option_tokens(self) -> tuple[tuple[int, ...], ...]:
        """What follows when an option is chosen: one token at least, none the start of another."""
        ...


class OptionScorer:
    """Log-probabilities of options, many questions in a forward.

    Args:
        model: scores them.
        budget: tokens of a forward; halved where the device runs out of memory.
    """

    def __init__(self, model: PlainModel, budget: PackBudget | None = None) -> None:
        self.model = model
        self.budget = budget or PackBudget(model.device)
        self._trees_hold: bool | None = None  # unknown until there is one

    @torch.no_grad()
    def log_probs(
        self, questions: Sequence[Asked], advance: Callable[[int], None] | None = None
    ) -> list[Float[np.ndarray, " option"]]:
        """Of every option of every question: log p(its name's tokens | the question).

        Args:
            questions: in any order; what is computed together is of like length.
            advance: called with how many questions more are done.

        Raises:
            InputError: a question that is longer than the model's context, a name that is empty or
                the start of another, or not even one question fits into memory.
        """
        trees = [NameTree.of(question.option_tokens) for question in questions]
        for question, tree in zip(questions, trees, strict=True):
            self._check(question, tree)
        found: dict[int, Float[np.ndarray, " option"]] = {}
        forked, alone = [], []
        for number, (question, tree) in enumerate(zip(questions, trees, strict=True)):
            forks = tree.depth == 0 or self._may_fork(question, tree)
            (forked if forks else alone).append(number)

        def together(pack: Sequence[int]) -> None:
            rows, some = [questions[n].tokens for n in pack], [trees[n] for n in pack]
            for number, steps in zip(pack, self._forked(rows, some), strict=True):
                found[number] = trees[number].log_probs(steps)
            if advance:
                advance(len(pack))

        sizes = {n: len(questions[n].tokens) + len(trees[n].below) for n in forked}
        # Questions with a tree run twice and keep their keys, so they are not mixed with others.
        for deep in (False, True):
            some = [number for number in forked if (trees[number].depth > 0) == deep]
            self._pack(some, sizes, together)
        for number in alone:
            steps = self._apart(questions[number].tokens, trees[number])
            found[number] = trees[number].log_probs(steps)
            if advance:
                advance(1)
        return [found[number] for number in range(len(questions))]

    def _check(self, question: Asked, tree: NameTree) -> None:
        names = set(tree.names)
        if not question.tokens or len(names) < len(tree.names) or names & set(tree.children):
            raise InputError(
                "a question needs tokens, and names of options of which none begins another"
            )
        longest, context = len(question.tokens) + tree.depth, self.model.context
        if context is not None and longest > context:
            raise InputError(
                f"a question of {longest} tokens is longer than the model's context of {context}"
            )

    def _may_fork(self, question: Asked, tree: NameTree) -> bool:
        """Whether the tree of a question can follow it in a forward of its own."""
        model = self.model
        if model.switches:
            return False
        if model.window is not None and len(question.tokens) + tree.depth > model.window:
            return False
        if self._trees_hold is None:
            self._trees_hold = self._tried(question, tree)
        return self._trees_hold

    def _tried(self, question: Asked, tree: NameTree) -> bool:
        apart = self._apart(question.tokens, tree)
        try:
            (forked,) = self._forked([question.tokens], [tree])
        except Exception:  # architectures refuse masks and caches in ways of their own
            return False
        allowed = OFF.get(self.model.dtype, OFF_IN_HALF) * max(map(abs, apart.values()))
        return all(abs(forked[step] - value) <= allowed for step, value in apart.items())

    def _apart(self, tokens: Sequence[int], tree: NameTree) -> dict[Path, float]:
        """Log-probability of every step of a tree whose nodes are sequences of their own."""
        found: dict[Path, float] = {}
        sides: dict[int, list[Path]] = {}
        for node in tree.children:
            side = bisect_left(self.model.switches, len(tokens) + len(node))
            sides.setdefault(side, []).append(node)

        def run(pack: Sequence[Path]) -> None:
            logits = self._last_logits([[*tokens, *node] for node in pack])
            found.update(_steps(logits, pack, [tree.children[node] for node in pack]))

        for some in sides.values():
            self.budget.run(some, len(tokens) + len(some[-1]), run)
        return found

    def _pack(
        self, numbers: Sequence[int], sizes: dict[int, int], run: Callable[[Sequence[int]], None]
    ) -> None:
        """Run them by size, the largest first: what does not fit into memory is seen at once."""
        sides: dict[int, list[int]] = {}
        for number in sorted(numbers, key=lambda number: -sizes[number]):
            side = bisect_left(self.model.switches, sizes[number])
            sides.setdefault(side, []).append(number)
        for rest in sides.values():
            while rest:
                most = max(1, self.budget.tokens // sizes[rest[0]])
                some, rest = rest[:most], rest[most:]
                self.budget.run(some, sizes[some[0]], run)

    def _forked(
        self, rows: Sequence[Sequence[int]], trees: Sequence[NameTree]
    ) -> list[dict[Path, float]]:
        """Log-probability of every step of the trees that follow the rows."""
        deep = any(tree.below for tree in trees)
        # Without a configuration a cache forgets nothing, so columns stay where they are.
        cache = {"past_key_values": DynamicCache(), "use_cache": True} if deep else {}
        ends = self._last_logits(rows, **cache)
        # All rows in one: to wait for a device row by row is slow.
        first = _steps(ends, [(row,) for row in range(len(rows))], [t.children[()] for t in trees])
        found: list[dict[Path, float]] = [{} for _ in rows]
        for (row, token), value in first.items():
            found[row][token,] = value
        if not deep:
            return found
        below = [tree.below for tree in trees]
        tokens, positions, seen = branches(below, [len(row) for row in rows])
        device, dtype = self.model.device, self.model.dtype
        mask = torch.zeros(seen.shape, dtype=dtype).masked_fill_(~seen, torch.finfo(dtype).min)
        logits = self.model.hf(
            input_ids=tokens.to(device),
            position_ids=positions.to(device),
            attention_mask=mask[:, None].to(device),
            **cache,
        ).logits
        for steps, at, nodes, tree in zip(found, logits, below, trees, strict=True):
            steps.update(_steps(at[: len(nodes)], nodes, [tree.children[node] for node in nodes]))
        return found

    def _last_logits(
        self, rows: Sequence[Sequence[int]], **more: Any
    ) -> Float[Tensor, "row d_vocab"]:
        """Logits at the last token of each row, and no others: a vocabulary is wide."""
        device, width = self.model.device, max(map(len, rows))
        padded = torch.tensor([[*row, *[0] * (width - len(row))] for row in rows], device=device)
        last = torch.tensor([len(row) - 1 for row in rows])
        with only_last(self.model.hf, padded.shape, last):
            logits = self.model.hf(input_ids=padded, **{"use_cache": False, **more}).logits
        if logits.shape[1] == 1:
            return logits[:, 0]
        return logits[torch.arange(len(rows)), last]


def _steps(
    logits: Float[Tensor, "node d_vocab"], nodes: Sequence[Path], after: Sequence[Sequence[int]]
) -> dict[Path, float]:
    """Log-probability of tokens after nodes, named by where they lead."""
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    rows = torch.tensor([row for row, tokens in enumerate(after) for _ in tokens])
    tokens = torch.tensor([token for some in after for token in some])
    picked = logits[rows, tokens] - logits.logsumexp(-1)[rows.to(logits.device)]
    places = [(*node, token) for node, some in zip(nodes, after, strict=True) for token in some]
    return dict(zip(places, picked.tolist(), strict=True))


@contextmanager
def only_last(hf: Any, shape: torch.Size, last: Int[Tensor, " row"]) -> Iterator[None]:
    """Have the output matrix see one position of each row.

    `logits_to_keep` of transformers takes the same position of all rows.
    """
    head = hf.get_output_embeddings()

    def choose(_: Any, given: tuple[Any, ...]) -> tuple[Any, ...] | None:
        if not given or given[0].shape[:2] != shape:
            return None  # another shape than is known: all logits are made
        hidden = given[0]
        rows = torch.arange(len(last), device=hidden.device)
        return (hidden[rows, last.to(hidden.device)][:, None], *given[1:])

    handle = head.register_forward_pre_hook(choose) if head is not None else None
    try:
        yield
    finally:
        if handle is not None:
            handle.remove()
