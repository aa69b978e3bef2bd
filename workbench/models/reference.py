"""Branches as whole forwards through the bridge, one by one: slow, and exact on every model."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from workbench.models.branches import Branch
from workbench.models.hooked import HookedModel
from workbench.models.hooks import replace_z


@torch.no_grad()
def run_separately(
    model: HookedModel,
    prefix: Sequence[int],
    branches: Sequence[Branch],
    columns: Tensor | None,
    last_only: bool,
) -> list[Float[Tensor, "branch_position column"]]:
    """The logits of `forked_forward`, by a forward of every branch's own sequence."""
    rows = []
    for branch in branches:
        sequence = [*prefix[: branch.start], *branch.tokens]
        kept = range(len(sequence) - 1 if last_only else branch.start, len(sequence))
        # Indices stay on the CPU, from where they may address a layer on any device.
        at = torch.arange(branch.start, len(sequence))
        hooks = [replace_z(e.layer, (0, at[e.positions], e.head), e.value) for e in branch.edits]
        tokens = torch.tensor([sequence], device=model.device)
        logits = model.logits_at(tokens, kept, hooks)[0]
        rows.append(logits if columns is None else logits[:, columns.to(logits.device)])
    return rows
