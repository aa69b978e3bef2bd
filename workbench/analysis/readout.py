"""Focus, Confusion and the log-odds behind them, from the next-token logits of the options.

All but `option_mass` are pure functions of `option_logits`, the logits at the decision token of the
options' tokens in order of `event.options`, and of the roles at that event. Options with role
`other` (further gold labels) have no part in them.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from workbench.errors import InputError
from workbench.phases import MARGIN, OF_READOUT, READOUT_COLUMNS, Readout
from workbench.prompts.prompt import DecisionEvent, Role


@dataclass(frozen=True)
class Roles:
    """Masks over the options of one event; `gold` holds exactly one True."""

    gold: Bool[Tensor, " option"]
    near: Bool[Tensor, " option"]
    far: Bool[Tensor, " option"]

    @classmethod
    def of(cls, event: DecisionEvent) -> "Roles":
        """The masks of one decision event."""

        def mask(role: Role) -> Bool[Tensor, " option"]:
            return torch.tensor([option.role == role for option in event.options])

        return cls(mask("gold"), mask("near"), mask("far"))

    @property
    def relevant(self) -> Bool[Tensor, " option"]:
        """Gold and near: the options of the right cluster."""
        return self.gold | self.near

    @property
    def scored(self) -> Bool[Tensor, " option"]:
        """Gold, near and far: the options that p(y) is normalised over."""
        return self.relevant | self.far


def select_options(
    logits: Float[Tensor, "*batch d_vocab"], event: DecisionEvent
) -> Float[Tensor, "*batch option"]:
    """Logits of the event's options, in order.

    Raises:
        InputError: an option's token is outside the vocabulary.
    """
    d_vocab = logits.shape[-1]
    for option in event.options:
        if option.token >= d_vocab:
            raise InputError(
                f"prompt {event.id!r} event {event.event}: option {option.label!r} has token "
                f"{option.token}, the vocabulary is 0..{d_vocab - 1}"
            )
    return widen(logits[..., event.option_tokens])


def option_mass(
    logits: Float[Tensor, "*batch d_vocab"], event: DecisionEvent
) -> Float[Tensor, "*batch"]:
    """Next-token probability of the event's options together, those of role `other` included."""
    every = widen(logits).logsumexp(dim=-1)
    return (select_options(logits, event).logsumexp(dim=-1) - every).exp()


def widen(tensor: Float[Tensor, "*any"]) -> Float[Tensor, "*any"]:
    """At least float32, so that half precision loses nothing in what follows."""
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))


def focus_confusion(
    option_logits: Float[Tensor, "*batch option"], roles: Roles
) -> tuple[Float[Tensor, "*batch"], Float[Tensor, "*batch"]]:
    """Focus = p(g) + Σ p(N) and Confusion = Σ p(N) / (p(g) + Σ p(N)).

    Both are the logistic function of a margin, which is the same number but stays finite when the
    whole right cluster has probability 0 in floating point.
    """
    focus = coarse_margin(option_logits, roles).sigmoid()
    confusion = (-near_miss_margin(option_logits, roles)).sigmoid()
    return focus, confusion


def good_readout(
    option_logits: Float[Tensor, "*batch option"], roles: Roles, readout: str
) -> Float[Tensor, "*batch"]:
    """Focus, or 1 − Confusion = p(g) / (p(g) + Σ p(N))."""
    phase = OF_READOUT[readout]
    values = dict(zip(OF_READOUT, focus_confusion(option_logits, roles), strict=True))
    return phase.good(values[phase.readout])


def near_miss_margin(
    option_logits: Float[Tensor, "*batch option"], roles: Roles
) -> Float[Tensor, "*batch"]:
    """Log-odds of gold against its near misses: logit(g) − logsumexp(N)."""
    return _logsumexp(option_logits, roles.gold) - _logsumexp(option_logits, roles.near)


def coarse_margin(
    option_logits: Float[Tensor, "*batch option"], roles: Roles
) -> Float[Tensor, "*batch"]:
    """Log-odds of the right cluster against the others: logsumexp(g ∪ N) − logsumexp(F)."""
    return _logsumexp(option_logits, roles.relevant) - _logsumexp(option_logits, roles.far)


MARGINS: dict[Readout, Callable[[Tensor, Roles], Tensor]] = {
    "focus": coarse_margin,
    "confusion": near_miss_margin,
}
"""The log-odds behind each readout, both so that more is better."""


def likeliest_near(near_run: Float[Tensor, " option"], roles: Roles) -> int:
    """Index of the label that the near counterfactual asks for.

    A prompt does not say which near option its evidence names. The near option with the highest
    logit in the unpatched near run stands in for it: where the model does the task, that is it.
    """
    logits = near_run.masked_fill(~roles.near.to(near_run.device), -torch.inf)
    return int(logits.argmax())


def readouts(
    option_logits: Float[Tensor, "*batch option"], roles: Roles, near_label: int
) -> dict[str, Float[Tensor, "*batch"]]:
    """Every readout and its margin, by the names of `READOUT_COLUMNS`.

    `near_label` indexes the option that `swap` asks for: p(near label) − p(gold), over gold, near
    and far, and logit(near label) − logit(gold) as its margin.
    """
    focus, confusion = focus_confusion(option_logits, roles)
    scored = option_logits.masked_fill(~roles.scored.to(option_logits.device), -torch.inf)
    p = scored.softmax(dim=-1)
    gold = int(roles.gold.int().argmax())
    swap = p[..., near_label] - p[..., gold]
    margins = {
        **{MARGIN[name]: margin(option_logits, roles) for name, margin in MARGINS.items()},
        MARGIN["swap"]: option_logits[..., near_label] - option_logits[..., gold],
    }
    found = {"focus": focus, "confusion": confusion, "swap": swap, **margins}
    return {name: found[name] for name in READOUT_COLUMNS}


def readout_columns(
    option_logits: Float[Tensor, "row option"], roles: Roles, near_label: int
) -> dict[str, np.ndarray]:
    """`readouts` as columns of a table, in float64."""
    found = readouts(widen(option_logits), roles, near_label)
    return {name: value.cpu().double().numpy() for name, value in found.items()}


def _logsumexp(
    option_logits: Float[Tensor, "*batch option"], mask: Bool[Tensor, " option"]
) -> Float[Tensor, "*batch"]:
    return option_logits[..., mask.to(option_logits.device)].logsumexp(dim=-1)
