"""Which tokens of two runs are counterparts, and attention rows carried from one to the other.

Two variants of a prompt agree but for the evidence, which may differ in length; with chains of
their own they differ there too. Tokens are aligned in order:

1. Equal tokens at both ends are counterparts; between them, runs of equal tokens are found as
   difflib finds them.
2. Stretches that differ and have the same length are counterparts token by token.
3. Stretches of different lengths are *blocks*: a block as a whole is the counterpart of the other,
   none of its tokens is. A stretch that only one run has forms a block with the token before it
   (behind it, at the very start).

An attention row of one run then has a place in the other: the weight on a token goes to its
counterpart, the weight on a block to the other's block, inside which it is spread as the run that
is patched spreads its own. So the row still sums to 1, and looks as long at the evidence as the
other run does. Where both runs are equally long and agree at the ends, the row is taken as it is.
A query has a row only where it has a counterpart: every token of the aligned suffix has one.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from functools import cached_property

import torch
from jaxtyping import Float, Int
from torch import Tensor

from workbench.errors import InputError

_TINY = 1e-12


@dataclass(frozen=True)
class Alignment:
    """Blocks of two runs, in order: how many tokens of the patched run and of the source each has.

    A pair of counterparts is a block of one token each.
    """

    sizes: tuple[tuple[int, int], ...]

    @classmethod
    def of(cls, base: Sequence[int], source: Sequence[int]) -> "Alignment":
        """Align the tokens of the run that is patched with those of the run it is patched from."""
        start = _agree(base, source)
        shortest = min(len(base), len(source))
        end = min(_agree(base[::-1], source[::-1]), shortest - start)
        inner = base[start : len(base) - end], source[start : len(source) - end]
        sizes = [(1, 1)] * start
        pending: tuple[int, int] | None = None  # at the very start, before any token
        for a, b in [*_stretches(*inner), *[(1, 1)] * end]:
            if a and b:
                if pending is not None:
                    a, b, pending = a + pending[0], b + pending[1], None
                sizes += [(1, 1)] * a if a == b else [(a, b)]
            elif sizes:
                sizes[-1] = sizes[-1][0] + a, sizes[-1][1] + b
            else:
                pending = a, b
        if pending is not None:
            raise InputError("two runs without a token in common, of which one is empty")
        return cls(tuple(sizes))

    @property
    def exact(self) -> bool:
        """Whether every token has a counterpart, so that rows are taken as they are."""
        return all(size == (1, 1) for size in self.sizes)

    @cached_property
    def of_base(self) -> Int[Tensor, " base"]:
        """Number of the block of each token of the patched run."""
        return _numbers([size for size, _ in self.sizes])

    @cached_property
    def of_source(self) -> Int[Tensor, " source"]:
        """Number of the block of each token of the source."""
        return _numbers([size for _, size in self.sizes])

    @cached_property
    def counterparts(self) -> Int[Tensor, " base"]:
        """Position in the source of each token of the patched run; -1 where it has none."""
        single = torch.tensor([size == (1, 1) for size in self.sizes])
        first = torch.tensor([size for _, size in self.sizes]).cumsum(0) - 1
        return torch.where(single, first, -1)[self.of_base]

    def rows(
        self, source: Float[Tensor, "*any query source"], own: Float[Tensor, "*any query base"]
    ) -> Float[Tensor, "*any query base"]:
        """Attention rows of the source over the keys of the patched run.

        `own` are the rows of the patched run, unpatched, of the same heads at the counterparts.
        """
        to = self.of_base.to(own.device)
        blocks = torch.zeros(*source.shape[:-1], len(self.sizes), device=own.device)
        weight = blocks.index_add(-1, self.of_source.to(own.device), source.float())[..., to]
        if self.exact:
            return weight
        held = blocks.index_add(-1, to, own.float())[..., to]
        size = torch.bincount(self.of_base)[self.of_base].to(own.device)
        spread = torch.where(held > _TINY, own.float() / held.clamp(min=_TINY), 1 / size)
        # A block may hold keys behind the query only where the query is itself inside it.
        return torch.where(size == 1, weight, weight * spread)


def _agree(a: Sequence[int], b: Sequence[int]) -> int:
    """How many first tokens are equal."""
    pairs = enumerate(zip(a, b, strict=False))
    return next((at for at, (x, y) in pairs if x != y), min(len(a), len(b)))


def _stretches(base: Sequence[int], source: Sequence[int]) -> list[tuple[int, int]]:
    """Lengths of stretches that agree or differ, in order."""
    matcher = SequenceMatcher(None, list(base), list(source), autojunk=False)
    return [(j - i, n - m) for _, i, j, m, n in matcher.get_opcodes()]


def _numbers(sizes: Sequence[int]) -> Int[Tensor, " token"]:
    return torch.arange(len(sizes)).repeat_interleave(torch.tensor(list(sizes)))
