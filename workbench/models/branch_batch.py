"""One forward of a batch of branches: copies of the prefix's end, or new tokens.

`Fresh` branches go through every layer, with these steps in each:

1. Attention gives a row the prefix's keys before its start, then its own (`_over_prefix`).
2. The edits of the layer replace what its heads put out (`attend`). Where an edit is an attention
   row, what the head puts out is that row times the values of the branch (`_resolved`).

`Copies` equal the prefix below their lowest edit. Rows are sorted by it, so those in the batch at a
layer are the first ones (`active`), followed by those that join there (`joining`):

3. A row that joins takes the residual stream that entered the prefix's block (`block`).
4. Its attention output in that layer is the prefix's, plus what the changes of z write through the
   output projection, which is linear (`_joined_output`); the rows below it take steps 1 and 2.
5. From there on it is a row like the others.
6. Where the last token alone is read, the last block first makes keys and values at every position
   (`_take_keys`), then runs on the last one alone.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from workbench.models.attention import Attention, MaskFunction
from workbench.models.branches import AnyEdit, Branch, Edit, PatternEdit, index_on
from workbench.models.hooked import HookedModel
from workbench.models.prefix import Prefix
from workbench.models.shared_attention import over_prefix
from workbench.models.steered import Call, Job, Run, Taken


@dataclass(frozen=True)
class _Edits:
    """Edits of one layer that cover the same positions."""

    rows: Int[Tensor, " edit"]
    heads: Int[Tensor, " edit"]
    positions: Int[Tensor, " position"]
    values: Float[Tensor, "edit position d_head"]

    @property
    def index(self) -> tuple[Tensor, Tensor, Tensor]:
        """Index of the values into [row, position, head]."""
        return self.rows[:, None], self.positions[None, :], self.heads[:, None]


def _edits(
    rows: Sequence[tuple[int, Edit]], length: int, like: Tensor, skipped: int = 0
) -> Iterator[_Edits]:
    """Edits of one layer in branches of this length, together where they cover the same positions.

    The first `skipped` positions are not computed: what is edited there is left out, and the others
    count from behind them.
    """

    def covered(row: tuple[int, Edit]) -> range:
        return range(length)[row[1].positions]

    def by_positions(row: tuple[int, Edit]) -> tuple[int, int, int]:
        positions = covered(row)
        return positions.start, positions.stop, positions.step

    for positions, same in groupby(sorted(rows, key=by_positions), key=covered):
        kept = [index for index, position in enumerate(positions) if position >= skipped]
        if not kept:
            continue
        at, edits = zip(*same, strict=True)
        values = torch.stack([edit.value.to(like) for edit in edits])
        yield _Edits(
            index_on(like.device, at),
            index_on(like.device, [edit.head for edit in edits]),
            index_on(like.device, [positions[index] - skipped for index in kept]),
            values if len(kept) == len(positions) else values[:, kept],
        )


class Fresh(Job):
    """Branches with tokens of their own, all of one length; they may start at different places."""

    def __init__(
        self,
        model: HookedModel,
        prefix: Prefix,
        branches: Sequence[Branch],
        columns: Tensor | None,
        last_only: bool,
    ) -> None:
        self.model = model
        self.prefix = prefix
        self.branches = branches
        self.columns = columns
        self.last_only = last_only
        self.length = len(branches[0].tokens)
        starts = [branch.start for branch in branches]
        self.one_start = len(set(starts)) == 1
        self.starts = starts[:1] if self.one_start else starts
        # Where all branches start at one place, the prefix behind it concerns none of them.
        self.shared = max(starts)
        self.edits: dict[int, list[tuple[int, AnyEdit]]] = {}
        for row, branch in enumerate(branches):
            for edit in branch.edits:
                self.edits.setdefault(edit.layer, []).append((row, edit))
        self._masks: dict[tuple[MaskFunction, int, torch.device], Tensor] = {}

    def run(self) -> list[Float[Tensor, "branch_position column"]]:
        """Logits of each branch, at its last token or at all."""
        positions = [self.length - 1] if self.last_only else list(range(self.length))
        tokens = torch.tensor([list(b.tokens) for b in self.branches], device=self.model.device)
        return self._logits(tokens, positions)

    def _logits(self, tokens: Tensor, positions: Sequence[int]) -> list[Tensor]:
        position_ids = torch.tensor(self.starts)[:, None] + torch.arange(self.length)
        logits = self.model.view.run(self, tokens, position_ids.to(self.model.device), positions)
        return list(logits)

    def attend(self, layer: int, given: Attention) -> Float[Tensor, "row position head d_head"]:
        """Over the prefix before the branch and the branch itself, then this layer's edits."""
        z = self._over_prefix(layer, given, given.key, given.value)  # step 1
        wanted = self._resolved(layer, self.edits.get(layer, ()), given.value)
        for edits in _edits(wanted, self.length, z):
            z[edits.index] = edits.values  # step 2
        return z

    def _over_prefix(self, layer: int, given: Attention, key: Tensor, value: Tensor) -> Tensor:
        """Attention of the last queries of a branch over the prefix and the branch's own keys."""
        mask = self._mask(given, key.shape[2])
        prefix_keys, prefix_values = self.prefix.keys[layer], self.prefix.values[layer]
        shared = prefix_keys[:, :, : self.shared], prefix_values[:, :, : self.shared]
        return over_prefix(given, shared, (key, value), mask)

    def _resolved(
        self,
        layer: int,
        edits: Sequence[tuple[int, AnyEdit]],
        own: Float[Tensor, "row kv_head position d_head"] | None,
    ) -> list[tuple[int, Edit]]:
        """Edits of z: attention rows times the values that each branch has (step 2).

        `own` are the values at the branches' positions; None where they are the prefix's still.
        """
        done = [(row, edit) for row, edit in edits if isinstance(edit, Edit)]
        same: dict[tuple[int, int, int], list[tuple[int, PatternEdit]]] = {}
        for row, edit in edits:
            if isinstance(edit, PatternEdit):
                start = self.branches[row].start
                same.setdefault((id(edit.rows), edit.head, start), []).append((row, edit))
        groups = self.model.info.n_heads // self.prefix.values[layer].shape[1]
        of_prefix = self.prefix.values[layer][0]
        for (_, head, start), alike in same.items():
            n_shared = start if own is not None else start + self.length
            weights, kv_head = alike[0][1].rows.to(of_prefix), head // groups
            z = weights[:, :n_shared] @ of_prefix[kv_head, :n_shared]
            rows = [row for row, _ in alike]
            z = z.expand(len(rows), -1, -1)
            if own is not None:
                z = z + weights[:, start:] @ own[rows, kv_head]
            done += [
                (row, Edit(layer, head, edit.positions, value))
                for (row, edit), value in zip(alike, z, strict=True)
            ]
        return done

    def _mask(self, given: Attention, own: int) -> Bool[Tensor, "#row query key"] | None:
        queries, device = given.query.shape[2], given.query.device
        if self.one_start and given.plain:
            return None
        known = given.may_attend, queries, device
        if known not in self._masks:
            starts = torch.tensor(self.starts, device=device)[:, None]
            shared = torch.arange(self.shared, device=device).expand(len(starts), -1)
            mine = starts + torch.arange(own, device=device)
            at = mine[:, own - queries :]
            before = given.mask(at, shared) & (shared < starts)[:, None]
            self._masks[known] = torch.cat([before, given.mask(at, mine)], dim=-1)
        return self._masks[known]


class Copies(Fresh):
    """Branches that repeat the prefix's end, sorted by the lowest layer they edit."""

    active = 0
    """Rows that joined below the layer that runs."""
    joining = 0
    """Rows that join there."""
    _last_keys: tuple[Tensor, Tensor] | None = None
    _want_keys = False

    @cached_property
    def joins(self) -> list[int]:
        """The layer where each row joins; one without edits still needs its logits."""
        last = self.model.info.n_layers - 1
        return [last if b.lowest_edit is None else b.lowest_edit for b in self.branches]

    def run(self) -> list[Float[Tensor, "branch_position column"]]:
        """Logits of each branch, at its last token or at all."""
        kept = 1 if self.last_only else self.length
        # Rows join later: what the model begins with only says how many positions come out.
        tokens = torch.tensor([list(self.branches[0].tokens[-kept:])], device=self.model.device)
        return self._logits(tokens, range(kept))

    def block(self, layer: int, run: Run, hidden: Tensor, call: Call) -> Any:
        """The rows that are in the batch by now and those that join here."""
        self.active = bisect_left(self.joins, layer)
        self.joining = bisect_right(self.joins, layer) - self.active
        if self.active + self.joining == 0:
            return hidden
        positions = self.length
        # Step 6.
        if layer == self.model.info.n_layers - 1 and self.last_only and self.length > 1:
            self._take_keys(run, hidden, call)
            hidden, call, positions = hidden[:, -1:], call.at(slice(-1, None), self.length), 1
        # Step 3.
        joined = self._recorded(self.prefix.residuals[layer], positions)
        joined = joined.expand(self.joining, -1, -1)
        rows = joined if not self.active else torch.cat([hidden, joined.to(hidden.device)])
        return run(rows, call)

    def _take_keys(self, run: Run, hidden: Tensor, call: Call) -> None:
        """Keys and values of the last block at every position, without the rest of the block."""
        if self.active:
            self._want_keys = True
            try:
                run(hidden, call)
            except Taken:
                pass
            finally:
                self._want_keys = False

    def _recorded(self, value: Tensor, positions: int) -> Tensor:
        """The part of something recorded that belongs to the branch's last positions."""
        return value[:, value.shape[1] - positions :]

    def attention_module(self, layer: int, run: Run, hidden: Tensor, call: Call) -> Any:
        """Computed for the rows that joined below, taken from the prefix for those that join."""
        if self._want_keys:
            return run(hidden, call)
        # Step 4: a part for the rows below, one for those that join.
        parts = [run(hidden[: self.active], call)[0]] if self.active else []
        if self.joining:
            parts.append(self._joined_output(layer, hidden.shape[1]))
        return torch.cat([part.to(parts[0].device) for part in parts]), None

    def _joined_output(
        self, layer: int, positions: int
    ) -> Float[Tensor, "joining position d_model"]:
        """What attention writes in rows that equal the prefix but for the heads edited here.

        The output projection is linear: the prefix's output plus what the changes of z write.
        """
        written = self.prefix.written[layer]
        output = self._recorded(written, positions).expand(self.joining, -1, -1).clone()
        z = self.prefix.z_by_layer[layer]
        weights = self.model.bridge.blocks[layer].attn.W_O
        joining = range(self.active, self.active + self.joining)
        for edits in self._edits_at(layer, joining, positions, z, None):
            before = z[len(z) - positions :][edits.positions][:, edits.heads].transpose(0, 1)
            change = (edits.values - before) @ weights[edits.heads].to(z)
            at = edits.rows[:, None] - self.active, edits.positions[None, :]
            output.index_put_(at, change.to(output), accumulate=True)
        return output

    def attend(self, layer: int, given: Attention) -> Float[Tensor, "row position head d_head"]:
        """As for new tokens; in the last block with all keys for the one query that is left."""
        if self._want_keys:
            self._last_keys = given.key, given.value
            raise Taken
        positions = given.query.shape[2]
        own = (given.key, given.value) if positions == self.length else self._last_keys
        assert own is not None, "the last block's keys are taken first"
        z = self._over_prefix(layer, given, *own)  # steps 1 and 2, for the rows below
        for edits in self._edits_at(layer, range(self.active), positions, z, own[1]):
            z[edits.index] = edits.values
        return z

    def _edits_at(
        self, layer: int, rows: range, positions: int, like: Tensor, own: Tensor | None
    ) -> Iterator[_Edits]:
        """Edits of a layer in some rows, of the last positions only, which count from there."""
        wanted = [row for row in self.edits.get(layer, ()) if row[0] in rows]
        wanted = self._resolved(layer, wanted, own)
        return _edits(wanted, self.length, like, skipped=self.length - positions)
