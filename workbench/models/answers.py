"""Questions to one prompt that are branches: how likely is each text, what if it stopped here.

Both run the prompt once, whatever the number of options or stops.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from workbench.errors import InputError
from workbench.models.branches import Branch
from workbench.models.forked import forked_forward
from workbench.models.hooked import HookedModel


@torch.no_grad()
def option_log_probs(
    model: HookedModel, prompt: Sequence[int], options: Sequence[Sequence[int]]
) -> Float[Tensor, " option"]:
    """log p(option | prompt), summed over the tokens of each option, in float32.

    Raises:
        InputError: an empty prompt or option, or tokens that the model cannot run.
    """
    if not prompt:
        raise InputError("options need a prompt of at least one token")
    for index, option in enumerate(options):
        if not option:
            raise InputError(f"option {index} has no tokens")
    model.check_sequences([[*prompt, *option] for option in options])
    # A token is predicted by the one before it, so a branch holds the prompt's last token too.
    branches = [Branch(len(prompt) - 1, [prompt[-1], *option[:-1]]) for option in options]
    totals = []
    for option, logits in zip(options, forked_forward(model, prompt, branches), strict=True):
        tokens = torch.tensor(list(option), device=logits.device)
        totals.append(logits.float().log_softmax(dim=-1).gather(1, tokens[:, None]).sum())
    return torch.stack(totals) if totals else torch.zeros(0, device=model.device)


def early_answers(
    model: HookedModel,
    tokens: Sequence[int],
    ends: Sequence[int],
    cue: Sequence[int],
    columns: Sequence[int],
) -> Float[Tensor, "end column"]:
    """Logits of some tokens after `tokens[:end] + cue`, for each end.

    With a chain of thought in `tokens` and the cue that asks for the answer, this is what the model
    would answer after each step.

    Raises:
        InputError: an end outside the sequence, or tokens that the model cannot run.
    """
    branches = []
    for end in ends:
        if not 1 <= end <= len(tokens):
            raise InputError(f"end {end} is outside the sequence of {len(tokens)} tokens")
        # Without a cue, the last token itself is asked once more.
        start, asked = (end, cue) if cue else (end - 1, [tokens[end - 1]])
        branches.append(Branch(start, asked))
    if not branches:
        return torch.zeros(0, len(columns), device=model.device)
    return torch.cat(forked_forward(model, tokens, branches, columns=columns, last_only=True))
