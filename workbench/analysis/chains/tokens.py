"""Focus and Confusion along the tokens of a chain of thought, as the model reads it.

A chain makes decisions of its own: the letters of a coarse step, the letter at the end of a fine
one. Here the next-token distribution over the options' tokens is read at each token that the chain
goes on to write.
"""

from collections.abc import Iterator, Sequence

import pandas as pd
import torch

from workbench.analysis.chains.trajectories import groups, means, readout_columns
from workbench.analysis.readout import Roles, focus_confusion, widen
from workbench.errors import InputError
from workbench.models.hooked import HookedModel
from workbench.processes import Spread, in_order
from workbench.prompts.chain import Chain, ChainCase


@torch.no_grad()
def token_values(
    model: HookedModel,
    cases: Sequence[ChainCase],
    *,
    source: str = "given",
    stages: Sequence[str] = ("coarse", "fine"),
    spread: Spread = in_order,
) -> pd.DataFrame:
    """The options' share of the next token at every token of some steps of the clean chain.

    One row per token that the chain writes in a step of these stages, read at the token before it.
    Columns: model, source, id, event, step, label, place (the written token, counted back from the
    step's end: -1 is its last), focus, confusion, mass (probability of all options' tokens
    together: near 1 where a letter is due, near 0 inside a description), writes_option (whether the
    chain goes on with one). One plain forward a case; several processes `spread` them. Only options
    of one token can be read.

    Raises:
        InputError: an option of several tokens, or tokens that the model cannot run.
    """

    def values(some: Sequence[ChainCase]) -> Iterator[pd.DataFrame]:
        return (_case_values(model, case, source, stages) for case in some)

    frames = [frame for frame in spread(values, cases) if len(frame)]
    if not frames:
        raise InputError(f"no chain has a step of the stages {', '.join(stages)}")
    return pd.concat(frames, ignore_index=True)


def _case_values(
    model: HookedModel, case: ChainCase, source: str, stages: Sequence[str]
) -> pd.DataFrame:
    chain, options = case.clean, case.option_tokens()
    if any(len(option) != 1 for option in options):
        raise InputError(
            f"prompt {case.event.id!r} event {case.event.event}: options of several tokens "
            "cannot be read inside a chain"
        )
    places = _places(chain, stages)
    if not places:
        return pd.DataFrame()
    columns = [option[0] for option in options]
    sequence = chain.up_to(chain.n_steps)
    model.check_sequences([sequence])
    before = [len(chain.question) + at - 1 for at, _, _ in places]
    ids = torch.tensor([sequence], device=model.device)
    log_probs = widen(model.logits_at(ids, before)[0]).log_softmax(-1)[:, columns]
    log_probs = log_probs.cpu().double()
    focus, confusion = focus_confusion(log_probs, Roles.of(case.event))
    written = [chain.tokens[at] for at, _, _ in places]
    return pd.DataFrame(
        {
            "model": model.info.name,
            "source": source,
            "id": case.event.id,
            "event": case.event.event,
            "step": [step for _, step, _ in places],
            "label": [chain.stages[step - 1] for _, step, _ in places],
            "place": [back for _, _, back in places],
            "focus": focus.numpy(),
            "confusion": confusion.numpy(),
            "mass": log_probs.exp().sum(-1).numpy(),
            "writes_option": [token in columns for token in written],
        }
    )


def _places(chain: Chain, stages: Sequence[str]) -> list[tuple[int, int, int]]:
    """(index into the chain's tokens, step, place from the step's end) of the wanted steps."""
    return [
        (at, step, at - chain.kept(step))
        for step, stage in enumerate(chain.stages, start=1)
        if stage in stages
        for at in chain.places(step)
    ]


def token_trajectory(
    values: pd.DataFrame, *, n_resamples: int = 2000, seed: int = 0
) -> pd.DataFrame:
    """Means of `token_values` at each place of a stage, with 95 % intervals over prompts.

    Columns: kind ("token"), model, source, label, place, focus, focus_low, focus_high, confusion,
    confusion_low, confusion_high, mass, n (events whose step is as long).
    """
    rows = []
    keys = ["model", "source", "label", "place"]
    for group, here in groups(values.sort_values(["label", "place"], kind="stable"), keys):
        row = {"kind": "token"} | dict(zip(keys, group, strict=True))
        row |= readout_columns(means(here, n_resamples, seed))
        rows.append(row | {"mass": here["mass"].mean(), "n": len(here)})
    return pd.DataFrame(rows)
