"""The arms of a comparison: what each student is trained on, all else being equal.

`loss` and `heads` of an arm replace those of a `DistillationConfig`.
"""

from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from workbench.distill.config import DistillationConfig, Heads, LossConfig, plain
from workbench.distill.losses.term import PHASE_NAMES, TERMS
from workbench.errors import InputError
from workbench.phases import POOLS

OBJECTIVE = {name: term.objective for name, term in TERMS.items() if term.objective}
"""Mechanistic terms of the full objective, with their weights; each is left out in an arm."""

PHASES = {name: term.share for name, term in TERMS.items() if term.share}
"""Terms of the objective by phases, with their weights."""

COT = LossConfig(attention=0.0)
MECHANISTIC = replace(COT, **OBJECTIVE, interaction_temperature=0.1)
BY_PHASE = replace(COT, **PHASES, interaction_temperature=0.1)
BY_LABELS = replace(BY_PHASE, supervision="gold")


@dataclass(frozen=True)
class Arm:
    """One student of a comparison; `heads` are the teacher heads that it learns from."""

    name: str
    loss: LossConfig
    heads: Heads = "pools"


ARMS: Mapping[str, Arm] = {
    arm.name: arm
    for arm in (
        Arm("cot", COT),
        Arm("cot+logits", replace(COT, logit=1.0)),
        Arm("mechanistic", MECHANISTIC),
        *(Arm(f"mechanistic-{part}", replace(MECHANISTIC, **{part: 0.0})) for part in OBJECTIVE),
        Arm("random", MECHANISTIC, "random"),
        Arm("norm", MECHANISTIC, "norm"),
        *(
            Arm(name, replace(COT, **{name: term.baseline}))
            for name, term in TERMS.items()
            if term.baseline
        ),
        Arm("phases", BY_PHASE),
        *(Arm(f"phases-{one}", replace(BY_PHASE, **{f"lambda_{one}": 0.0})) for one in PHASE_NAMES),
        *(Arm(f"phases-{part}", replace(BY_PHASE, **{part: 0.0})) for part in PHASES),
        Arm("phases-gold", BY_LABELS),
        *(
            Arm(f"phases-gold-{one}", replace(BY_LABELS, **{f"lambda_{one}": 0.0}))
            for one in PHASE_NAMES
        ),
    )
}
"""By name: chains alone; with logits; the full objective, and without each of its terms; with other
teacher heads, random of the same layers or of the largest output; the baselines that know no
head set: all heads' attention, hidden states, heads matched by ablation effect; the objective by
phases, without each phase and without each of its terms; and with labels in the teacher's place, of
both phases and without each."""

ON_TRACES = tuple(name for name, arm in ARMS.items() if not set(arm.loss.on) & set(PHASES))
"""Arms that traces of the bundled teacher can train: they do not say which places of a chain belong
to a phase."""


def find_arm(name: str) -> Arm:
    """The arm of this name.

    Raises:
        InputError: there is none; names those there are.
    """
    if name not in ARMS:
        raise InputError(f"arm {name!r} is not one of {', '.join(ARMS)}")
    return ARMS[name]


def arm_config(name: str, base: DistillationConfig) -> DistillationConfig:
    """The configuration of an arm; all but the terms and the teacher's heads is the base's.

    Raises:
        InputError: no arm of this name.
    """
    arm = find_arm(name)
    return replace(base, loss=arm.loss, heads=arm.heads)


CUSTOM = "custom"


def arm_of(config: Mapping[str, Any], pools: Collection[str] = POOLS) -> str:
    """Name of the arm with this `loss` and these `heads`, "custom" if there is none.

    `config` is a `DistillationConfig` as a student's `training.json` holds it, `pools` are those
    that its head set has: an arm teaches all of them.
    """
    loss = config.get("loss")
    if isinstance(loss, Mapping):
        defaults = plain(asdict(LossConfig()))
        loss = defaults | dict(loss)  # a record from before a setting came to be has its default
        taught = [pool for pool in defaults["pools"] if pool in pools]
        if loss["pools"] == taught or not (loss["attention"] or loss["update"]):
            loss["pools"] = defaults["pools"]
    for arm in ARMS.values():
        if plain(asdict(arm.loss)) == loss and arm.heads == config.get("heads"):
            return arm.name
    return CUSTOM
