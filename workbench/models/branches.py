"""What a forked forward is asked for: branches that leave a prefix, with edits of their own."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Float, Int
from torch import Tensor

from workbench.errors import InputError
from workbench.heads import Head
from workbench.models.hooked import HookedModel


@dataclass(frozen=True)
class Edit:
    """Replacement of one head's `hook_z` at positions of a branch (counted within the branch).

    The value decides what the edit is: another run's output patches, zeros or a mean ablate.
    """

    layer: int
    head: int
    positions: slice
    value: Float[Tensor, "position d_head"]


@dataclass(frozen=True)
class Branch:
    """Tokens that continue the prefix from position `start`, with edits of their own."""

    start: int
    tokens: Sequence[int]
    edits: Sequence[Edit] = ()

    @cached_property
    def lowest_edit(self) -> int | None:
        """The first layer that is edited."""
        return min((edit.layer for edit in self.edits), default=None)


def check_branch(model: HookedModel, prefix_length: int, index: int, branch: Branch) -> None:
    """Refuse a branch that does not fit the prefix or the model.

    Raises:
        InputError: a branch without tokens or outside the prefix, an edit outside its branch or of
            a head that the model does not have, or two edits of one head at the same position.
    """
    if not branch.tokens:
        raise InputError(f"branch {index} has no tokens")
    if not 0 <= branch.start <= prefix_length:
        raise InputError(
            f"branch {index} starts at {branch.start}, the prefix has {prefix_length} tokens"
        )
    edited: dict[Head, set[int]] = {}
    for edit in branch.edits:
        model.check_head(edit.layer, edit.head)
        covered = range(len(branch.tokens))[edit.positions]
        if len(covered) != len(edit.value):
            raise InputError(
                f"branch {index} edits {len(covered)} positions with {len(edit.value)} values"
            )
        if len(branch.edits) == 1:
            continue  # of which there are thousands in a sweep
        before = edited.setdefault((edit.layer, edit.head), set())
        if not before.isdisjoint(covered):
            raise InputError(
                f"branch {index} edits head (layer {edit.layer}, head {edit.head}) twice at "
                f"position {min(before & set(covered))}"
            )
        before.update(covered)


def index_on(device: torch.device, values: Sequence[int]) -> Int[Tensor, " value"]:
    """An index on the device, made without waiting for what the device still has to do."""
    return torch.tensor(values, dtype=torch.long).to(device, non_blocking=True)
