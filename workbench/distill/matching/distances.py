"""How differently heads of two models look, found out layer by layer.

Of one example, what attention of a layer was computed from is at hand while the student runs, and
the patterns of its heads at as many rows as fit into `ROOM`; so memory does not grow with the
number of layers or examples, and only as their length does, not as its square.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from workbench.distill.losses.divergence import js_divergences
from workbench.distill.reading.checks import check_attention
from workbench.distill.reading.keeping import showing
from workbench.distill.reading.parts import attention_modules, shape_of
from workbench.distill.reading.patterns import patterns_of
from workbench.errors import InputError
from workbench.heads import Head
from workbench.models.attention import Kept

ROOM = 2**24
"""Numbers that the patterns of all student heads in a layer may have at a time."""


@torch.no_grad()
def attention_distances(
    teacher: Any,
    student: Any,
    heads: Sequence[Head],
    batch: Mapping[str, Tensor],
    rows: Bool[Tensor, "batch query"],
) -> Float[Tensor, "teacher_head student_head"]:
    """Jensen-Shannon divergences between attention of some teacher heads and all of the student.

    The mean over the chosen rows, without padding, on the CPU; student heads layer by layer.

    Raises:
        InputError: no row is chosen, or attention of a model cannot be read.
    """
    if not rows.any():
        raise InputError("rows to compare attention at: none is chosen")
    shape = shape_of(student)
    taught = {layer for layer, _ in heads}
    check_attention(teacher, attention_modules(teacher)[0], taught)
    check_attention(student, attention_modules(student)[0], range(shape.n_layers))
    total = torch.zeros(len(heads), shape.n_layers, shape.n_heads)
    for ids, length, chosen in zip(batch["input_ids"], batch["length"], rows, strict=True):
        queries = chosen.nonzero().T
        ids = ids[None, : int(length)]
        theirs: dict[int, Kept] = {}

        def hold(layer: int, kept: Kept, theirs: dict[int, Kept] = theirs) -> None:
            if layer in taught:
                theirs[layer] = kept

        def compare(
            layer: int, kept: Kept, theirs: dict[int, Kept] = theirs, queries: Tensor = queries
        ) -> None:
            total[:, layer] += _summed(heads, theirs, kept, queries)

        if not queries.numel():
            continue
        with showing(teacher, hold):  # base models: nobody asks for logits
            teacher.base_model(input_ids=ids.to(teacher.device), use_cache=False)
        with showing(student, compare):
            student.base_model(input_ids=ids.to(student.device), use_cache=False)
    return (total / rows.sum().cpu()).flatten(1)


def _summed(
    heads: Sequence[Head], theirs: Mapping[int, Kept], ours: Kept, queries: Int[Tensor, "1 row"]
) -> Float[Tensor, "teacher_head student_head"]:
    """Sums over the rows, of one example and one student layer."""
    n_heads, device = ours.query.shape[1], ours.query.device
    every = torch.arange(n_heads, device=device)
    total = torch.zeros(len(heads), n_heads)
    for part in queries.split(max(1, ROOM // (n_heads * ours.key.shape[2])), dim=1):
        student = patterns_of(ours, every, part)[0].transpose(0, 1)
        for place, (layer, head) in enumerate(heads):
            kept = theirs[layer]
            one = torch.tensor([head], device=kept.query.device)
            pattern = patterns_of(kept, one, part)[0, 0].to(device)
            total[place] += js_divergences(pattern, student).cpu()
    return total
