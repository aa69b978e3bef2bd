"""How an answer is kept on disk: as it is, or what matters of it in a fraction of the room.

Exact, every entry that exists in an example is kept in its own dtype. Truncated, three kinds of
answers are cut, and all others are kept:

- attention rows (last axis "key"): the `top` largest shares and what is left over, which is spread
  evenly over the other keys that the row may look at;
- logits: the `top` largest, and the log of what the others weigh together, at temperature 1 and at
  that of the loss; the loss takes the others as one;
- what heads write, which only CKA compares: projected to `width` numbers by a random matrix
  of this seed, in half precision (inner products stay as they are, up to noise).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional

from workbench.distill.losses.losses import TopLogits
from workbench.distill.reading.positions import Marks
from workbench.distill.targets.requests import Request, there

Parts = dict[str, Tensor]
"""What is kept of an answer; each is [entry, ...] on disk and [batch, ...] in a batch."""

WRITES = ("summed", "written")


@dataclass(frozen=True)
class Packing:
    """How answers are kept.

    Attributes:
        exact: whole, and `top` and `width` say nothing.
        top: entries kept of an attention row or of the logits at a token.
        width: numbers that what heads write is projected to, where the teacher is wider.
        seed: of the projection.
        temperature: of the loss on logits.
        n_tokens: token ids that teacher and student both have, of which logits are kept.
    """

    exact: bool = False
    top: int = 64
    width: int = 1024
    seed: int = 0
    temperature: float = 1.0
    n_tokens: int | None = None

    def how(self, request: Request) -> str:
        """Which kind of cut: "whole", "rows", "logits" or "writes"."""
        if self.exact:
            return "whole"
        if request.name == "logits":
            return "logits"
        if request.axes[-1] == "key":
            return "rows"
        wide = request.name in WRITES and request.axes[-1] == "d_model"
        return "writes" if wide else "whole"

    def bytes_of(self, request: Request, marks: Marks) -> int:
        """Bytes that a batch's answers take on disk."""
        how = self.how(request)
        inside = there(request, marks, None if how in ("whole", "writes") else -1)
        entries = int(inside.sum())
        if how == "rows":
            return entries * (self.top * (2 + _index(marks).itemsize) + 4)
        if how == "logits":
            return entries * (min(self.top, self.n_tokens or self.top) * (4 + 4) + 8)
        sizes = [*request.sizes[inside.dim() :]]
        if how == "writes":
            return entries * 2 * min(self.width, sizes[-1])
        each = getattr(torch, request.dtype).itemsize
        for size in sizes:
            each *= size
        return entries * each

    def pack(self, request: Request, answer: Tensor, marks: Marks) -> tuple[Parts, Tensor, float]:
        """What is kept of a batch's answers.

        Returns:
            parts, of which each is [entry, ...], entries of all examples one after the other;
            how many entries each example has; and the share that is cut off, summed over entries
            (of attention, or of the next token's probability), 0 where there is no such share.
        """
        how = self.how(request)
        inside = there(request, marks, None if how in ("whole", "writes") else -1)
        answer = answer[..., : self.n_tokens] if how == "logits" else answer
        found, counts = answer[inside], inside.flatten(1).sum(dim=1)
        if how == "whole":
            return {"value": found}, counts, 0.0
        if how == "writes":
            made = projection(found.shape[-1], self.width, self.seed)
            found = found if made is None else found.float() @ made.to(found.device)
            return {"value": found.half()}, counts, 0.0
        k = min(self.top, found.shape[-1])
        value, index = found.float().topk(k, dim=-1)
        if how == "rows":
            rest = (found.float().sum(dim=-1) - value.sum(dim=-1)).clamp(min=0)
            kept = {"value": value.half(), "index": index.to(_index(marks)), "rest": rest}
            return _filled(kept, self.top), counts, float(rest.sum())
        others = found.float().scatter(-1, index, -torch.inf)
        rest = torch.stack(
            [torch.logsumexp(others / t, dim=-1) for t in (1.0, self.temperature)], dim=-1
        )
        lost = (rest[..., 0] - found.float().logsumexp(dim=-1)).exp().sum()
        return {"value": value, "index": index.int(), "rest": rest}, counts, float(lost)

    def padded(self, request: Request, parts: Mapping[str, Tensor], marks: Marks) -> Parts:
        """The parts of a batch of examples, [batch, ...], from their entries in order."""
        how = self.how(request)
        inside = there(request, marks, None if how in ("whole", "writes") else -1)
        made = {}
        for name, entries in parts.items():
            made[name] = entries.new_zeros(*inside.shape, *entries.shape[1:])
            made[name][inside] = entries
        return made

    def unpacked(self, request: Request, parts: Parts, marks: Marks) -> Tensor | TopLogits:
        """The answer, from its parts in a batch; what does not exist is 0."""
        how = self.how(request)
        if how == "rows":
            return _spread(parts["value"], parts["index"], parts["rest"], marks)
        if how == "logits":
            return TopLogits(parts["value"], parts["index"].long(), parts["rest"][..., 1])
        return parts["value"].float() if how == "writes" else parts["value"]

    def says(self, request: Request) -> str:
        """How an answer is kept, in words."""
        how, size = self.how(request), request.sizes[-1]
        if how == "rows":
            return f"{self.top} keys of a row and the rest's share"
        if how == "logits":
            return f"{self.top} of {size:,} logits and the rest's weight"
        if how == "writes" and size > self.width:
            return f"{size:,} numbers projected to {self.width:,}, half precision"
        return "half precision" if how == "writes" else f"whole, {request.dtype}"


@lru_cache(maxsize=4)
def projection(wide: int, width: int, seed: int) -> Float[Tensor, "wide width"] | None:
    """A random matrix that keeps inner products on average; None where nothing would be saved."""
    if wide <= width:
        return None
    drawn = torch.randn(wide, width, generator=torch.Generator().manual_seed(seed))
    return drawn / width**0.5


def _index(marks: Marks) -> torch.dtype:
    return torch.int16 if marks.real.shape[1] <= torch.iinfo(torch.int16).max else torch.int32


def _filled(kept: Parts, top: int) -> Parts:
    """As wide as those of a batch with more keys; what is added has no share."""
    missing = top - kept["value"].shape[-1]
    return {
        name: functional.pad(part, (0, missing)) if name != "rest" else part
        for name, part in kept.items()
    }


def _spread(
    value: Float[Tensor, "*rows top"],
    index: Int[Tensor, "*rows top"],
    rest: Float[Tensor, " *rows"],
    marks: Marks,
) -> Float[Tensor, "*rows key"]:
    """Rows of which the rest is spread over the other keys up to the query."""
    n_keys = marks.real.shape[1]
    keys = torch.arange(n_keys, device=marks.real.device)
    # Between batch and row there may be heads.
    queries = marks.queries.view(len(value), *[1] * (value.dim() - 3), -1, 1)
    index = index.long()
    # Where fewer keys have a share than are kept, nothing is left over.
    others = (keys <= queries).float().expand(*value.shape[:-1], n_keys).scatter(-1, index, 0.0)
    share = rest / others.sum(dim=-1).clamp(min=1)
    return (others * share[..., None]).scatter_add(-1, index, value.float())
