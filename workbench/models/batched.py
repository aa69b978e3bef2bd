"""Runs of sequences of different lengths, in batches whose padding changes nothing."""

import difflib
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from workbench.errors import InputError
from workbench.models.hooks import store
from workbench.models.shortcuts import supports

if TYPE_CHECKING:
    from workbench.models.hooked import HookedModel

PATTERNS = ("hook_pattern", "hook_attn_scores")
SIDE_BY_SIDE = "run of sequences side by side"


@dataclass(frozen=True)
class Run:
    """One sequence's logits at its last token and its named activations.

    Activations have no batch axis and no padding: a position axis has the sequence's own length
    (attention patterns and scores: both the query and the key axis).
    """

    logits: Float[Tensor, " d_vocab"]
    activations: dict[str, Tensor]


def run_sequences(
    model: "HookedModel",
    sequences: Sequence[Sequence[int]],
    names: Collection[str],
    batch_size: int,
) -> list[Run]:
    """As `HookedModel.run`, of token sequences and names of hooks that the model can run.

    Raises:
        InputError: logits that are no numbers, or a hook that does not fire.
    """
    probe = partial(_side_by_side, model)
    runs: dict[int, Run] = {}
    for indices in _batches(model, sequences, batch_size):
        batch = [sequences[index] for index in indices]
        if len(batch) > 1 and not supports(model, SIDE_BY_SIDE, batch[-1], probe):
            done = [run for one in batch for run in _run_batch(model, [one], names)]
        else:
            done = _run_batch(model, batch, names)
        _check_numbers(model, indices, done)
        runs.update(zip(indices, done, strict=True))
    return [runs[index] for index in range(len(sequences))]


def _check_numbers(model: "HookedModel", indices: Sequence[int], runs: Sequence[Run]) -> None:
    """Half precision can overflow on some prompts only, later than loading would see."""
    for index, run in zip(indices, runs, strict=True):
        if run.logits.isnan().any():
            raise InputError(
                f"sequence {index}: model {model.info.name!r} gives logits in "
                f"{model.info.dtype} that are no numbers; float32 may hold what overflows"
            )


def _batches(
    model: "HookedModel", sequences: Sequence[Sequence[int]], size: int
) -> Iterator[list[int]]:
    """Indices of sequences of similar length, which are rotated alike."""
    order = sorted(range(len(sequences)), key=lambda index: len(sequences[index]))
    for _, alike in groupby(order, key=lambda index: model.rotation(len(sequences[index]))):
        indices = list(alike)
        yield from (indices[start : start + size] for start in range(0, len(indices), size))


def _side_by_side(model: "HookedModel", tokens: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Logits of a sequence and a shorter one in one batch, and each by itself."""
    shorter = len(tokens) * 3 // 4
    if model.rotation(shorter) != model.rotation(len(tokens)):
        shorter = len(tokens)
    both = [tokens, tokens[-shorter:]]
    quick = _run_batch(model, both, ())
    plain = [run for one in both for run in _run_batch(model, [one], ())]
    together, alone = (torch.stack([run.logits for run in runs]) for runs in (quick, plain))
    return together, alone


def _run_batch(
    model: "HookedModel", batch: Sequence[Sequence[int]], names: Collection[str]
) -> list[Run]:
    tokens = pad_sequence([torch.tensor(list(one)) for one in batch], batch_first=True)
    lengths = torch.tensor([len(sequence) for sequence in batch])
    mask = (torch.arange(tokens.shape[1]) < lengths[:, None]).long().to(model.device)
    stored: dict[str, Tensor] = {}
    last = sorted({len(sequence) - 1 for sequence in batch})
    logits = model.logits_at(
        tokens.to(model.device),
        last,
        [store(name, stored) for name in names],
        attention_mask=mask,
        position_ids=(mask.cumsum(-1) - 1).clamp(min=0),
    )
    silent = [name for name in names if name not in stored]
    if silent:
        raise InputError(f"hook {silent[0]!r} exists but does not fire in this model's forward")
    return [
        Run(
            logits=logits[row, last.index(len(sequence) - 1)],
            activations={
                name: _one_sequence(model, name, stored[name], row, len(sequence)) for name in names
            },
        )
        for row, sequence in enumerate(batch)
    ]


def _one_sequence(model: "HookedModel", name: str, value: Tensor, row: int, length: int) -> Tensor:
    """Row `row` without padding. Size 1 on the batch axis: one value shared by all rows."""
    value = value[row] if value.shape[0] > 1 else value[0]
    if name.endswith(PATTERNS):
        return value[..., :length, :length]
    # Hooks with an unusual layout declare their position axis, counted with the batch axis.
    declared = getattr(model.bridge.hook_dict[name], "pos_dim", None)
    axis = 0 if declared is None else declared - 1 if declared > 0 else declared
    return value.narrow(axis, 0, length)


def check_names(model: "HookedModel", names: Collection[str]) -> None:
    """Refuse what is no hook of the model.

    Raises:
        InputError: with the name, and one that is like it.
    """
    known = model.bridge.hook_dict
    for name in names:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise InputError(f"{name!r} is no hook of model {model.info.name!r}{hint}")


def check_sequences(model: "HookedModel", sequences: Sequence[Sequence[int]]) -> None:
    """As `HookedModel.check_sequences`."""
    longest = model.context_length
    for index, sequence in enumerate(sequences):
        if not sequence:
            raise InputError(f"sequence {index} is empty")
        if longest is not None and len(sequence) > longest:
            raise InputError(
                f"sequence {index} has {len(sequence)} tokens, the model takes {longest}"
            )
        if min(sequence) < 0 or max(sequence) >= model.info.d_vocab:
            raise InputError(
                f"sequence {index} has token ids {min(sequence)}..{max(sequence)}, "
                f"the vocabulary is 0..{model.info.d_vocab - 1}"
            )


def token_rows(model: "HookedModel", given: Any) -> list[Sequence[int]]:
    """Texts and rows of numbers, also of a tensor, as rows of tokens.

    Raises:
        InputError: something else, or a text where the model has no tokenizer.
    """
    given = given if hasattr(given, "__iter__") and not isinstance(given, str) else [given]
    rows = [one.tolist() if hasattr(one, "tolist") else one for one in given]
    if strange := [one for one in rows if not isinstance(one, str | list | tuple)]:
        raise InputError(
            f"a sequence is {type(strange[0]).__name__}; texts or lists of token ids are "
            "needed, [[1, 2]] for one list alone"
        )
    return [model.to_tokens(one) if isinstance(one, str) else one for one in rows]
