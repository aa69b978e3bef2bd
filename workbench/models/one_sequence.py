"""A prompt and many copies of its last token in one sequence, layer by layer.

Patching at the decision alone makes branches of one token each. Run behind their prefix, they cost
a second round of small kernels, which an accelerator waits for. Here both go through every layer
side by side: the prompt's tokens first, then one row for each branch that has joined by that layer.
Only the mask keeps them apart: the prompt attends to itself, a row to the prompt before it and to
itself. It is the mask of `forked` for branches that all start at the last token.

1. In each block, rows that join are copies of the prompt's last token (`block`).
2. Position embeddings and the like are stretched to the rows, which have that token's position
   (`_stretch`).
3. Attention runs once for prompt and rows, under the one mask (`_mask`); then the layer's edits
   replace what their heads put out (`attend`).
4. The last block keeps the rows alone and ends the forward; norm and unembedding run on them in a
   forward of their own, whose blocks compute nothing (`_End`).
"""

from bisect import bisect_right
from collections.abc import Sequence
from contextlib import suppress
from itertools import accumulate
from typing import Any

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor

from workbench.models.attention import Attention, MaskFunction
from workbench.models.branches import Branch, Edit, index_on
from workbench.models.hooked import HookedModel
from workbench.models.shared_attention import under_mask
from workbench.models.steered import Call, Job, Run, Taken


class Together(Job):
    """A prompt and branches that repeat its last token, sorted by the lowest layer they edit."""

    def __init__(
        self,
        model: HookedModel,
        tokens: Sequence[int],
        branches: Sequence[Branch],
        columns: Tensor | None,
    ) -> None:
        self.model = model
        self.tokens = list(tokens)
        self.columns = columns
        self.last_layer = model.info.n_layers - 1
        self.joins = [self.last_layer if b.lowest_edit is None else b.lowest_edit for b in branches]
        length = len(self.tokens)
        self.positions = index_on(model.device, [*range(length), *[length - 1] * len(branches)])
        self._index_edits(branches)
        self._masks: dict[MaskFunction, Float[Tensor, "position position"]] = {}
        self._stretched: dict[int, tuple[Tensor, Tensor]] = {}
        self.output: Tensor | None = None

    def _index_edits(self, branches: Sequence[Branch]) -> None:
        """Where each layer's edits lie in one list of all, made at once: a layer has no time."""
        edits = [
            (edit.layer, row, edit)
            for row, branch in enumerate(branches, start=len(self.tokens))
            for edit in branch.edits
            if isinstance(edit, Edit) and len(edit)
        ]
        edits.sort(key=lambda entry: entry[0])
        counts = [0] * (self.last_layer + 1)
        for layer, _, _ in edits:
            counts[layer] += 1
        self.edited = [0, *accumulate(counts)]
        self.rows = index_on(self.model.device, [row for _, row, _ in edits])
        self.heads = index_on(self.model.device, [edit.head for _, _, edit in edits])
        # Values may come from layers on several devices.
        device = self.model.device
        values = [edit.value.to(device) for *_, edit in edits]
        self.values = torch.cat(values) if values else torch.empty(0)

    def run(self) -> list[Float[Tensor, "1 column"]]:
        """Logits of each branch at its one token."""
        ids = torch.tensor([self.tokens], device=self.model.device)
        positions = torch.arange(len(self.tokens), device=self.model.device)[None]
        with suppress(Taken):
            self.model.view.run(self, ids, positions, [0])
        assert self.output is not None, "the last block keeps what the rows are"
        end = _End(self.output, self.last_layer, self.columns)
        return list(self.model.view.run(end, ids[:, -1:], positions[:, -1:], [0]))

    def block(self, layer: int, run: Run, hidden: Tensor, call: Call) -> Any:
        """The prompt, the rows that joined, and those that join here: they equal its last token."""
        length = len(self.tokens)
        present = length + bisect_right(self.joins, layer)
        # Step 1.
        newcomers = hidden[:, length - 1 : length].expand(-1, present - hidden.shape[1], -1)
        # Step 2.
        call = call.each(length, lambda value, axis: self._stretch(value, axis, present))
        output = run(torch.cat([hidden, newcomers], dim=1), call)
        if layer < self.last_layer:
            return output
        # Step 4.
        self.output = rearrange(output[:, length:], "1 row d -> row 1 d")
        raise Taken

    def _stretch(self, value: Tensor, axis: int, present: int) -> Tensor:
        """What the model made for the prompt's positions, for those and the rows' position."""
        if id(value) not in self._stretched:
            stretched = value.index_select(axis, self.positions.to(value.device))
            self._stretched[id(value)] = value, stretched  # the value too, so that its id is taken
        return self._stretched[id(value)][1].narrow(axis, 0, present)

    def attend(self, layer: int, given: Attention) -> Float[Tensor, "1 position head d_head"]:
        """All positions under the one mask, then this layer's edits."""
        present = given.query.shape[2]
        # Step 3.
        z = under_mask(given, self._mask(given)[:present, :present])
        edits = slice(self.edited[layer], self.edited[layer + 1])
        if edits.start < edits.stop:
            rows, heads = (index[edits].to(z.device) for index in (self.rows, self.heads))
            z[0, rows, heads] = self.values[edits].to(z, non_blocking=True)
        return z

    def _mask(self, given: Attention) -> Float[Tensor, "position position"]:
        """0 where a position may attend, -inf where not, for all rows."""
        if given.may_attend not in self._masks:
            length, device = len(self.tokens), given.query.device
            at = self.positions.to(device)
            may = given.mask(at, at).clone()
            may[:, length:] = False
            may[length:, length - 1] = False
            may.fill_diagonal_(True)
            mask = torch.zeros(may.shape, dtype=given.query.dtype, device=device)
            self._masks[given.may_attend] = mask.masked_fill_(~may, -torch.inf)
        mask = self._masks[given.may_attend]
        if mask.device != given.query.device:
            mask = self._masks[given.may_attend] = mask.to(given.query.device)
        return mask


class _End(Job):
    """What comes after the last block, for rows that have been through all of them."""

    def __init__(self, output: Tensor, last_layer: int, columns: Tensor | None) -> None:
        self.output = output
        self.last_layer = last_layer
        self.columns = columns

    def block(self, layer: int, run: Run, hidden: Tensor, call: Call) -> Any:
        """Nothing is computed."""
        return self.output if layer == self.last_layer else hidden
