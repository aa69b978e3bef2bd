"""Branches as whole forwards through the bridge, one by one: slow, and exact on every model."""

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from workbench.errors import InputError
from workbench.models.branches import AnyEdit, Branch, PatternEdit
from workbench.models.hooked import HookedModel
from workbench.models.hooks import Hook, replace_pattern, replace_z


@torch.no_grad()
def run_separately(
    model: HookedModel,
    prefix: Sequence[int],
    branches: Sequence[Branch],
    columns: Tensor | None,
    last_only: bool,
) -> list[Float[Tensor, "branch_position column"]]:
    """The logits of `forked_forward`, by a forward of every branch's own sequence.

    Raises:
        InputError: attention rows of a model whose attention cannot be replaced.
    """
    if any(isinstance(edit, PatternEdit) for branch in branches for edit in branch.edits):
        check_patterns(model)
    rows = []
    for branch in branches:
        sequence = [*prefix[: branch.start], *branch.tokens]
        kept = range(len(sequence) - 1 if last_only else branch.start, len(sequence))
        # Indices stay on the CPU, from where they may address a layer on any device.
        at = torch.arange(branch.start, len(sequence))
        hooks = [_hook(edit, at[edit.positions]) for edit in branch.edits]
        tokens = torch.tensor([sequence], device=model.device)
        logits = model.logits_at(tokens, kept, hooks)[0]
        rows.append(logits if columns is None else logits[:, columns.to(logits.device)])
    return rows


def _hook(edit: AnyEdit, at: Tensor) -> Hook:
    if isinstance(edit, PatternEdit):
        return replace_pattern(edit.layer, (0, edit.head, at), edit.rows)
    return replace_z(edit.layer, (0, at, edit.head), edit.value)


@torch.no_grad()
def check_patterns(model: HookedModel) -> None:
    """Refuse a model in which a replaced attention row changes nothing.

    Some architectures compute attention in one piece and report the pattern afterwards.

    Raises:
        InputError: naming the model.
    """
    seen: list[bool] = []

    def keep(z: Tensor, hook: Any) -> None:
        seen.append(not z[0, -1, 0].any())

    nothing = torch.zeros(1, 1)
    hooks: list[Hook] = [replace_pattern(0, (0, 0, [0]), nothing), ("blocks.0.attn.hook_z", keep)]
    model.logits_at(torch.zeros(1, 1, dtype=torch.long, device=model.device), [0], hooks)
    if seen != [True]:
        raise InputError(
            f"model {model.info.name!r} does not let attention patterns be replaced; patch z"
        )
