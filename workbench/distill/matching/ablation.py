"""Matching heads by what their ablation does, for the circuit baseline."""

from collections.abc import Iterator, Mapping, Sequence
from functools import partial

import torch
from jaxtyping import Float
from scipy.optimize import linear_sum_assignment
from torch import Tensor
from transformers import PreTrainedModel

from workbench.distill.losses.losses import chain_loss
from workbench.distill.reading.parts import attention_modules, output_module, shape_of
from workbench.errors import InputError
from workbench.heads import Head

ROOM = 2**26
"""Logits that there may be at a time: 256 MiB, and a few times that while the loss is taken."""


@torch.no_grad()
def ablation_effects(
    model: PreTrainedModel, batches: Sequence[Mapping[str, Tensor]]
) -> Float[Tensor, "layer head"]:
    """How much the loss on chain and answer rises, in nats a token, when a head writes nothing.

    A forward of every batch for every head, and one more. The model is set to evaluation for it.
    """
    training = model.training
    model.eval()
    try:
        shape = shape_of(model)
        whole = _loss(model, batches)
        effects = torch.zeros(shape.n_layers, shape.n_heads)
        for layer, attention in enumerate(attention_modules(model)[0]):
            for head in range(shape.n_heads):
                silence = partial(_silence, head, shape.n_heads)
                output = output_module(attention)
                assert output is not None
                with output.register_forward_pre_hook(silence):
                    effects[layer, head] = _loss(model, batches) - whole
    finally:
        model.train(training)
    return effects


def _silence(head: int, n_heads: int, module: object, args: tuple[Tensor]) -> tuple[Tensor]:
    """Hook that sets one head's output to 0 before the output module."""
    z = args[0].unflatten(-1, (n_heads, -1)).clone()
    z[..., head, :] = 0
    return (z.flatten(-2),)


def _loss(model: PreTrainedModel, batches: Sequence[Mapping[str, Tensor]]) -> float:
    total = count = 0.0
    for batch in batches:
        for ids, labels, weights in _parts(batch, model.config.get_text_config().vocab_size):
            ids, labels, weights = (x.to(model.device) for x in (ids, labels, weights))
            loss = chain_loss(model(input_ids=ids, use_cache=False).logits, labels, weights)
            total, count = total + float(loss.total), count + float(loss.count)
    return total / count


def _parts(batch: Mapping[str, Tensor], n_vocab: int) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Tokens, labels and weights of as many examples as have room for their logits."""
    together = max(1, ROOM // (batch["input_ids"].shape[1] * n_vocab))
    names = ("input_ids", "labels", "weights")
    yield from zip(*(batch[name].split(together) for name in names), strict=True)


def match_by_ablation(
    teacher: Float[Tensor, "teacher_layer teacher_head"],
    student: Float[Tensor, "student_layer student_head"],
    n: int,
) -> tuple[tuple[Head, Head], ...]:
    """Pair the `n` teacher heads of the largest effect with student heads of a like effect.

    Effects are divided by the largest of their model, since the two models' losses differ; the
    pairing has the least sum of differences and uses each student head once. After Circuit
    Distillation (Wadhwa et al. 2025), whose idea it is; the details are this project's.

    Raises:
        InputError: `n` is below 1 or above the number of heads of either model.
    """
    most = min(teacher.numel(), student.numel())
    if not 1 <= n <= most:
        raise InputError(f"{n} heads to match by ablation effect, must be from 1 to {most}")
    theirs, ours = (x / x.abs().max().clamp(min=1e-12) for x in (teacher, student))
    strongest = theirs.flatten().argsort(descending=True, stable=True)[:n]
    costs = (theirs.flatten()[strongest][:, None] - ours.flatten()[None]).abs()
    rows, columns = linear_sum_assignment(costs.numpy())
    return tuple(
        (divmod(int(strongest[row]), teacher.shape[1]), divmod(int(column), student.shape[1]))
        for row, column in zip(rows, columns, strict=True)
    )
