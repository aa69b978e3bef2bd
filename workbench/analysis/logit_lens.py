"""Focus and Confusion layer by layer at the decision, read with the logit lens.

The residual stream at the decision token is taken before each layer and after the last one, and
read through the model's own final norm and unembedding. Step 0 is the embedding, the last step the
model's own answer.
"""

import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor
from transformer_lens.tools.analysis.logit_lens import logit_readout

from workbench.analysis.readout import Roles, focus_confusion
from workbench.analysis.statistics import bootstrap, mean_statistic
from workbench.models.hooked import HookedModel
from workbench.prompts.prompt import VARIANTS, DecisionEvent, PromptSet


def layer_trajectory(
    model: HookedModel, prompts: PromptSet, *, n_resamples: int = 2000, seed: int = 0
) -> pd.DataFrame:
    """The `trajectory` table over layers, per variant: means and 95 % intervals over prompts.

    Columns: kind ("layer"), step (0 to n_layers), variant, focus, focus_low, focus_high,
    confusion, confusion_low, confusion_high, n. Roles are those of the clean prompt throughout.
    """
    values = torch.stack([event_trajectory(model, event) for event in prompts])
    interval = bootstrap(
        mean_statistic,
        values,
        prompt_ids=[event.id for event in prompts],
        n_resamples=n_resamples,
        seed=seed,
        labels=["trajectory"],
    )
    steps = range(model.info.n_layers + 1)
    rows = []
    for row, variant in enumerate(VARIANTS):
        frame = pd.DataFrame({"kind": "layer", "step": steps, "variant": variant})
        for column, name in enumerate(("focus", "confusion")):
            ends = [end[row, :, column].numpy() for end in interval]
            frame[name], frame[f"{name}_low"], frame[f"{name}_high"] = ends
        rows.append(frame.assign(n=len(prompts)))
    return pd.concat(rows, ignore_index=True)


def event_trajectory(
    model: HookedModel, event: DecisionEvent
) -> Float[Tensor, "variant step readout"]:
    """Focus and Confusion (last axis) of one event, variants in the order of `VARIANTS`."""
    n_layers = model.info.n_layers
    names = [f"blocks.{layer}.hook_resid_pre" for layer in range(n_layers)]
    names.append(f"blocks.{n_layers - 1}.hook_resid_post")
    roles = Roles.of(event)
    variants = []
    for run in model.run([event.variant(name) for name in VARIANTS], names):
        decisions = [run.activations[name][-1] for name in names]
        stream = torch.stack([residual.to(decisions[0].device) for residual in decisions])
        # Layers in the place of positions: the library reads any vectors of the residual stream.
        logits = logit_readout(model.bridge, stream, vocab=event.option_tokens).values
        readout = focus_confusion(logits.cpu().double(), roles)
        variants.append(torch.stack(readout, dim=-1))
    return torch.stack(variants)
