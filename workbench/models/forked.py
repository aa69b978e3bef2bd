"""Prefix sharing: one prefix and many branches in a single forward; patched heads as branches.

Everything that asks for "the same prompt again, but …" repeats the work of the prompt. Here the
prompt (the prefix) runs once. A branch starts at a prefix position with its own tokens; it attends
to the prefix before its start and to itself, never to another branch, and its positions continue
from the prefix. For a prefix of four tokens, a branch `a` of two tokens that starts at 3 and a
branch `b` of one token that starts at 4 (`#` may attend, `.` may not):

                    key      t0 t1 t2 t3 | a0 a1 | b0     position
        query  t0             #  .  .  . |  .  . |  .        0
               t1             #  #  .  . |  .  . |  .        1
               t2             #  #  #  . |  .  . |  .        2
               t3             #  #  #  # |  .  . |  .        3
               a0             #  #  #  . |  #  . |  .        3
               a1             #  #  #  . |  #  # |  .        4
               b0             #  #  #  # |  .  . |  #        4

1. The prefix runs once and keeps its keys and values (`prefix`).
2. Branches are rows of a batch; attention gives each row the prefix's keys before its start and its
   own (`branch_batch`, `shared_attention`). A rule of the architecture, a sliding window say,
   applies on top, by position.
3. A branch that repeats the prefix's end with some heads' `hook_z` replaced (a patch, an ablation)
   equals the prefix below the lowest layer that it edits. There it takes the prefix's residual
   stream and joins the batch; in that layer even attention is known, but for what the edited heads
   write.
4. With only the last token read, the last block runs on that token alone. Branches of one token
   then share one pass with their prefix, under the mask above (`one_sequence`). So patching every
   head at the decision costs about half a forward of as many tokens as the model has heads.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from workbench.errors import InputError
from workbench.heads import Head
from workbench.models.branch_batch import Copies, Fresh
from workbench.models.branch_check import check_layers
from workbench.models.branches import Branch, Edit, PatternEdit, check_branch
from workbench.models.hooked import HookedModel
from workbench.models.one_sequence import Together
from workbench.models.prefix import Prefix, run_prefix
from workbench.models.reference import run_separately
from workbench.models.shortcuts import supports

Group = Sequence[Head]
"""Heads that are patched together."""

FORKED = "forked forward"


@torch.no_grad()
def forked_forward(
    model: HookedModel,
    prefix: Sequence[int] | Prefix,
    branches: Sequence[Branch],
    *,
    columns: Sequence[int] | None = None,
    last_only: bool = False,
) -> list[Float[Tensor, "branch_position column"]]:
    """Logits at the tokens of every branch, or only at its last one.

    Equal to running `prefix[:start] + tokens` for each branch with its edits, which is what happens
    on a model that cannot fork (see `can_fork`). `columns` are the vocabulary entries wanted, all
    unless given. A `Prefix` saves running it again.

    Raises:
        InputError: a branch without tokens or outside the prefix, an edit outside its branch, or
            tokens that the model cannot run.
    """
    tokens = prefix.tokens if isinstance(prefix, Prefix) else list(prefix)
    for index, branch in enumerate(branches):
        check_branch(model, len(tokens), index, branch)
    different = {(branch.start, tuple(branch.tokens)) for branch in branches}
    model.check_sequences([[*tokens[:start], *added] for start, added in different])
    return _forked(model, prefix, branches, columns, last_only)


def _forked(
    model: HookedModel,
    prefix: Sequence[int] | Prefix,
    branches: Sequence[Branch],
    columns: Sequence[int] | None,
    last_only: bool,
) -> list[Tensor]:
    """`forked_forward` of branches that are known to fit."""
    if not branches:
        return []
    tokens = prefix.tokens if isinstance(prefix, Prefix) else list(prefix)
    wanted = None if columns is None else torch.tensor(list(columns), device=model.device)
    ends = [branch.start + len(branch.tokens) for branch in branches]
    if not can_fork(model, tokens, longest=max(ends)):
        return run_separately(model, tokens, branches, wanted, last_only)
    rotation = model.rotation(len(tokens))
    if any(model.rotation(end) != rotation for end in ends):
        # The prefix's keys are rotated otherwise than those of such a branch's own sequence.
        return run_separately(model, tokens, branches, wanted, last_only)
    if not isinstance(prefix, Prefix):
        # Step 4 of the module's docstring where all branches allow it, else step 1.
        if last_only and _one_pass(model, tokens, branches):
            return _in_one_sequence(model, tokens, branches, wanted)
        copied = max((len(b.tokens) for b in branches if _repeats(tokens, b)), default=0)
        prefix = run_prefix(model, tokens, copied)
    return _in_packs(model, prefix, branches, wanted, last_only)


def _repeats(tokens: Sequence[int], branch: Branch) -> bool:
    return list(branch.tokens) == list(tokens[branch.start :])


def _one_pass(model: HookedModel, tokens: Sequence[int], branches: Sequence[Branch]) -> bool:
    """Whether all branches repeat the last token alone, and fit into a forward with the prefix."""
    last = all(
        len(branch.tokens) == 1
        and _repeats(tokens, branch)
        and not any(isinstance(edit, PatternEdit) for edit in branch.edits)
        for branch in branches
    )
    return last and len(tokens) + len(branches) <= model.pack_budget.tokens


def _in_one_sequence(
    model: HookedModel, tokens: Sequence[int], branches: Sequence[Branch], columns: Tensor | None
) -> list[Tensor]:
    """Branches of the last token alone beside their prefix."""
    logits: dict[int, Tensor] = {}
    _run(
        model,
        branches,
        range(len(branches)),
        lambda pack: Together(model, tokens, pack, columns),
        logits,
    )
    return [logits[index] for index in range(len(branches))]


def _run(
    model: HookedModel,
    branches: Sequence[Branch],
    indices: Iterable[int],
    job: Callable[[list[Branch]], Together | Fresh],
    logits: dict[int, Tensor],
) -> None:
    """Add the logits of some branches, all of one length, in as many forwards as memory wants.

    Those that join late come last.
    """

    def join(index: int) -> int:
        low = branches[index].lowest_edit
        return model.info.n_layers if low is None else low

    def forward(pack: Sequence[int]) -> None:
        done = job([branches[index] for index in pack]).run()
        logits.update(zip(pack, done, strict=True))

    order = sorted(indices, key=join)
    model.pack_budget.run(order, len(branches[order[0]].tokens), forward)


def _in_packs(
    model: HookedModel,
    prefix: Prefix,
    branches: Sequence[Branch],
    columns: Tensor | None,
    last_only: bool,
) -> list[Tensor]:
    """Branches of a kind and length together."""
    logits: dict[int, Tensor] = {}
    kinds: dict[tuple[type[Copies] | type[Fresh], int], list[int]] = {}
    for index, branch in enumerate(branches):
        copies = _repeats(prefix.tokens, branch) and len(branch.tokens) <= prefix.recorded
        if copies and last_only and branch.lowest_edit is None:
            at = prefix.logits.device
            logits[index] = prefix.logits[None, slice(None) if columns is None else columns.to(at)]
        else:
            kind = Copies if copies else Fresh
            kinds.setdefault((kind, len(branch.tokens)), []).append(index)
    for (kind, _), indices in kinds.items():  # steps 2 and 3, a kind of rows at a time
        _run(
            model,
            branches,
            indices,
            lambda pack, kind=kind: kind(model, prefix, pack, columns, last_only),
            logits,
        )
    return [logits[index] for index in range(len(branches))]


def can_fork(model: HookedModel, tokens: Sequence[int], longest: int = 0) -> bool:
    """Whether forked forwards of this prompt give the model's own logits.

    Found out by a probe at the prompt's length, or at `longest` if a branch reaches further:
    branches that start at different places and branches with edits, also beside their prefix,
    against separate forwards. A bridge whose weights were processed has others than the view, so it
    cannot fork.
    """
    if model.bridge.compatibility_mode:
        return False
    missing = max(0, longest - len(tokens))
    whole = [*tokens, *list(tokens[:1]) * missing]
    return supports(model, FORKED, whole, lambda probed: _probe(model, probed))


@torch.no_grad()
def _probe(model: HookedModel, whole: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Edits in one layer of each kind, one in all layers at once, and two branches of new tokens.

    The first edit leaves the rows below it untouched, the others check attention over the prefix.
    Branches with edits repeat half of the prefix.
    """
    length = max(1, len(whole) - 2)
    tokens, end = list(whole[:length]), list(whole[length:]) or list(whole[-1:])
    recorded = (length + 1) // 2
    check_layers(model, tokens, recorded)
    prefix = run_prefix(model, tokens, recorded)
    layers = list(_one_layer_of_each_kind(model).values())
    sets = [*([layer] for layer in layers), range(model.info.n_layers)]
    branches = [
        Branch(
            length - recorded,
            tokens[length - recorded :],
            [
                Edit(layer, layer % model.info.n_heads, slice(None), 2 * z)
                for layer in at
                for z in [prefix.z_by_layer[layer][:, layer % model.info.n_heads]]
            ],
        )
        for at in sets
    ]
    decisions = [
        Branch(
            length - 1,
            tokens[-1:],
            [replace(e, value=e.value[-1:]) for e in branch.edits if isinstance(e, Edit)],
        )
        for branch in branches
    ]
    fresh = [Branch(start, end) for start in (length, length // 2)]
    alike = model.rotation(length)
    branches += [b for b in fresh if model.rotation(b.start + len(end)) == alike]
    quick = _in_packs(model, prefix, branches, None, True)
    quick += _in_one_sequence(model, tokens, decisions, None)
    plain = run_separately(model, tokens, [*branches, *decisions], None, True)
    return torch.cat(quick), torch.cat(plain)


def _one_layer_of_each_kind(model: HookedModel) -> dict[object, int]:
    """Kind of layer → the last such layer but the very last one, whose attention is left early."""
    kinds = getattr(model.text_config, "layer_types", None) or ["all"] * model.info.n_layers
    return {kind: layer for layer, kind in enumerate(kinds[:-1] or kinds)}


@torch.no_grad()
def patch_heads(
    model: HookedModel,
    base: Sequence[int] | Prefix,
    source: Float[Tensor, "layer position head d_head"],
    groups: Sequence[Group],
    *,
    tokens: Sequence[int] | None = None,
) -> Float[Tensor, "group output"]:
    """Logits at the last token of `base`, once per group of heads that are patched together.

    `source` is the other run's `hook_z` over its last `position` tokens; each group's heads get it
    over the last `position` tokens of `base`: 1 patches at the decision only, the length of the
    aligned suffix patches the whole span. An empty group is the unpatched run. With `tokens`, only
    those columns of the logits. A `Prefix` of `base` saves running it again.

    Raises:
        InputError: an empty prompt or a source longer than it, a source of another model's shape,
            or a head that is not in the model.
    """
    prompt = base.tokens if isinstance(base, Prefix) else list(base)
    _check_patch(model, prompt, source, groups)
    if not groups:
        width = model.info.d_vocab if tokens is None else len(tokens)
        return torch.zeros(0, width, device=model.device)
    start = len(prompt) - source.shape[1]
    end, whole = prompt[start:], slice(None)
    values = [layer.unbind(1) for layer in source.unbind()]
    branches = [
        Branch(
            start,
            end,
            [Edit(*head, whole, values[head[0]][head[1]]) for head in dict.fromkeys(group)],
        )
        for group in groups
    ]
    return torch.cat(_forked(model, base, branches, tokens, True))


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
