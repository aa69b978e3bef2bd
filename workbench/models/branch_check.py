"""Whether a branch computes in every layer what the prefix computed at the same positions.

Over many layers, rounding in half precision grows as large as a small error of the architecture: a
scale of the queries that goes by a token's place in the forward and not by its position, say. In
one layer rounding stays what it is. So a branch that repeats the prefix's end is given, layer by
layer, what entered the prefix's block, and what it attends with and puts out is compared.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from workbench.models.attention import Attention
from workbench.models.branch_batch import Fresh
from workbench.models.branches import Branch
from workbench.models.hooked import HookedModel
from workbench.models.prefix import Prefix, run_prefix
from workbench.models.shortcuts import ALLOWED, Differs
from workbench.models.steered import Call, Run

EPSILONS = 4
"""Difference of queries, keys and values that rounding explains, relative to their size."""
EPSILONS_OF_Z = 16
"""The same of attention's output: a softmax makes more of what scores differ by."""


@torch.no_grad()
def check_layers(model: HookedModel, tokens: Sequence[int], recorded: int) -> None:
    """Compare the last `recorded` positions of a prompt, as a branch and as part of the prefix.

    Raises:
        Differs: something differs more than rounding explains; it is named with its layer.
    """
    queries: list[Tensor] = []
    prefix = run_prefix(model, tokens, recorded, queries=queries)
    start = len(tokens) - recorded
    _LayerByLayer(model, prefix, Branch(start, tokens[start:]), queries).run()


class _LayerByLayer(Fresh):
    """A branch whose every block starts from what entered the prefix's."""

    def __init__(
        self, model: HookedModel, prefix: Prefix, branch: Branch, queries: Sequence[Tensor]
    ) -> None:
        super().__init__(model, prefix, [branch], None, True)
        self.queries = queries

    def block(self, layer: int, run: Run, hidden: Tensor, call: Call) -> Tensor:
        """The block, on the prefix's residual stream."""
        return run(self.prefix.residuals[layer], call)

    def attend(self, layer: int, given: Attention) -> Float[Tensor, "row position head d_head"]:
        """As any branch, and compared."""
        z = super().attend(layer, given)
        start = self.branches[0].start
        pairs = {
            "queries": (given.query, self.queries[layer], EPSILONS),
            "keys": (given.key, self.prefix.keys[layer][:, :, start:], EPSILONS),
            "values": (given.value, self.prefix.values[layer][:, :, start:], EPSILONS),
            "outputs": (z, self.prefix.z_by_layer[layer][None], EPSILONS_OF_Z),
        }
        for name, (found, expected, epsilons) in pairs.items():
            error = float((found - expected).float().norm() / expected.float().norm())
            allowed = max(ALLOWED, epsilons * torch.finfo(z.dtype).eps)
            if not error <= allowed and expected.any():
                raise Differs(f"a branch's {name} in layer {layer} differ by {error:.1%}")
        return z
