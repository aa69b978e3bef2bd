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

    def __len__(self) -> int:
        return len(self.value)


@dataclass(frozen=True)
class PatternEdit:
    """Replacement of one head's attention rows at positions of a branch.

    A row holds a weight for every key of the branch's own sequence: the prefix before its start,
    then the branch. What the head puts out is the row times the values that the branch has there,
    which heads patched in lower layers may have changed. Nothing looks ahead: weights of keys
    behind the query's position are 0.
    """

    layer: int
    head: int
    positions: slice
    rows: Float[Tensor, "position key"]

    def __len__(self) -> int:
        return len(self.rows)


AnyEdit = Edit | PatternEdit


@dataclass(frozen=True)
class Branch:
    """Tokens that continue the prefix from position `start`, with edits of their own."""

    start: int
    tokens: Sequence[int]
    edits: Sequence[AnyEdit] = ()

    @cached_property
    def lowest_edit(self) -> int | None:
        """The first layer that is edited."""
        return min((edit.layer for edit in self.edits), default=None)


def check_branch(model: HookedModel, prefix_length: int, index: int, branch: Branch) -> None:
    """Refuse a branch that does not fit the prefix or the model.

    Raises:
        InputError: a branch without tokens or outside the prefix, an edit outside its branch or of
            a head that the model does not have, two edits of one head at the same position, or
            attention rows over another number of keys than the branch has.
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
        if len(covered) != len(edit):
            raise InputError(
                f"branch {index} edits {len(covered)} positions with {len(edit)} values"
            )
        if isinstance(edit, PatternEdit):
            keys = branch.start + len(branch.tokens)
            if edit.rows.shape[1] != keys:
                raise InputError(
                    f"branch {index} has {keys} keys, an attention row over {edit.rows.shape[1]}"
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
