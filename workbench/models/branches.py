"""What a forked forward is asked for: branches that leave a trunk, with edits of their own."""

from collections.abc import Sequence
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from workbench.errors import InputError
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
    """Tokens that continue the trunk from position `start`, with edits of their own."""

    start: int
    tokens: Sequence[int]
    edits: Sequence[Edit] = ()

    @property
    def lowest_edit(self) -> int | None:
        """The first layer that is edited."""
        return min((edit.layer for edit in self.edits), default=None)


def check_branch(model: HookedModel, trunk_length: int, index: int, branch: Branch) -> None:
    """Refuse a branch that does not fit the trunk or the model.

    Raises:
        InputError: a branch without tokens or outside the trunk, or an edit outside its branch or
            of a head that the model does not have.
    """
    if not branch.tokens:
        raise InputError(f"branch {index} has no tokens")
    if not 0 <= branch.start <= trunk_length:
        raise InputError(
            f"branch {index} starts at {branch.start}, the trunk has {trunk_length} tokens"
        )
    for edit in branch.edits:
        model.check_head(edit.layer, edit.head)
        covered = len(range(len(branch.tokens))[edit.positions])
        if covered != len(edit.value):
            raise InputError(
                f"branch {index} edits {covered} positions with {len(edit.value)} values"
            )
