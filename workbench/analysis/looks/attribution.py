"""Direct logit attribution: what every head writes straight onto the options' logits."""

import numpy as np
import pandas as pd

from workbench.analysis.looks.look import Looks
from workbench.analysis.readout import Roles
from workbench.models.hooked import HookedModel
from workbench.prompts.prompt import DecisionEvent


def logit_attribution(model: HookedModel, event: DecisionEvent) -> pd.DataFrame:
    """What each head adds at the decision straight to the options' logits, by their roles.

    Columns: layer, head; gold, near and far (logits, means over the options of a role); gold_near
    (gold less the mean of near) and relevant_far (mean of gold and near less the mean of far), the
    largest |gold_near| first. The norms are as they are in this run, so that heads, MLPs, embedding
    and biases sum to the logits; NaN where the model's way from a head to its logits is not known.

    Raises:
        InputError: a prompt that the model cannot run, or a layer that shows no attention.
    """
    writes, roles = Looks.of(model, event).writes, Roles.of(event)

    def mean(mask: np.ndarray) -> np.ndarray:
        return writes[..., mask].mean(dim=-1).double().numpy().ravel()

    gold, near, far = (mean(one.numpy()) for one in (roles.gold, roles.near, roles.far))
    layer, head = np.indices(writes.shape[:2])
    table = pd.DataFrame(
        {
            "layer": layer.ravel(),
            "head": head.ravel(),
            "gold": gold,
            "near": near,
            "far": far,
            "gold_near": gold - near,
            "relevant_far": mean(roles.relevant.numpy()) - far,
        }
    )
    order = np.argsort(-np.abs(gold - near), kind="stable")
    return table.iloc[order].reset_index(drop=True)
