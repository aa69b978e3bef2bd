"""The loss at the decision: which options are right, among those that are shown."""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from workbench.predicting.adapting.config import Golds


def listwise_loss(
    logits: Float[Tensor, "example d_vocab"],
    options: Int[Tensor, "example option"],
    right: Bool[Tensor, "example option"],
    *,
    golds: Golds = "each",
    written: float = 0.0,
) -> Float[Tensor, ""]:
    """Mean over examples of the listwise loss plus `written` times -log p(some option).

    With p the softmax over the options' tokens, "each" is the mean of -log p over right options,
    "any" is -log of the sum of their p: the "pick all labels" reductions of Menon, Rawat, Reddi &
    Kumar (2019), with and without weights that sum to one for a document. p(some option) is of the
    softmax over the whole vocabulary.

    Args:
        logits: at the decision.
        options: their tokens; -1 where an example has fewer.
        right: which of them are right; one at least in each example.
        golds: what is learned of several.
        written: weight of the second part.
    """
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    chosen = logits.gather(1, options.clamp(min=0)).masked_fill(options < 0, -torch.inf)
    total = chosen.logsumexp(1)
    log_p = chosen - total[:, None]
    if golds == "each":
        loss = -log_p.masked_fill(~right, 0).sum(1) / right.sum(1)
    else:
        loss = -log_p.masked_fill(~right, -torch.inf).logsumexp(1)
    return (loss + written * (logits.logsumexp(1) - total)).mean()
