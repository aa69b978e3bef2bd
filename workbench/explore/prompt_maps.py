"""Maps over layers and heads of one prompt, from one run of it: no run folder is needed."""

import numpy as np
from torch import Tensor

from workbench.analysis.looks.look import DECISION, EVIDENCE, REGIONS, Looks
from workbench.explore.maps import Choice, Map, full_colour, plain

GROUP = "This prompt"
_WRITES = {
    "near": "Writes on gold against its near misses",
    "far": "Writes on gold and near against far options",
}
_WRITTEN = {
    "near": "direct logit attribution: what the head adds to gold's logit, less its mean over near",
    "far": "direct logit attribution: mean of what the head adds to the logits of gold and near, "
    "less its mean over far",
}
_ATTENTION = {
    (DECISION, EVIDENCE): "Decision looks at the evidence",
    (DECISION, "gold"): "Decision looks at gold",
    (DECISION, "near"): "Decision looks at near options",
    (DECISION, "far"): "Decision looks at far options",
    ("gold", EVIDENCE): "Gold looks at the evidence",
    ("near", EVIDENCE): "Near options look at the evidence",
    ("far", EVIDENCE): "Far options look at the evidence",
    (DECISION, "first token"): "Decision looks at the first token",
}
CHOICES = [
    *(Choice(f"prompt writes {role}", GROUP, title) for role, title in _WRITES.items()),
    *(Choice(f"prompt {a}>{b}", GROUP, title) for (a, b), title in _ATTENTION.items()),
]


def prompt_map(looks: Looks, key: str) -> Map:
    """The map of one of `CHOICES`."""
    name = key.removeprefix("prompt ")
    if name.startswith("writes "):
        role = name.removeprefix("writes ")
        grid, title, unit = _written(looks, role), _WRITES[role], "logit"
        note = _WRITTEN[role]
    else:
        asks, seen = name.split(">")
        grid = looks.masses[:, :, REGIONS.index(asks), REGIONS.index(seen)]
        title, unit = _ATTENTION[asks, seen], "attention"
        note = "mean attention mass of the clean run"
    values = plain(np.asarray(grid.float()))
    return Map(title, note, unit, values, full_colour(values))


def _written(looks: Looks, role: str) -> Tensor:
    """What each head adds straight to the right logits, less what it adds to the others."""
    event = looks.event
    gold, near, far = (event.with_role(one) for one in ("gold", "near", "far"))
    right, wrong = (gold, near) if role == "near" else (gold + near, far)
    return looks.writes[..., right].mean(-1) - looks.writes[..., wrong].mean(-1)
