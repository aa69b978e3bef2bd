"""Heads of one run patched from another: what they carry, or where they look.

Two interventions, never mixed in one number:

    z        the head's output is the other run's: what it carries
    pattern  the head's attention rows are the other run's, over the values of the run that is
             patched: where it looks. Of a set across layers, upper heads find the values that the
             lower ones have changed

Both are done at positions that have a counterpart in the other run (see `alignment`).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor

from workbench.analysis.patching.alignment import Alignment
from workbench.analysis.scores.attribution import z_names
from workbench.errors import InputError
from workbench.heads import Head
from workbench.models.branches import AnyEdit, Branch, Edit, PatternEdit
from workbench.models.forked import can_fork, forked_forward
from workbench.models.hooked import HookedModel
from workbench.models.pattern_rows import attention_rows
from workbench.models.prefix import Prefix, run_prefix
from workbench.phases import INTERVENTIONS

Pairs = Sequence[tuple[int, int]]
"""Positions of the run that is patched, rising, each with its counterpart in the source."""


def check_intervention(name: str) -> None:
    """Refuse an intervention that is none of `INTERVENTIONS`, with an `InputError`."""
    if name not in INTERVENTIONS:
        raise InputError(f"intervention {name!r} is not one of {', '.join(INTERVENTIONS)}")


def base_run(
    model: HookedModel, tokens: list[int], kept: int
) -> tuple[Prefix | list[int], list[Float[Tensor, "position head d_head"]], Tensor]:
    """What patched forwards start from, every head's output at the last positions, last logits."""
    if can_fork(model, tokens):
        prefix = run_prefix(model, tokens, kept)
        return prefix, prefix.z_by_layer, prefix.logits
    names = z_names(model.info.n_layers)
    [run] = model.run([tokens], names)
    return tokens, [run.activations[name][-kept:] for name in names], run.logits


@dataclass(frozen=True)
class PlainRun:
    """One plain run of some tokens: what is patched, and what is patched from.

    `z` is every head's output at the last positions, one tensor per layer; attention rows are those
    of the same positions, and made when they are first wanted.
    """

    model: HookedModel = field(repr=False)
    tokens: Sequence[int]
    base: Prefix | list[int]
    z: Sequence[Float[Tensor, "position head d_head"]]

    @classmethod
    def of(cls, model: HookedModel, tokens: Sequence[int], kept: int) -> "PlainRun":
        """Run the tokens once, keeping the last positions."""
        base, z, _ = base_run(model, list(tokens), kept)
        return cls(model, list(tokens), base, z)

    @property
    def first(self) -> int:
        """The first position that is kept."""
        return len(self.tokens) - len(self.z[0])

    @cached_property
    def rows(self) -> list[Float[Tensor, "head position key"]]:
        """Attention rows at the positions that are kept, one tensor per layer."""
        return attention_rows(self.model, self.tokens, range(self.first, len(self.tokens)))


def patched_logits(
    to: PlainRun,
    source: PlainRun,
    pairs: Pairs,
    groups: Sequence[Sequence[Head]],
    *,
    intervention: str,
    columns: Sequence[int],
) -> Float[Tensor, "group column"]:
    """Logits at the last token, once per group of heads that are patched together.

    Raises:
        InputError: no position to patch, one that was not kept, or a head that the model lacks.
    """
    if not pairs:
        raise InputError("no position of the two runs corresponds, so there is nothing to patch")
    if min(a for a, _ in pairs) < to.first or min(b for _, b in pairs) < source.first:
        raise InputError("a position to patch lies before those that were kept of its run")
    start = pairs[0][0]
    edits = _Edits(to, source, pairs, start, intervention)
    branches = [
        Branch(
            start, to.tokens[start:], [e for head in dict.fromkeys(group) for e in edits.of(head)]
        )
        for group in groups
    ]
    return torch.cat(forked_forward(to.model, to.base, branches, columns=columns, last_only=True))


class _Edits:
    """The edits of each head, made once, and shared by all groups that it is in."""

    def __init__(
        self, to: PlainRun, source: PlainRun, pairs: Pairs, start: int, intervention: str
    ) -> None:
        self.to, self.source, self.start = to, source, start
        self.pattern = intervention == "pattern"
        self.at = torch.tensor([a - to.first for a, _ in pairs])
        self.taken = torch.tensor([b - source.first for _, b in pairs])
        self.stretches = list(_stretches([a for a, _ in pairs]))
        self.known: dict[Head, list[AnyEdit]] = {}
        self.layers: dict[int, Tensor] = {}

    @cached_property
    def alignment(self) -> Alignment:
        return Alignment.of(self.to.tokens, self.source.tokens)

    def of(self, head: Head) -> list[AnyEdit]:
        if head not in self.known:
            self.to.model.check_head(*head)
            self.known[head] = list(self._made(head))
        return self.known[head]

    def _made(self, head: Head) -> Iterator[AnyEdit]:
        layer, number = head
        values = self._layer(layer)[number]
        for first, last in self.stretches:
            begin = int(self.at[first]) + self.to.first - self.start
            into = slice(begin, begin + last - first)
            kind = PatternEdit if self.pattern else Edit
            yield kind(layer, number, into, values[first:last])

    def _layer(self, layer: int) -> Float[Tensor, "head position _"]:
        """What the heads of a layer get."""
        if layer not in self.layers:
            if self.pattern:
                theirs = self.source.rows[layer][:, self.taken]
                own = self.to.rows[layer][:, self.at]
                self.layers[layer] = self.alignment.rows(theirs, own)
            else:
                self.layers[layer] = self.source.z[layer][self.taken].transpose(0, 1)
        return self.layers[layer]


def _stretches(positions: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Index ranges of positions that follow one another."""
    breaks = [at for at, (a, b) in enumerate(pairwise(positions), start=1) if b != a + 1]
    return pairwise([0, *breaks, len(positions)])
