"""Branches as whole forwards through the bridge, one by one: slow, and exact on every model."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from workbench.models.branches import Branch
from workbench.models.hooked import HookedModel
from workbench.models.hooks import Hook, replace_z


@torch.no_grad()
def run_separately(
    model: HookedModel,
    prefix: Sequence[int],
    branches: Sequence[Branch],
    columns: Tensor | None,
    last_only: bool,
) -> list[Float[Tensor, "branch_position column"]]:
    """The logits of `forked_forward`, by a forward of every branch's own sequence."""
    return [_logits(model, prefix, branch, columns, last_only) for branch in branches]


def _logits(
    model: HookedModel,
    prefix: Sequence[int],
    branch: Branch,
    columns: Tensor | None,
    last_only: bool,
) -> Tensor:
    sequence = [*prefix[: branch.start], *branch.tokens]
    kept = range(len(sequence) - 1 if last_only else branch.start, len(sequence))
    tokens = torch.tensor([sequence], device=model.device)
    logits = model.logits_at(tokens, kept, _hooks(branch))[0]
    return logits if columns is None else logits[:, columns.to(logits.device)]


def _hooks(branch: Branch) -> list[Hook]:
    hooks = []
    for edit in branch.edits:
        inside = torch.arange(len(branch.tokens))[edit.positions]
        # Indices stay on the CPU, from where they may address a layer on any device.
        index = (0, branch.start + inside, edit.head)
        hooks.append(replace_z(edit.layer, index, edit.value))
    return hooks
