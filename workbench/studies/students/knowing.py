"""What single heads know: whether the right options can be read from what a head writes in a chain.

A linear probe (ridge, folds of whole prompts) reads a head's output just before the last token of a
step, and half way through it, where a step shortlists or weighs candidates. Of steps that shortlist
the options to be read are gold and its near misses, of those that weigh them gold alone. The value
is the area under the ROC curve over the options of a prompt, mean over steps: 0.5 for a head that
knows nothing.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import pandas as pd
import torch
from jaxtyping import Float, Int
from torch import Tensor

from workbench.distill.reading.parts import attention_modules, output_module, shape_of
from workbench.errors import InputError
from workbench.progress import Advance
from workbench.prompts.text import tokenize

RIDGE = 1.0
"""Penalty, in units of the features' mean variance times the number of samples."""
FOLDS = 8
COLUMNS = ["layer", "head", "early", "late", "n_early", "n_late"]
Step = tuple[int, int, list[int]]
"""Token before whose last and middle tokens it is read, and the options that are right."""


@torch.no_grad()
def knowing(
    model: Any,
    tokenizer: Any,
    rows: Sequence[Mapping[str, Any]],
    *,
    progress: Advance | None = None,
) -> pd.DataFrame:
    """Columns layer, head, early, late (areas under the curve), n_early, n_late (steps).

    Args:
        model: a causal language model of transformers; it runs where it is, one row at a time.
        tokenizer: its own, of the fast kind.
        rows: with `early` and `late` (which say their decision), `gold`, `near_options` and
            `options`.
        progress: called with rows done and all.

    Raises:
        InputError: rows without these, or fewer than two for each fold.
    """
    if len(rows) < 2 * FOLDS:
        raise InputError(f"{len(rows)} rows, a probe needs at least {2 * FOLDS}")
    shape = shape_of(model)
    outputs = [output_module(one) for one in attention_modules(model)[0]]
    n_options = max(len(row["options"]) for row in rows)
    found: dict[str, list[Tensor]] = {"early": [], "late": []}
    wanted: dict[str, list[Tensor]] = {"early": [], "late": []}
    folds: dict[str, list[int]] = {"early": [], "late": []}
    for number, row in enumerate(rows):
        ids, steps = _steps(tokenizer, row)
        read: list[Tensor] = []
        places = torch.tensor([at for kind in steps for step in steps[kind] for at in step[:2]])
        keep = partial(_keep, read, places)
        hooks = [one.register_forward_pre_hook(keep) for one in outputs if one is not None]
        try:
            model(input_ids=torch.tensor([ids], device=model.device), use_cache=False)
        finally:
            for hook in hooks:
                hook.remove()
        z = torch.stack(read).float().cpu().unflatten(-1, (shape.n_heads, -1))
        z = z.unflatten(1, (-1, 2)).permute(1, 0, 3, 2, 4)  # step, layer, head, place, channel
        at = 0
        for kind, some in steps.items():
            for step in some:
                target = torch.zeros(n_options)
                target[step[2]] = 1
                found[kind].append(z[at])
                wanted[kind].append(target)
                folds[kind].append(number % FOLDS)
                at += 1
        if progress:
            progress(number + 1, len(rows))
    layers = [layer for layer in range(shape.n_layers) for _ in range(shape.n_heads)]
    table: dict[str, Any] = {"layer": layers, "head": list(range(shape.n_heads)) * shape.n_layers}
    for kind in found:
        z = torch.stack(found[kind]).flatten(1, 2)
        target, fold = torch.stack(wanted[kind]), torch.tensor(folds[kind])
        values = [
            sum(read_area(z[:, head, place], target, fold) for place in (0, 1)) / 2
            for head in range(z.shape[1])
        ]
        table |= {kind: values, f"n_{kind}": len(target)}
    return pd.DataFrame(table, columns=COLUMNS)


def _keep(read: list[Tensor], places: Tensor, module: Any, args: tuple[Tensor]) -> None:
    read.append(args[0][0, places])


def read_area(
    features: Float[Tensor, "sample channel"],
    target: Float[Tensor, "sample option"],
    fold: Int[Tensor, " sample"],
) -> float:
    """Area under the curve of a ridge probe's scores on folds that it was not fitted on."""
    scores = torch.zeros_like(target)
    for one in fold.unique():
        fitted = fold != one
        mean = features[fitted].mean(dim=0)
        x, rest = features[fitted] - mean, features[~fitted] - mean
        prior = target[fitted].mean(dim=0)
        gram = x.T @ x
        penalty = RIDGE * gram.diagonal().mean().clamp(min=1e-12)
        solved = torch.linalg.solve(
            gram + penalty * torch.eye(len(gram)), x.T @ (target[fitted] - prior)
        )
        scores[~fitted] = rest @ solved  # without the prior: what the head adds
    return float(_area(scores, target).mean())


def _area(
    scores: Float[Tensor, "sample option"], target: Float[Tensor, "sample option"]
) -> Float[Tensor, " sample"]:
    above = (scores[:, :, None] > scores[:, None, :]).float()
    above += 0.5 * (scores[:, :, None] == scores[:, None, :])
    pairs = target[:, :, None] * (1 - target[:, None, :])
    return (above * pairs).sum(dim=(1, 2)) / pairs.sum(dim=(1, 2)).clamp(min=1)


def _steps(tokenizer: Any, row: Mapping[str, Any]) -> tuple[list[int], dict[str, list[Step]]]:
    """Token ids of prompt and chain, and the steps that shortlist and that weigh."""
    for key in ("early", "late", "gold", "near_options", "options"):
        if key not in row:
            raise InputError(f"a row has no {key!r}; a probe needs rows with all places")
    start = len(row["prompt"])
    text = tokenize(tokenizer, row["prompt"] + row["chain"])

    def places(span: Sequence[int]) -> tuple[int, int]:
        first, end = text.token_span((span[0] + start, span[1] + start))
        return end - 2, (first + end) // 2 - 1

    decided = {
        decision: [row["gold"][decision], *row["near_options"][decision]]
        for decision in range(len(row["gold"]))
        if row["gold"][decision] is not None
    }
    found: dict[str, list[Step]] = {"early": [], "late": []}
    for one in row["early"]:
        if one["decision"] in decided:
            found["early"].append((*places(one["span"]), decided[one["decision"]]))
    for one in row["late"]:
        if one["decision"] in decided:
            found["late"].append((*places(one["span"]), decided[one["decision"]][:1]))
    return list(text.tokens), found
