"""One trunk and many branches in a single forward; patched heads as branches.

Everything that asks for "the same prompt again, but …" repeats the work of the prompt. Here the
prompt (the trunk) runs once. A branch starts at a trunk position with its own tokens; it attends to
the trunk before its start and to itself, never to another branch, and its positions continue from
the trunk. Three things make that one ordinary forward: the tokens one after the other, an explicit
4-D attention mask, explicit position ids. For a trunk of four tokens, a branch of two tokens that
starts at 3 and a branch of one token that starts at 4 (`#` may attend, `.` may not):

                    key      t0 t1 t2 t3 | a0 a1 | b0     position
        query  t0             #  .  .  . |  .  . |  .        0
               t1             #  #  .  . |  .  . |  .        1
               t2             #  #  #  . |  .  . |  .        2
               t3             #  #  #  # |  .  . |  .        3
               a0             #  #  #  . |  #  . |  .        3
               a1             #  #  #  . |  #  # |  .        4
               b0             #  #  #  # |  .  . |  #        4

Edits of `hook_z` apply to the rows of one branch only. So a sweep over heads at the decision token
is one forward: the trunk is the prompt without its last token, and every head (or set of heads) has
a branch that is a copy of the last token. A patch over a longer span would copy the span into every
branch; there, rows of a batch that skip the layers below the patch are cheaper (`rows`).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

import torch
from jaxtyping import Float, Int
from torch import Tensor

from workbench.errors import InputError
from workbench.models.hooked import Head, HookedModel
from workbench.models.hooks import Hook, replace_z
from workbench.models.rows import Group, patch_rows


@dataclass(frozen=True)
class Edit:
    """Replacement of one head's `hook_z` at positions of a branch (counted within the branch)."""

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


@torch.no_grad()
def forked_forward(
    model: HookedModel, trunk: Sequence[int], branches: Sequence[Branch]
) -> list[Float[Tensor, "branch_position d_vocab"]]:
    """Logits at every token of every branch, all in one forward.

    Equal to running `trunk[:start] + tokens` for each branch, on models that take a 4-D mask and
    position ids (see `can_fork`). The trunk itself is not unembedded.

    Raises:
        InputError: a branch without tokens or outside the trunk, an edit outside its branch, or
            tokens that the model cannot run.
    """
    for index, branch in enumerate(branches):
        _check_branch(model, len(trunk), index, branch)
    model.check_sequences([[*trunk[: branch.start], *branch.tokens] for branch in branches])
    return _forward(model, trunk, branches) if branches else []


def _forward(model: HookedModel, trunk: Sequence[int], branches: Sequence[Branch]) -> list[Tensor]:
    lengths = [len(branch.tokens) for branch in branches]
    offsets = list(accumulate(lengths, initial=len(trunk)))
    tokens = [*trunk, *(token for branch in branches for token in branch.tokens)]
    logits = model.logits_at(
        torch.tensor([tokens], device=model.device),
        range(len(trunk), len(tokens)),
        _edit_hooks(branches, offsets),
        attention_mask=fork_mask(len(trunk), branches, model.dtype).to(model.device),
        position_ids=_positions(len(trunk), branches).to(model.device),
    )
    return list(logits[0].split(lengths))


def fork_mask(
    trunk_length: int, branches: Sequence[Branch], dtype: torch.dtype
) -> Float[Tensor, "1 1 query key"]:
    """Additive attention mask of a trunk and its branches: 0 where a query may attend.

    Elsewhere the lowest number of the dtype; minus infinity would turn a row without any allowed
    key into NaN.
    """
    owner = [-1] * trunk_length  # -1: the trunk
    start = [0] * trunk_length
    for index, branch in enumerate(branches):
        owner += [index] * len(branch.tokens)
        start += [branch.start] * len(branch.tokens)
    owners, starts, index = torch.tensor(owner), torch.tensor(start), torch.arange(len(owner))
    causal = index[:, None] >= index[None, :]
    itself = (owners[:, None] == owners[None, :]) & causal
    before = (owners[None, :] == -1) & (index[None, :] < starts[:, None])
    mask = torch.zeros(len(owner), len(owner), dtype=dtype)
    return mask.masked_fill(~(itself | before), torch.finfo(dtype).min)[None, None]


def _positions(trunk_length: int, branches: Sequence[Branch]) -> Int[Tensor, "1 query"]:
    parts = [torch.arange(trunk_length)]
    parts += [branch.start + torch.arange(len(branch.tokens)) for branch in branches]
    return torch.cat(parts)[None]


def _edit_hooks(branches: Sequence[Branch], offsets: Sequence[int]) -> list[Hook]:
    """One hook per edited layer, which sets all branches' edits there at once."""
    by_layer: dict[int, list[tuple[Tensor, Edit]]] = {}
    for branch, offset in zip(branches, offsets, strict=False):  # one offset more: the end
        positions = offset + torch.arange(len(branch.tokens))
        for edit in branch.edits:
            by_layer.setdefault(edit.layer, []).append((positions[edit.positions], edit))
    hooks = []
    for layer, edits in by_layer.items():
        positions = torch.cat([where for where, _ in edits])
        heads = torch.cat([torch.full_like(where, edit.head) for where, edit in edits])
        values = torch.cat([edit.value for _, edit in edits])
        index = (0, positions.to(values.device), heads.to(values.device))
        hooks.append(replace_z(layer, index, values))
    return hooks


def _check_branch(model: HookedModel, trunk_length: int, index: int, branch: Branch) -> None:
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


def can_fork(model: HookedModel, length: int) -> bool:
    """Whether a forked forward gives this model's own logits for prompts of this length.

    Probed once per model. A layer with a sliding window would ignore the window under an explicit
    mask, so there the prompt must fit into it.
    """
    for name in ("sliding_window", "attention_chunk_size"):
        window = getattr(model.text_config, name, None)
        if window is not None and length > window:
            return False
    return model.supports("forked forward", lambda: _fork_probe(model))


def _fork_probe(model: HookedModel) -> tuple[Tensor, Tensor]:
    """Two branches that start at different places, against two separate forwards."""
    tokens = [index % model.info.d_vocab for index in range(12)]
    trunk, branches = tokens[:9], [Branch(9, tokens[:8:-1]), Branch(5, tokens[:2])]
    plain = model.run([[*trunk[: branch.start], *branch.tokens] for branch in branches])
    if not model.accepts("position_ids"):
        raise TypeError("its forward takes no position_ids")
    quick = forked_forward(model, trunk, branches)
    return torch.stack([one[-1] for one in quick]), torch.stack([run.logits for run in plain])


@torch.no_grad()
def patch_heads(
    model: HookedModel,
    base: Sequence[int],
    source: Float[Tensor, "layer position head d_head"],
    groups: Sequence[Sequence[Head]],
    *,
    row_tokens: int | None = None,
    tokens: Sequence[int] | None = None,
) -> Float[Tensor, "group output"]:
    """Logits at the last token of `base`, once per group of heads that are patched together.

    `source` is the other run's `hook_z` over its last `position` tokens; each group's heads get it
    over the last `position` tokens of `base`: 1 patches at the decision only, the length of the
    aligned suffix patches the whole span. An empty group is the unpatched run. With `tokens`, only
    those columns of the logits. `row_tokens` bounds the tokens of one batch, hence memory; unless
    given it is 1,024 on a CPU, whose caches more would overflow, and 16,384 elsewhere.

    Raises:
        InputError: an empty prompt or a source longer than it, a source of another model's shape,
            or a head that is not in the model.
    """
    _check_patch(model, base, source, groups)
    columns = slice(None) if tokens is None else list(tokens)
    if not groups:
        return torch.zeros(0, model.info.d_vocab, device=model.device)[:, columns]
    row_tokens = row_tokens or (1024 if model.device.type == "cpu" else 16384)
    if source.shape[1] == 1 and can_fork(model, len(base)):
        logits = _patch_decision(model, base, source, groups, row_tokens)
    else:
        logits = patch_rows(model, base, source, groups, row_tokens=row_tokens)
    return logits[:, columns]


def _patch_decision(
    model: HookedModel,
    base: Sequence[int],
    source: Tensor,
    groups: Sequence[Group],
    row_tokens: int,
) -> Tensor:
    """A branch per group. A forward holds at most four branches per trunk token.

    Attention scores grow with the square of trunk plus branches; another trunk costs less.
    """
    at_once = max(64, min(4 * len(base), row_tokens - len(base)))
    logits = []
    for first in range(0, len(groups), at_once):
        branches = [
            Branch(
                start=len(base) - 1,
                tokens=base[-1:],
                edits=[Edit(at[0], at[1], slice(0, 1), source[at[0], :, at[1]]) for at in group],
            )
            for group in groups[first : first + at_once]
        ]
        logits += _forward(model, base[:-1], branches)
    return torch.cat(logits)


def _check_patch(
    model: HookedModel, base: Sequence[int], source: Tensor, groups: Sequence[Group]
) -> None:
    model.check_sequences([base])
    info = model.info
    layers, positions, heads, d_head = source.shape
    if (layers, heads, d_head) != (info.n_layers, info.n_heads, info.d_head):
        raise InputError(
            f"source has {layers} layers, {heads} heads of width {d_head}; model {info.name!r} has "
            f"{info.n_layers}, {info.n_heads} of width {info.d_head}"
        )
    if not 1 <= positions <= len(base):
        raise InputError(f"source covers {positions} positions, the prompt has {len(base)} tokens")
    for group in groups:
        for layer, head in group:
            model.check_head(layer, head)
